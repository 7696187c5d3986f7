"""Fixtures: a tuned checkpoint with all its evidence, and a hub on this machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_hub import TOKEN, FakeHub, serve_hub

from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.engines.base import ClosingEngine, OnAnswer, make_prediction, report_answers
from sentifactory.evaluation import compare
from sentifactory.evaluation.compare_options import CompareOptions
from sentifactory.metrics.calibration import Calibration, hash_prompt, save_calibration
from sentifactory.models.weights import hash_weights
from sentifactory.publishing.hub.publish import PublishOptions
from sentifactory.records import Prediction, Review
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.task import BINARY_SENTIMENT, Task

N_TEST = 60
REPORT = "saves/comparison/report.json"
WHERE = ["酒店", "电脑", "小说", "餐厅", "手机", "相机", "景区", "书店", "影院", "商场"]
GOOD = ["非常干净舒适", "值得推荐给朋友", "服务热情周到", "下次还会再来", "物超所值很满意"]
BAD = ["又脏又乱很吵", "千万不要上当", "态度冷淡恶劣", "再也不会来了", "价格虚高质量差"]


class SideEngine(ClosingEngine):
    """Answers by the label that it is told, wrong for a share of the reviews."""

    def __init__(self, name: str, task: Task, wrong_every: int) -> None:
        self.name, self._task, self._wrong_every = name, task, wrong_every

    def predict(self, reviews: list[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        answers = []
        for at, review in enumerate(reviews):
            label = int(any(words in review.text for words in GOOD))
            is_wrong = self._wrong_every > 0 and at % self._wrong_every == 0
            answers.append(make_prediction(self._task, f'{{"sentiment": {label ^ is_wrong}}}', 0.01))
        return report_answers(answers, on_answer)


@dataclass
class Workshop:
    """A folder with reviews, a tuned checkpoint and its report; the current folder while a test runs."""

    root: Path
    run: Path
    report_file: Path
    made_at: Path

    def options(self, **changes: Any) -> PublishOptions:
        values: dict[str, Any] = {"folder": self.run, "repo_id": "me/reviews", "data_licence": "cc-by-4.0"}
        return PublishOptions(**(values | changes))

    def read_report(self) -> dict[str, Any]:
        return dict(json.loads(self.report_file.read_text(encoding="utf-8")))

    def write_report(self, report: dict[str, Any]) -> None:
        self.report_file.write_text(json.dumps(report), encoding="utf-8")


def write_checkpoint(folder: Path, seed: int) -> Path:
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    numbers = np.random.default_rng(seed).random((64, 64), dtype=np.float32)
    save_file({"weight": numbers}, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text('{"architectures": ["Gemma3ForCausalLM"]}', encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "training_args.bin").write_bytes(b"what the trainer leaves")
    return folder


def write_run_card(root: Path, run: Path) -> None:
    train = root / "data" / "mine" / "train.jsonl"
    card = {
        "version": 1,
        "status": "finished",
        "recipe_file": str(root / "recipe.yaml"),
        "recipe": {
            "model_name_or_path": "google/gemma-3-270m", "finetuning_type": "freeze", "dataset": "mine_train",
            "learning_rate": 0.0003, "dataset_dir": str(root / "data"), "output_dir": str(run),
        },
        "seed": 42,
        "data": [{"dataset": "mine_train", "file": str(train), "sha256": hash_file(train), "bytes": 1}],
        "packages": {"python": "3.11.7", "torch": "2.13.0"},
        "machine": {"system": "Linux", "processor": "x86_64"},
        "device": "cpu",
        "wall_time_s": 612.0,
        "speed": {"tokens_per_s": 812.5},
        "memory": {"peak_rss_bytes": 3 * 2**30},
        "parameters": {"trainable": 4096, "total": 4096},
        "steps": 100,
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(card), encoding="utf-8")


def make_workshop(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Prepare reviews, write two checkpoints, and compare them for real but for the models."""
    patch.chdir(root)
    rows = [
        f"{label},{where}第{number}次光顾，{words}，编号{number * 7919}"
        for where in WHERE
        for number in range(12)
        for label, words in ((1, GOOD[number % 5]), (0, BAD[number % 5]))
    ]
    (root / "mine.csv").write_text("label,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    prepare_reviews("mine.csv", name="mine", output_dir="data", val_size=40, test_size=N_TEST)
    base, run = write_checkpoint(root / "saves" / "base", 1), write_checkpoint(root / "saves" / "run", 2)
    write_run_card(root, run)

    def build(kind: str, model: str, task: Task, *, name: str, **settings: object) -> SideEngine:
        return SideEngine(name, task, wrong_every=4 if name == "base" else 20)

    patch.setattr(compare, "build_engine", build)
    compare.run_comparison(
        CompareOptions(
            csv_path="data/mine/test.csv",
            base_model=str(base),
            finetuned_model=str(run),
            output_file=str(root / REPORT),
            engine="transformers",
            train_files=("data/mine/train.csv",),
        )
    )
    fitted = {"file": str(root / "data/mine/val.csv"), "sha256": "0" * 64, "reviews": 40, "nll_before": 0.5,
              "nll_after": 0.4}  # fmt: skip
    save_calibration(
        Calibration("temperature", 1.5, (0.0, 0.0), BINARY_SENTIMENT.name, hash_prompt(BINARY_SENTIMENT), 0.8, 0.95,
                    fitted, hash_weights(run)),
        run,
    )  # fmt: skip


@pytest.fixture(scope="session")
def made_workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workshop")
    with pytest.MonkeyPatch.context() as patch:
        make_workshop(root, patch)
    return root


@pytest.fixture
def workshop(made_workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A copy of its own; the run card names the training files where they were made, as a run card does."""
    root = tmp_path / "workshop"
    shutil.copytree(made_workshop, root)
    monkeypatch.chdir(root)
    return Workshop(root, root / "saves" / "run", root / REPORT, made_workshop)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub behind HF_ENDPOINT, signed in to; the client's waits between tries take no time."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    for name in ("HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN", "USE_MODELSCOPE_HUB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    with serve_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served
        assert os.environ["HF_ENDPOINT"] == served.address
