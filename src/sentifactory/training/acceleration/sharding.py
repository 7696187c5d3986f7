"""Says what splits the weights among the processes of a run, and whether answer-only logits are exact with it.

DeepSpeed ZeRO and FSDP gather the weights of a module before its forward function and leave inputs, outputs and hooks
alone, so answer-only logits apply. What reads weights outside of a forward pass does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.system.ranks import is_set

DEEPSPEED, FSDP, PARALLELISM = "DeepSpeed", "FSDP", "parallelism_config"
# Keys of a DeepSpeed file under which every process still computes whole samples with the model's own modules.
_PROVEN_DEEPSPEED_KEYS = frozenset(
    {
        "activation_checkpointing", "bf16", "communication_data_type", "fp16", "gradient_accumulation_steps",
        "gradient_clipping", "optimizer", "scheduler", "steps_per_print", "train_batch_size",
        "train_micro_batch_size_per_gpu", "wall_clock_breakdown", "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer", "zero_optimization",
    }
)  # fmt: skip


def find_sharding(args: Any) -> str | None:
    """Return what splits the weights of the model among the processes of a run, or None where each holds all of them.

    Args:
        args: the trainer's arguments.
    """
    if getattr(args, "deepspeed", None) or is_set("ACCELERATE_USE_DEEPSPEED"):
        return DEEPSPEED
    if getattr(args, "fsdp", None) or is_set("ACCELERATE_USE_FSDP"):
        return FSDP
    return PARALLELISM if getattr(args, "parallelism_config", None) else None


def find_sharding_obstacle(args: Any) -> str | None:
    """Return why the way in which the weights are split rules out answer-only logits, or None."""
    kind = find_sharding(args)
    if kind == PARALLELISM:
        return f"{PARALLELISM} may split samples among the processes"
    if kind == DEEPSPEED:
        holder = getattr(args, "hf_deepspeed_config", None)
        if holder is None:
            return "DeepSpeed is configured outside of the recipe, so its settings cannot be inspected"
        return find_obstacle_in_deepspeed(holder.config)
    return None


def find_obstacle_in_deepspeed(config: Mapping[str, Any]) -> str | None:
    """Return why a DeepSpeed configuration rules out answer-only logits, or None.

    Example:
        >>> find_obstacle_in_deepspeed({"zero_optimization": {"stage": 3}, "tensor_parallel": {"autotp_size": 2}})
        'the DeepSpeed setting tensor_parallel is not proven to be exact'
    """
    other = next((key for key, value in config.items() if value and key not in _PROVEN_DEEPSPEED_KEYS), None)
    return f"the DeepSpeed setting {other} is not proven to be exact" if other else None
