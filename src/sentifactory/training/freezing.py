"""Makes freeze-training freeze: only the named layers and exactly the named extra modules stay trainable.

LLaMA-Factory finds trainable parameters by looking for words anywhere in a parameter's name. So `norm` frees the norms
of every layer, and a layer number can match the number of an expert inside another layer. What it freed by such an
accident is frozen again here; what a recipe names stays trainable. Nothing that LLaMA-Factory froze is ever freed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sentifactory.number_spans import format_spans
from sentifactory.training.recipe_checks import split_names


@dataclass(frozen=True, slots=True)
class FreezePlan:
    """What a freeze recipe names.

    Attributes:
        layers: indexes of the layers that train.
        modules: names of modules directly inside a layer (`self_attn`), or `all`.
        extra_modules: names of modules outside the layers (`embed_tokens`, `norm`, `lm_head`).
    """

    layers: frozenset[int]
    modules: tuple[str, ...] = ("all",)
    extra_modules: tuple[str, ...] = ()


def read_plan(settings: Mapping[str, Any], layer_count: int) -> FreezePlan | None:
    """Return the plan of a freeze recipe, or None when the recipe trains in another way."""
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
    """Return the name of the list of decoder layers (`model.layers`), or None where it is not the only candidate."""
    from torch import nn

    count = getattr(model.config, "num_hidden_layers", None)
    found = [
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    outermost = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    return outermost[0] if len(outermost) == 1 else None


def correct_trainable(model: Any, settings: Mapping[str, Any]) -> str | None:
    """Freeze what LLaMA-Factory freed without the recipe naming it, and return a line about it (None: nothing to say).

    Must run before the optimizer is made. Tensors that LLaMA-Factory cast to float32 because it would train them go
    back to the type of the frozen ones.
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
        f"Froze {len(accidents)} tensors again that stock LLaMA-Factory frees because their names contain a word of "
        f"the recipe (such as {accidents[0]}); training: layers {format_spans(plan.layers)}"
        + (f" and {extras}" if extras else "")
    )


def _named_extras(model: Any, plan: FreezePlan, prefix: str) -> list[str]:
    return [
        name
        for name, _ in model.named_parameters()
        if not name.startswith(f"{prefix}.") and is_named(name, plan, prefix)
    ]


def summarise_trainable(named_shapes: Sequence[tuple[str, int, bool]]) -> dict[str, Any]:
    """Return counts and a short list of trainable parameters, for the run card.

    Args:
        named_shapes: (name, number of elements, whether it trains) for each parameter.

    Example:
        >>> summarise_trainable([("model.layers.0.a.weight", 4, False), ("model.layers.1.a.weight", 4, True)])
        {'trainable': 4, 'total': 8, 'tensors': 1, 'names': ['model.layers.1.*']}
    """
    trained = [(name, size) for name, size, trains in named_shapes if trains]
    names = sorted({re.sub(r"(\.\d+)\..*", r"\1.*", name, count=1) for name, _ in trained}, key=_natural_order)
    return {
        "trainable": sum(size for _, size in trained),
        "total": sum(size for _, size, _ in named_shapes),
        "tensors": len(trained),
        "names": names,
    }


def _natural_order(name: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
