"""Writes the memory table of the training guide: what each recipe needs, and which GPU is enough, from dry runs.

Weights are neither loaded nor downloaded: a folder with configuration and tokenizer is enough. Not covered: models
that are split among GPUs. Fragmentation is covered only by a constant factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sentifactory.system.formats import DASH, build_table

QWEN = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
RECIPES = (
    "examples/train_qlora/qwen2_5_coder_1_5b_qlora_bnb.yaml",
    "examples/train_lora/qwen2_5_coder_1_5b_lora.yaml",
    "examples/train_freeze/qwen2_5_coder_1_5b_freeze_t4.yaml",
    "examples/train_freeze/qwen2_5_coder_1_5b_freeze_3k.yaml",
    "examples/train_freeze/qwen2_5_coder_1_5b_freeze_a100.yaml",
    "examples/train_freeze/reference/qwen2_5_coder_1_5b_freeze_tutorial.yaml",
    "examples/train_full/qwen2_5_coder_1_5b_full.yaml",
)
GPUS_GB = {
    "8 GB": 8,
    "12 GB": 12,
    "16 GB (T4)": 16,
    "24 GB (L4, A10)": 24,
    "40 GB (A100)": 40,
    "80 GB (A100, H100)": 80,
}
# The CUDA context and kernels take about 1 GiB, and fragmentation about a tenth.
ROOM_GIB, ROOM_FACTOR = 1.0, 1.1
_GIB = 1 << 30
HEADS = {
    "en": (
        "recipe",
        "trainable weights, millions",
        "weights",
        "gradients, optimizer",
        "activations, logits",
        "peak, GiB",
        "fits on",
    ),
    "zh": ("配方", "训练的参数（百万）", "权重", "梯度与优化器", "激活与 logits", "峰值（GiB）", "可用显卡"),
}
CAPTIONS = {
    "en": "Estimated by `sentifactory train RECIPE --dry_run` for each recipe, with our accelerations; one layer was "
    'run on the {device}. GiB, without the memory of the process itself. "Fits" leaves a tenth and 1 GiB free.',
    "zh": "由 `sentifactory train RECIPE --dry_run` 逐个估计（含我们的加速），在 {device} 上试算一层；"
    "单位 GiB，不含进程本身。“可用显卡”已留出一成和 1 GiB 的余量。",
}


def estimate_recipes(model: str, recipes: Sequence[str] = RECIPES) -> Iterator[dict[str, Any]]:
    """Yield the estimate of each recipe, as in `--dry_run --json`.

    Args:
        model: replaces the model of the recipes; a hub id, or a folder with configuration and tokenizer.
        recipes: paths of the recipes.

    Raises:
        ConfigError: if a recipe, its data or the model cannot be used.
    """
    from sentifactory.system.hardware import has_nvidia_gpu
    from sentifactory.training.llamafactory.dry_run import estimate_recipe

    # float16 and bfloat16 take the same memory, but only bfloat16 can be run without a GPU.
    device = [] if has_nvidia_gpu() else ["use_cpu=true", "fp16=false", "bf16=true"]
    for recipe in recipes:
        yield estimate_recipe(recipe, [f"model_name_or_path={model}", "report_to=none", *device])


def write_memory_part(found: Sequence[Mapping[str, Any]], language: str) -> str:
    """Return the table in a language, `en` or `zh`."""
    rows = [list(HEADS[language])]
    for one in found:
        memory = one["estimate"]["memory"]
        peak = memory["peak"] - memory["process"]
        parts = (
            memory["weights"],
            memory["gradients"] + memory["optimizer"],
            memory["activations"] + memory["logits"],
            peak,
        )
        trained = one["parameters"]["trainable"] / 1e6
        name = one["recipe_file"].rpartition("examples/")[2]
        rows.append([f"`{name}`", f"{trained:.0f}", *(f"{part / _GIB:.1f}" for part in parts), find_gpu(peak)])
    return CAPTIONS[language].format(device=found[0]["estimate"]["device"]) + "\n\n" + "\n".join(build_table(rows))


def find_gpu(peak_bytes: int) -> str:
    """Return the smallest common GPU with enough memory for a peak, or a dash.

    Example:
        >>> find_gpu(5 << 30), find_gpu(12 << 30), find_gpu(200 << 30)
        ('8 GB', '16 GB (T4)', '–')
    """
    needed = peak_bytes * ROOM_FACTOR + ROOM_GIB * _GIB
    return next((name for name, size_gb in GPUS_GB.items() if needed <= size_gb * 1e9), DASH)
