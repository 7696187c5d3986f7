"""Writes the table of what is on under which engine, by asking the functions that decide it in a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.system.formats import DASH, build_table
from sentifactory.training.acceleration.accelerations import (
    FROZEN_LAYERS,
    LAST_LAYER,
    SHARED_PREFIX,
    find_pass_obstacle_in_settings,
    find_pass_obstacle_in_trainer,
)
from sentifactory.training.acceleration.answer_logits import find_obstacle_in_settings
from sentifactory.training.acceleration.sharding import find_sharding_obstacle
from sentifactory.training.label_loss.label_scores import find_obstacle_to_labels

_ZERO_FILE = Path(__file__).parents[2] / "examples" / "distributed" / "deepspeed" / "ds_z3.json"
# Engine, its settings in the recipe, number of processes.
ENGINES: tuple[tuple[Sentence, dict[str, Any], int], ...] = (
    (Sentence("one process", "单进程"), {}, 1),
    (Sentence("several processes or machines, Ray", "多进程、多机、Ray"), {}, 2),
    (Sentence("DeepSpeed ZeRO", "DeepSpeed ZeRO"), {"deepspeed": str(_ZERO_FILE)}, 2),
    (Sentence("FSDP", "FSDP"), {"fsdp": "full_shard"}, 2),
)
HEADS = {
    "en": ("engine", "answer-only logits", f"{FROZEN_LAYERS}, {SHARED_PREFIX}, {LAST_LAYER}", "labels of validation"),
    "zh": ("引擎", "只在答案位置计算 logits", "冻结层复用、共享前缀、末层只算答案位置", "验证标签打分"),
}
IS_ON = {"en": "on", "zh": "启用"}


def write_engines_part(language: str) -> str:
    """Return the table in a language, `en` or `zh`."""
    rows = [list(HEADS[language])]
    for name, settings, processes in ENGINES:
        cells = [IS_ON[language] if is_on else DASH for is_on in find_states(settings, processes)]
        rows.append([getattr(name, language), *cells])
    return "\n".join(build_table(rows))


def find_states(settings: dict[str, Any], processes: int) -> tuple[bool, bool, bool]:
    """Return whether answer-only logits, the fast forward pass and the scores of labels are on for a freeze recipe.

    Example:
        >>> find_states({}, 2)
        (True, True, True)
    """
    recipe = {"stage": "sft", "finetuning_type": "freeze", **settings}
    args = SimpleNamespace(n_gpu=1, world_size=processes, deepspeed=None, fsdp=None, parallelism_config=None)
    vars(args).update(settings)
    if "deepspeed" in settings:
        args.hf_deepspeed_config = SimpleNamespace(config=json.loads(_ZERO_FILE.read_text(encoding="utf-8")))
    data = SimpleNamespace(column_names=["input_ids", "labels"])
    has_logits = find_obstacle_in_settings(recipe) is None and find_sharding_obstacle(args) is None
    is_fast = find_pass_obstacle_in_settings(recipe) is None and find_pass_obstacle_in_trainer(args, data) is None
    return has_logits, has_logits and is_fast, find_obstacle_to_labels(recipe, args) is None
