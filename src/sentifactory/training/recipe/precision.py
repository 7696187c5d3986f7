"""Chooses bf16 matrix products for a run on a CPU that has instructions for them.

A processor with AMX or AVX512-BF16 multiplies bf16 matrices several times as fast as float32 ones; one with AVX2 alone
gains nothing. A recipe with `use_cpu: true` that names no precision therefore gets `bf16: true` on the former:
PyTorch's autocast rounds the operands of matrix products and attention, while weights, gradients, optimizer, norms and
loss stay float32. `bf16=false` (or `true`) in the recipe decides instead.

The choice becomes a setting like any other, so it is in the fingerprint of the run. A run that is continued on another
machine keeps the precision it began with. Not covered: stages other than sft, and encoder recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sentifactory.system.hardware import find_bf16_instructions
from sentifactory.system.progress import say
from sentifactory.training.recipe.recipe import Recipe

# A recipe that sets one of these has chosen.
_PRECISION_KEYS = ("bf16", "fp16", "pure_bf16", "quantization_bit")
BY_RECIPE, BY_PROCESSOR, BY_FORMER_RUN = "recipe", "processor", "continued run"


def is_precision_open(settings: Mapping[str, Any]) -> bool:
    """Return whether a recipe leaves the precision to the processor.

    Example:
        >>> is_precision_open({"use_cpu": True}), is_precision_open({"use_cpu": True, "bf16": False})
        (True, False)
    """
    is_chosen = any(settings.get(key) is not None for key in _PRECISION_KEYS)
    return bool(settings.get("use_cpu")) and settings.get("stage", "sft") == "sft" and not is_chosen


def list_precisions(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of a recipe in float32 and in bf16, or only as they are where the recipe has chosen.

    Example:
        >>> list_precisions({"use_cpu": True})
        [{'use_cpu': True}, {'use_cpu': True, 'bf16': True}]
    """
    plain = dict(settings)
    return [plain, {**plain, "bf16": True}] if is_precision_open(settings) else [plain]


def choose_precision(
    recipe: Recipe,
    former: Mapping[str, Any] | None = None,
    compute_fingerprint: Callable[[Mapping[str, Any]], str] | None = None,
    *,
    is_automatic: bool = True,
) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with its precision set, and the entry of the run card; report an automatic choice.

    Args:
        recipe: the recipe.
        former: the run card of a run that this one may continue.
        compute_fingerprint: of the run with the given settings; None: whatever the settings, it continues `former`.
        is_automatic: False leaves an open precision at float32, unless a continued run has another.
    """
    settings = recipe.settings
    if not is_precision_open(settings):
        return recipe, _describe(settings, BY_RECIPE)
    instructions = find_bf16_instructions() if is_automatic else None
    is_bf16 = instructions is not None
    was_bf16 = is_bf16 if former is None else bool((former.get("recipe") or {}).get("bf16"))
    chosen = list_precisions(settings)[was_bf16]
    if (
        former is not None
        and was_bf16 != is_bf16
        and (compute_fingerprint is None or former.get("fingerprint") == compute_fingerprint(chosen))
    ):
        kept = "bf16" if was_bf16 else "float32"
        say(f"Precision: {kept} matrix products, with which the continued run began, although this processor differs.")
        return replace(recipe, settings=chosen), _describe(chosen, BY_FORMER_RUN)
    if is_bf16:
        say(
            f"Precision: bf16 matrix products, for which this processor has instructions ({instructions}); weights "
            "and optimizer are float32 (bf16=false: everything in float32)."
        )
    chosen = list_precisions(settings)[is_bf16]
    return replace(recipe, settings=chosen), _describe(chosen, BY_PROCESSOR)


def _describe(settings: Mapping[str, Any], chosen_by: str) -> dict[str, str]:
    names = {"bf16": "bf16", "pure_bf16": "bf16", "fp16": "fp16"}
    found = next((name for key, name in names.items() if settings.get(key)), "float32")
    return {"matrix_products": found, "chosen_by": chosen_by}
