"""Labels with a scripted engine, ten reviews after ten: `label_driver.py IN OUT SECONDS_A_TEXT WRITE_EVERY_S`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sentifactory.cli import run_guarded
from sentifactory.engines.base import OnAnswer
from sentifactory.records import Prediction, Review
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.labelling import label_file
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine


class SteadyEngine(ScriptedEngine):
    """Tells its answers as they come."""

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        for start in range(0, len(reviews), 10):
            for place, prediction in enumerate(super().predict(reviews[start : start + 10])):
                on_answer(start + place, prediction)  # type: ignore[misc]
        return []


source, out, text_s, label_file.WRITE_EVERY_S = Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:])
engine = SteadyEngine(BINARY_SENTIMENT, text_s=text_s)
formatter = AnswerFormatter(BINARY_SENTIMENT, "scripted")
run_guarded(
    lambda: label_file.label_file(
        label_file.LabelOptions(source, out),
        formatter,
        {"engine": "scripted"},
        lambda: label_file.EngineRowPredictor(engine, "in"),
    )
)
