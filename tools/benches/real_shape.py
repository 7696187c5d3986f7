"""Trains two steps of the freeze, LoRA and QLoRA recipes on Qwen2.5-Coder-1.5B's own shape, on the CPU.

In bf16, as the recipes say, where the CPU has instructions for it; elsewhere in float32, because PyTorch emulates bf16
there at a hundredth of the speed.

The model has random weights; it is built once in saves/, 3 GB, and reused. Each recipe runs in a process of its own,
so that its peak memory is its own, and is held against the estimate that the run made before its first step. vLLM then
loads the checkpoint of the freeze recipe and is asked. Each run needs up to 12 GiB of free memory. Not covered: what
is learnt, which random weights do not show.

Example:
    python -m tools.benches.real_shape
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.errors import ConfigError
from sentifactory.records import Review
from sentifactory.system.atomic import replace_directory, write_json, write_text
from sentifactory.system.formats import build_table
from sentifactory.system.hardware import describe_machine, find_bf16_instructions
from sentifactory.system.progress import say
from sentifactory.task.task import BINARY_SENTIMENT
from tools.benches.qwen_shape import build_qwen
from tools.gpu_check.measure import write_texts
from tools.reliability.tiny_recipe import write_reviews

RECIPES = {
    "freeze": Path("examples/train_freeze/qwen2_5_coder_1_5b_freeze_3k.yaml"),
    "lora": Path("examples/train_lora/qwen2_5_coder_1_5b_lora.yaml"),
    "qlora": Path("examples/train_qlora/qwen2_5_coder_1_5b_qlora_bnb.yaml"),
}
# What differs from the recipes, so that two steps take minutes on a CPU.
STEPS, ACCUMULATION = 2, 1
_OVERRIDES = {"lora": ("per_device_train_batch_size=2",)}
GOAL = 0.15  # of the peak: how far the estimate may be off
N_ASKED = 4
_GIB = 1 << 30


def has_bf16() -> bool:
    """Return whether this CPU has instructions for bf16."""
    return find_bf16_instructions() is not None


def train_two_steps(name: str, model: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    """Train two steps of a recipe in a process of its own, and return its run card.

    Args:
        name: of the recipe.
        model: folder of the model.
        folder: gets the data, and the run in a folder with this name.
        overrides: more `key=value` settings.

    Raises:
        ConfigError: when the run fails.
    """
    if not (data := folder / "data").is_dir():
        data.mkdir()
        write_reviews(data, {"shape": write_texts(64)})
    words = [
        f"model_name_or_path={model}", f"dataset_dir={data}", "dataset=shape", "eval_dataset=null",
        'eval_strategy="no"', "load_best_model_at_end=false", f"output_dir={folder / name}", f"max_steps={STEPS}",
        f"gradient_accumulation_steps={ACCUMULATION}", 'save_strategy="no"', "logging_steps=1", "plot_loss=false",
        "preprocessing_num_workers=1", "use_cpu=true", f"bf16={str(has_bf16()).lower()}", *_OVERRIDES.get(name, ()),
        *overrides,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "sentifactory.cli", "train", str(RECIPES[name]), *words, "--json"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "SENTIFACTORY_CACHE_DIR": str(folder / "cache")},
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"The recipe {name} failed", where=str(RECIPES[name]), next_step="see the lines above")
    card: dict[str, Any] = json.loads(done.stdout)
    return card


def ask_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Load a checkpoint in vLLM, ask it for labels, and return the time until it was ready and the answers."""
    from sentifactory.engines.vllm.start_vllm import VllmOptions
    from sentifactory.engines.vllm.vllm_engine import VllmEngine

    start_s = time.monotonic()
    options = VllmOptions(dtype="bfloat16" if has_bf16() else "float32", max_model_len=1024, kv_cache_gib=1)
    engine = VllmEngine(str(checkpoint), BINARY_SENTIMENT, mode="constrain", options=options)
    try:
        ready_s = time.monotonic() - start_s
        texts = [text for text, _ in write_texts(N_ASKED)]
        found = engine.predict([Review(text=text, label=None) for text in texts])
    finally:
        engine.close()
    return {"ready_s": round(ready_s, 1), "asked": len(texts), "answered": sum(one.label is not None for one in found)}


def summarise_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table shows of a run card."""
    compared = card["estimate"]["compared"]
    peak, time_s = compared["peak_bytes"], compared["train_time_s"]
    memory = card["estimate"]["memory"]
    return {
        "trainable": card["parameters"]["trainable"], "estimated_bytes": peak["estimated"],
        "peak_bytes": peak["happened"], "off": peak["estimated"] / peak["happened"] - 1,
        "estimated_s": time_s["estimated"], "seconds": time_s["happened"], "memory": memory,
        "accelerations": [one["name"] for one in card["accelerations"] if one["is_on"]],
    }  # fmt: skip


def write_table(report: Mapping[str, Any]) -> str:
    """Return the report as a Markdown table."""
    rows = [
        ["recipe", "trainable, millions", "estimated peak, GiB", "peak, GiB", "off by", "2 steps, s", "estimated, s"]
    ]
    for name, one in report["recipes"].items():
        rows.append(
            [
                name, f"{one['trainable'] / 1e6:.0f}", f"{one['estimated_bytes'] / _GIB:.2f}",
                f"{one['peak_bytes'] / _GIB:.2f}", f"{one['off']:+.0%}", f"{one['seconds']:.0f}",
                f"{one['estimated_s']:.0f}",
            ]
        )  # fmt: skip
    machine = report["machine"]
    lines = [*build_table(rows), "", f"{machine['processor']}, {machine['cores']} cores, {report['precision']}."]
    if asked := report.get("vllm"):
        lines.append(f"vLLM: ready after {asked['ready_s']:.0f} s, {asked['answered']} of {asked['asked']} answered.")
    return "\n".join(lines)


def bench_shape(
    model: Annotated[Path, typer.Option("--model", help="The model; it is built where there is none.")] = Path(
        "saves/qwen-shape"
    ),
    recipes: Annotated[
        list[str] | None, typer.Option("--recipe", help="freeze, lora or qlora; may be repeated.  [all]")
    ] = None,
    with_vllm: Annotated[bool, typer.Option("--vllm/--no_vllm", help="Ask the freeze checkpoint.")] = True,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where real_shape.md goes.")] = Path("saves/bench"),
) -> None:
    """Hold the estimate of three recipes against what two steps of them take on the real shape."""
    if not model.exists():
        say(f"Building  {model}")
        with replace_directory(model) as target:
            build_qwen(target, "bfloat16" if has_bf16() else "float32")
    report: dict[str, Any] = {
        "machine": describe_machine(), "precision": "bf16" if has_bf16() else "float32", "recipes": {},
    }  # fmt: skip

    def write() -> None:
        write_json(output_dir / "real_shape.json", report)
        write_text(output_dir / "real_shape.md", write_table(report) + "\n")

    with tempfile.TemporaryDirectory(prefix="sentifactory-shape-", dir=model.parent) as name:
        for recipe in recipes or RECIPES:
            report["recipes"][recipe] = summarise_card(train_two_steps(recipe, model.resolve(), Path(name)))
            write()
        if with_vllm and "freeze" in report["recipes"]:
            report["vllm"] = ask_checkpoint(Path(name) / "freeze")
            write()
    print(write_table(report))


if __name__ == "__main__":
    run_script(bench_shape)
