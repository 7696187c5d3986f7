"""A small comparison whose engines answer what a test tells them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.engines.base import ClosingEngine, OnAnswer, make_prediction, report_answers
from sentifactory.evaluation import compare
from sentifactory.evaluation.compare_options import CompareOptions
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, Task


@dataclass
class ScriptedEngine(ClosingEngine):
    """Replies from a queue, and writes down when it begins and ends."""

    name: str
    replies: Sequence[str]
    journal: list[str] = field(default_factory=list)
    task: Task = BINARY_SENTIMENT

    def __enter__(self) -> ScriptedEngine:
        self.journal.append(f"{self.name} begins")
        return self

    def close(self) -> None:
        self.journal.append(f"{self.name} ends")

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        return report_answers([make_prediction(self.task, reply, 0.25) for reply in self.replies], on_answer)


def write_reviews(path: Path, rows: Sequence[tuple[int | str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
        stream.write("label,text\n")
        writer.writerows(rows)
    return path


def write_model(folder: Path) -> Path:
    """A folder that looks like a checkpoint: enough for all that is checked before an engine starts."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    (folder / "tokenizer.json").write_text("{}")
    return folder


HOSTILE = '<script>alert("x")</script>{{ 7*7 }}<img src=x onerror=alert(1)>'
TEST_ROWS = [(1, "房间很干净"), (0, "服务太差了"), (1, HOSTILE), (0, "再也不来了"), (1, "早餐很好吃"), (0, "隔音很差")]
BASE_REPLIES = ['{"sentiment": 0}', '{"sentiment": 0}', "</code><script>1</script>", "", '{"sentiment": 1}', "好的"]
TUNED_REPLIES = [f'{{"sentiment": {answer}}}' for answer in (1, 1, 1, 0, 1, 0)]


@dataclass
class Workplace:
    """Files and scripted engines for one comparison."""

    folder: Path
    journal: list[str]
    replies: dict[str, Sequence[str]]

    def options(self, **changes: Any) -> CompareOptions:
        values: dict[str, Any] = {
            "csv_path": str(self.folder / "test.csv"),
            "base_model": str(self.folder / "base_model"),
            "finetuned_model": str(self.folder / "tuned_model"),
            "output_file": str(self.folder / "out" / "report.json"),
            "engine": "transformers",
        }
        return CompareOptions(**{**values, **changes})

    def run(self, **changes: Any) -> dict[str, Any]:
        return compare.run_comparison(self.options(**changes))

    def read(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "out" / "report.json").read_text(encoding="utf-8")))

    def page(self) -> str:
        return (self.folder / "out" / "report.html").read_text(encoding="utf-8")
