"""Corrects freeze-training: only the layers and extra modules that a recipe names stay trainable.

LLaMA-Factory matches names as substrings anywhere in a parameter's name: `norm` makes the norms of every layer
trainable, and a layer number can match the number of an expert in another layer. Parameters that became trainable by
such an accident are frozen again. No parameter that LLaMA-Factory froze is made trainable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.system.formats import format_spans
from sentifactory.training.recipe.recipe_checks import split_names


@dataclass(frozen=True, slots=True)
class FreezePlan:
    """The trainable parts that a freeze recipe names.

    Attributes:
        layers: indices of the trainable layers.
        modules: names of modules directly inside a layer (`self_attn`), or `all`.
        extra_modules: names of modules outside the layers (`embed_tokens`, `norm`, `lm_head`).
    """

    layers: frozenset[int]
    modules: tuple[str, ...] = ("all",)
    extra_modules: tuple[str, ...] = ()


def read_plan(settings: Mapping[str, Any], layer_count: int) -> FreezePlan | None:
    """Return the plan of a freeze recipe, or None for another fine-tuning type."""
    if settings.get("finetuning_type", "lora") != "freeze":
        return None
    wanted = int(settings.get("freeze_trainable_layers", 2))
    if settings.get("use_llama_pro"):
        stride = layer_count // wanted
        layers: Iterable[int] = range(stride - 1, layer_count, stride)
    elif wanted > 0:
        layers = range(max(0, layer_count - wanted), layer_count)
    else:
        layers = range(min(-wanted, layer_count))
    return FreezePlan(
        frozenset(layers),
        tuple(split_names(settings.get("freeze_trainable_modules", "all"))),
        tuple(split_names(settings.get("freeze_extra_modules"))),
    )


def is_named(parameter: str, plan: FreezePlan, layers_prefix: str) -> bool:
    """Return whether the recipe names this parameter.

    Example:
        >>> plan = FreezePlan(frozenset({1}), extra_modules=("norm",))
        >>> names = ["model.norm.weight", "model.layers.0.norm.weight", "model.layers.1.mlp.up_proj.weight"]
        >>> [is_named(name, plan, "model.layers") for name in names]
        [True, False, True]
    """
    if parameter.startswith(f"{layers_prefix}."):
        index, _, rest = parameter.removeprefix(f"{layers_prefix}.").partition(".")
        module = rest.split(".", 1)[0]
        return index.isdigit() and int(index) in plan.layers and ("all" in plan.modules or module in plan.modules)
    parts = parameter.split(".")
    return len(parts) > 1 and parts[-2] in plan.extra_modules and not re.search(r"\.\d+\.", parameter)


def find_layers_prefix(model: Any) -> str | None:
    """Return the name of the list of decoder layers (`model.layers`), or None where it is ambiguous."""
    from torch import nn

    count = getattr(model.config, "num_hidden_layers", None)
    found = [
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    outermost = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    return outermost[0] if len(outermost) == 1 else None


def correct_trainable(model: Any, settings: Mapping[str, Any]) -> str | None:
    """Freeze trainable parameters that the recipe does not name; return a sentence about them, or None.

    Must run before the optimizer is created. Tensors that LLaMA-Factory cast to float32 for training are cast back to
    the type of the frozen ones.
    """
    prefix = find_layers_prefix(model)
    if prefix is None or settings.get("finetuning_type") != "freeze":
        return None
    plan = read_plan(settings, model.config.num_hidden_layers)
    assert plan is not None  # noqa: S101  (finetuning_type is freeze)
    frozen_types = [value.dtype for value in model.parameters() if not value.requires_grad]
    accidents = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not is_named(name, plan, prefix):
            parameter.requires_grad_(False)
            if frozen_types:
                parameter.data = parameter.data.to(frozen_types[0])
            accidents.append(name)
    if not accidents:
        return None
    extras = ", ".join(sorted({name.rsplit(".", 1)[0] for name in _named_extras(model, plan, prefix)}))
    return (
        f"Froze {len(accidents)} tensors that stock LLaMA-Factory makes trainable because their names contain a word "
        f"of the recipe (such as {accidents[0]}); trainable: layers {format_spans(plan.layers)}"
        + (f" and {extras}" if extras else "")
    )


def _named_extras(model: Any, plan: FreezePlan, prefix: str) -> list[str]:
    return [
        name
        for name, _ in model.named_parameters()
        if not name.startswith(f"{prefix}.") and is_named(name, plan, prefix)
    ]
