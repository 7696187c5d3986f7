"""Measures how samples per second grow from one process to two, and computes what the all-reduce of many GPUs costs.

Stock LLaMA-Factory and ours train with one and two processes of one thread each, in turns, so that a change of the
machine's speed meets all four alike. All of them train on the same batches, in two epochs; the first fills the cache
of the frozen layers, and the second is timed.

The arithmetic takes the trainable weights and the operations of a step from the dry run of a recipe. A ring all-reduce
sends and receives 2 (N - 1) / N times the gradients on each of N GPUs (Patarasu and Yuan, 2009). Not covered: that the
all-reduce overlaps with the backward pass, which makes it cheaper than the table says.

Example:
    python -m tools.benches.process_scaling --shape saves/qwen-shape
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.corpus.splitting.order import order_by_batch
from sentifactory.errors import ConfigError
from sentifactory.records import Review
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.formats import build_table
from sentifactory.system.hardware import describe_machine, find_bf16_instructions
from sentifactory.system.progress import say
from sentifactory.system.ranks import is_main_process
from tools.gpu_check.measure import write_texts
from tools.gpu_check.recorded_steps import train_recorded
from tools.reliability.tiny_recipe import write_reviews

RECIPE = Path("examples/train_freeze/gemma3_270m_freeze_demo.yaml")
SHAPE_RECIPES = (
    "examples/train_freeze/qwen2_5_coder_1_5b_freeze_a100.yaml",
    "examples/train_lora/qwen2_5_coder_1_5b_lora.yaml",
    "examples/train_full/qwen2_5_coder_1_5b_full.yaml",
)
WAYS, PROCESSES = ("stock", "ours"), (1, 2)
BATCH = 16  # as in the recipe
_TEXTS = 64 * BATCH  # of which the first batches are taken: with more, those of a step are more alike
GRADIENT_BYTES = 4  # trainable weights and their gradients are float32
# What the arithmetic assumes: a GPU of the class of an H100 at half of its peak, NVLink within a machine of 8, and
# a network adapter of 400 Gbit/s for each GPU between machines.
GPU_OPERATIONS_PER_S = 400e12
LINK_BYTES_PER_S = {8: 300e9, 64: 50e9}
GROWTH_GOAL, STOCK_GOAL = 1.8, 3.5
# Where the main process writes what it recorded.
_FILE_VARIABLE = "SENTIFACTORY_SCALING_FILE"
_CAPTION_KEYS = ("recipe", "batch", "processor", "cores", "batches", "rounds")


@dataclass(frozen=True, slots=True)
class ReduceCost:
    """The cost of an all-reduce beside that of a step.

    Attributes:
        sent_bytes: by each GPU for a step.
        reduce_s: time of that.
        step_s: time of the step's operations.
    """

    sent_bytes: float
    reduce_s: float
    step_s: float

    @property
    def share(self) -> float:
        """Share of the all-reduce in the time of both."""
        return self.reduce_s / (self.reduce_s + self.step_s)


def compute_reduce(trainable: int, operations: float, gpus: int) -> ReduceCost:
    """Return the cost of an all-reduce.

    Args:
        trainable: number of weights with a gradient.
        operations: of a step on one GPU.
        gpus: a key of LINK_BYTES_PER_S.

    Example:
        >>> cost = compute_reduce(300_000_000, 4e12, 8)
        >>> round(cost.sent_bytes / 1e9, 1), round(cost.reduce_s * 1e3), round(cost.step_s * 1e3)
        (2.1, 7, 10)
    """
    sent = 2 * (gpus - 1) / gpus * trainable * GRADIENT_BYTES
    return ReduceCost(sent, sent / LINK_BYTES_PER_S[gpus], operations / GPU_OPERATIONS_PER_S)


def count_recipe(recipe: str, model: Path, data: Path) -> dict[str, Any]:
    """Return the trainable weights of a recipe, and the operations of one of its steps, by a dry run."""
    from sentifactory.training.llamafactory.dry_run import estimate_recipe

    words = [
        f"model_name_or_path={model}", f"dataset_dir={data}", "dataset=scaling", "eval_dataset=null",
        'eval_strategy="no"', "load_best_model_at_end=false", "use_cpu=true", "report_to=none", _write_precision(),
        "preprocessing_num_workers=1",
    ]  # fmt: skip
    found = estimate_recipe(recipe, words)
    estimate = found["estimate"]
    return {
        "trainable": found["parameters"]["trainable"], "operations": estimate["operations"] / estimate["steps"],
        "samples": estimate["reviews"] * estimate["epochs"] / estimate["steps"],
    }  # fmt: skip


def time_processes(model: Path, way: str, processes: int, batches: int, folder: Path) -> dict[str, Any]:
    """Train with some processes of one thread, and return what the main one recorded.

    Raises:
        ConfigError: when the run fails.
    """
    folder.mkdir()
    # Batches of a step have similar lengths, as `data prepare --batch_size` makes them: no process waits for another.
    labels = dict(write_texts(_TEXTS))
    ordered = order_by_batch([Review(*one) for one in labels.items()], BATCH * max(PROCESSES), seed=0)
    write_reviews(folder, {"scaling": [(one.text, labels[one.text]) for one in ordered[: batches * BATCH]]})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [
        f"model_name_or_path={model}", f"dataset_dir={folder}", "dataset=scaling", "eval_dataset=null",
        f"output_dir={folder / 'run'}", "plot_loss=false", 'save_strategy="no"', "report_to=none", "logging_steps=1",
        f"max_steps={2 * batches // processes}", f"per_device_train_batch_size={BATCH}",
    ]  # fmt: skip
    done = subprocess.run(
        [*command, "-m", "tools.benches.process_scaling", "--rank", way, *words],
        env={
            **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
            "SENTIFACTORY_CACHE_DIR": str(folder / "cache"), _FILE_VARIABLE: str(folder / "found.json"),
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"{processes} processes, {way}: {done.stderr.strip()[-1000:]}", where=str(RECIPE))
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def train_as_rank(way: str, words: list[str]) -> None:
    """Train as one of the processes; the main one writes its records."""
    import torch

    torch.set_num_threads(1)
    recorder, card = train_recorded(RECIPE, [*words, _write_precision()], is_accelerated=way == "ours")
    if is_main_process():
        found = {"seconds": recorder.seconds, "world_size": card["world_size"], "losses": recorder.losses}
        write_json(os.environ[_FILE_VARIABLE], found)


def _write_precision() -> str:
    # The one that ours chooses by itself, for stock as well.
    return f"bf16={str(find_bf16_instructions() is not None).lower()}"


def measure_growth(model: Path, *, batches: int, rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return samples per second, by way and number of processes, over the second epochs of all rounds.

    Args:
        model: folder of the model.
        batches: of an epoch; a multiple of all of `PROCESSES`.
        rounds: of all four.
        folder: gets the runs.
    """
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds):
        for way in WAYS:
            for processes in PROCESSES:
                say(f"Round {turn + 1} of {rounds}: {way}, {processes} process{'es' if processes > 1 else ''}")
                found = time_processes(model, way, processes, batches, folder / f"{turn}-{way}-{processes}")
                seconds.setdefault((way, processes), []).extend(found["seconds"][batches // processes :])
    if not rounds:
        return {}
    return {
        way: {
            str(processes): BATCH * processes * len(seconds[way, processes]) / sum(seconds[way, processes])
            for processes in PROCESSES
        }
        for way in WAYS
    }


def write_growth_table(report: Mapping[str, Any], language: str) -> str:
    """Return the table of samples per second in a language, `en` or `zh`, with its goals and its origin."""
    head, names, goal, caption = {
        "en": (
            ("samples/s", "1 process", "2 processes", "2 against 1"), {"stock": "stock LLaMA-Factory", "ours": "ours"},
            "Two processes: ours × {growth:.2f} of one (goal {growth_goal}), and × {stock:.1f} of stock with two "
            "(goal {stock_goal}).",
            "`{recipe}`, one thread and a batch of {batch} reviews for each process, {processor}, {cores} cores; the "
            "same {batches} batches for all four, in turns, {rounds} rounds; the second epoch.",
        ),
        "zh": (
            ("样本/秒", "1 个进程", "2 个进程", "2 与 1 之比"), {"stock": "原版 LLaMA-Factory", "ours": "本项目"},
            "两个进程：本项目是单进程的 {growth:.2f} 倍（目标 {growth_goal}），"
            "是原版双进程的 {stock:.1f} 倍（目标 {stock_goal}）。",
            "`{recipe}`，每个进程一个线程、每批 {batch} 条评论，{processor}，{cores} 核；"
            "四种配置轮流训练相同的 {batches} 个批次，共 {rounds} 轮；只计第二个 epoch。",
        ),
    }[language]  # fmt: skip
    speeds = report["samples_per_s"]
    if not speeds:
        return {"en": "One and two processes: not measured.", "zh": "一个与两个进程：未测。"}[language]
    rows = [list(head)]
    rows += [
        [names[way], f"{one['1']:.2f}", f"{one['2']:.2f}", f"× {one['2'] / one['1']:.2f}"]
        for way, one in speeds.items()
    ]
    ours, stock = speeds["ours"], speeds["stock"]
    facts = {**report, **report["machine"]}
    reached = {"growth": ours["2"] / ours["1"], "stock": ours["2"] / stock["2"]}
    reached |= {"growth_goal": GROWTH_GOAL, "stock_goal": STOCK_GOAL}
    lines = [*build_table(rows), "", goal.format(**reached)]
    return "\n".join([*lines, "", caption.format(**{key: facts[key] for key in _CAPTION_KEYS})])


def write_reduce_table(report: Mapping[str, Any], language: str) -> str:
    """Return the table of the all-reduce in a language, `en` or `zh`, with what it assumes."""
    head, caption = {
        "en": (
            ("recipe", "GPUs", "trainable, millions", "sent by each GPU, GB", "all-reduce, ms", "step, ms", "share"),
            "Computed, not measured: {rate:.0f} TFLOP/s for the operations of a step with our accelerations, "
            "{near:.0f} GB/s within a machine of 8 GPUs, {far:.0f} GB/s between machines; no overlap.",
        ),
        "zh": (
            (
                "配方",
                "GPU 数",
                "训练的参数（百万）",
                "每块 GPU 发送（GB）",
                "all-reduce（毫秒）",
                "一步（毫秒）",
                "占比",
            ),
            "由代码计算，并非实测：一步的运算量（含本项目的加速）按 {rate:.0f} TFLOP/s 计，"
            "8 卡机内带宽 {near:.0f} GB/s，"
            "机器之间 {far:.0f} GB/s，不计通信与计算的重叠。",
        ),
    }[language]
    rows = [list(head)]
    for recipe, one in report["recipes"].items():
        for gpus in LINK_BYTES_PER_S:
            cost = compute_reduce(one["trainable"], one["operations"], gpus)
            rows.append(
                [
                    f"`{recipe.rpartition('examples/')[2]}`", str(gpus), f"{one['trainable'] / 1e6:.0f}",
                    f"{cost.sent_bytes / 1e9:.2f}", f"{cost.reduce_s * 1e3:.1f}", f"{cost.step_s * 1e3:.1f}",
                    f"{cost.share:.0%}",
                ]
            )  # fmt: skip
    near, far = LINK_BYTES_PER_S.values()
    assumed = caption.format(rate=GPU_OPERATIONS_PER_S / 1e12, near=near / 1e9, far=far / 1e9)
    return "\n".join([*build_table(rows), "", assumed])


def bench_scaling(
    model: Annotated[Path, typer.Option("--model", help="The model that is trained.")] = Path(
        "saves/pretrained/gemma-3-270m-12"
    ),
    shape: Annotated[
        Path, typer.Option("--shape", help="Folder with configuration and tokenizer of the recipes' model.")
    ] = Path("saves/qwen-shape"),
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Steps of an epoch with two processes; with one, twice as many.")
    ] = 2,
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="Rounds of the four runs; 0: only compute.")] = 2,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where process_scaling.json goes.")] = Path(
        "saves/bench"
    ),
) -> None:
    """Measure one and two processes, and compute the all-reduce of 8 and 64 GPUs."""
    batches = steps * max(PROCESSES)
    with tempfile.TemporaryDirectory(prefix="sentifactory-scaling-") as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir()
        write_reviews(data, {"scaling": write_texts(256)})
        report = {
            "recipe": str(RECIPE), "machine": describe_machine(), "batches": batches, "rounds": rounds, "batch": BATCH,
            "samples_per_s": measure_growth(model.resolve(), batches=batches, rounds=rounds, folder=folder),
            "recipes": {recipe: count_recipe(recipe, shape.resolve(), data) for recipe in SHAPE_RECIPES},
        }  # fmt: skip
    write_json(output_dir / "process_scaling.json", report)
    text = f"{write_growth_table(report, 'en')}\n\n{write_reduce_table(report, 'en')}"
    write_text(output_dir / "process_scaling.md", text + "\n")
    print(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        train_as_rank(sys.argv[2], sys.argv[3:])
    else:
        run_script(bench_scaling)
