"""Every recipe under examples/distributed starts two processes by `sentifactory train` and trains a tiny model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from sentifactory.training.acceleration.accelerations import ANSWER_LOGITS

pytestmark = [pytest.mark.slow, pytest.mark.repetition]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted((EXAMPLES / "distributed").rglob("*.yaml"))
# Everything else stays as the file says: method, sampling, accumulation, evaluation and how the best step is chosen.
ON_THIS_MACHINE = (
    "template=gemma2", "preprocessing_num_workers=1", "max_samples=8", "max_steps=2", "eval_steps=1", "save_steps=2",
    "plot_loss=false", "ddp_timeout=300",
)  # fmt: skip


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_two_processes_train_by_it(path: Path, small_qwen: Path, review_data: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    words = [f"model_name_or_path={small_qwen}", f"dataset_dir={review_data}", f"output_dir={tmp_path / 'out'}"]
    words += ON_THIS_MACHINE
    if settings.get("fp16"):
        words += ["fp16=false", "bf16=true"]  # accelerate refuses fp16 without a GPU
    if "deepspeed" in settings:
        if find_spec("deepspeed") is None:
            pytest.skip("deepspeed is not installed")
        words += ["use_cpu=false", "bf16=false"]  # transformers starts no ZeRO-3 with use_cpu; DeepSpeed finds no GPU
    else:
        words += ["use_cpu=true"]
    environments: list[dict[str, str]] = [{}]
    if "ray_num_workers" in settings:
        words += ["ray_num_workers=2", "ray_init_kwargs={address: local, num_cpus: 20, include_dashboard: false}"]
        environments = [{"USE_RAY": "1"}]
    elif "NNODES=2" in path.read_text(encoding="utf-8"):
        meeting = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port())}
        environments = [{**meeting, "NODE_RANK": str(rank)} for rank in range(2)]
    else:
        words += ["--processes", "2"]

    cards = train_together(path, words, environments)

    card = cards[0]
    assert (card["status"], card["steps"], card["world_size"]) == ("finished", 2, 2)
    assert {entry["name"] for entry in card["accelerations"] if entry["is_on"]} >= {ANSWER_LOGITS}
    assert {entry["step"] for entry in card["metrics"] if "eval_loss" in entry} == {1, 2}
    weights = "adapter_model" if settings["finetuning_type"] == "lora" else "model"
    assert (tmp_path / "out" / f"{weights}.safetensors").is_file()


def test_a_ray_cluster_that_is_not_there_is_an_error_of_the_user(small_qwen: Path, review_data: Path) -> None:
    recipe = EXAMPLES / "distributed" / "qwen2_5_coder_1_5b_lora_ray.yaml"
    words = [f"model_name_or_path={small_qwen}", f"dataset_dir={review_data}", "use_cpu=true", *ON_THIS_MACHINE]
    refused = subprocess.run(
        [sys.executable, "-m", "sentifactory.cli", "train", recipe, *words],
        env={**os.environ, "USE_RAY": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert "ray start --head" in refused.stderr


def train_together(path: Path, words: list[str], environments: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Run the command once with each environment, at the same time, and return what each printed."""
    common = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "sentifactory.cli", "train", path, *words, "--json"],
            env={**os.environ, **common, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=EXAMPLES.parent,
        )
        for environment in environments
    ]  # fmt: skip
    try:
        ended = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output) for output, _ in ended if output]
