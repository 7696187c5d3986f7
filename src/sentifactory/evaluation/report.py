"""The report of a comparison: one dictionary of plain JSON values, from which the page and the table are drawn.

`report.json` holds every prediction, so that any figure can be computed again. The shape is numbered by
`SCHEMA_VERSION`; a change that breaks readers raises it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json, write_text
from sentifactory.errors import ConfigError
from sentifactory.evaluation.outcomes import Outcome
from sentifactory.evaluation.provenance import describe_command, describe_machine, describe_versions
from sentifactory.evaluation.significance import PairedTest
from sentifactory.evaluation.verdict import Sentence, Verdict
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """A finished comparison.

    Attributes:
        task: what was asked.
        reviews: (n_reviews,) what it was asked about.
        outcomes: what each contender answered, by name.
        tests: the paired test of each two contenders.
        verdict: who wins.
        data: files, hashes, sample and overlap, as the report shows them.
        settings: the options that decide a result.
        warnings: what a reader must know first.
    """

    task: Task
    reviews: Sequence[Review]
    outcomes: Mapping[str, Outcome]
    tests: Mapping[tuple[str, str], PairedTest]
    verdict: Verdict
    data: dict[str, Any]
    settings: dict[str, Any]
    warnings: Sequence[Sentence] = field(default_factory=list)


def build_report(comparison: Comparison) -> dict[str, Any]:
    """Return the report as plain JSON values; the warnings stand first."""
    task = comparison.task
    return {
        "warnings": [asdict(warning) for warning in comparison.warnings],
        "verdict": comparison.verdict.to_dict(),
        "schema_version": SCHEMA_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": {
            "name": task.name,
            "labels": list(task.labels),
            "answer_key": task.answer_key,
            "answer_values": list(task.answer_values),
            "prompt_template": task.prompt_template,
        },
        "data": comparison.data,
        "models": {name: _describe_outcome(outcome) for name, outcome in comparison.outcomes.items()},
        "paired_tests": {f"{second}_vs_{first}": test.to_dict() for (first, second), test in comparison.tests.items()},
        "settings": comparison.settings,
        "versions": describe_versions(list(comparison.settings["engines"].values())),
        "machine": describe_machine(),
        "command": describe_command(),
        "predictions": _list_predictions(comparison),
    }


def _describe_outcome(outcome: Outcome) -> dict[str, Any]:
    n = outcome.metrics.reviews
    return {
        "model": outcome.contender.model,
        "engine": outcome.contender.engine,
        "metrics": outcome.metrics.to_dict(),
        "start_s": round(outcome.start_s, 3),
        "predict_s": round(outcome.predict_s, 3),
        "reviews_per_s": round(n / outcome.predict_s, 2) if outcome.predict_s > 0 else None,
        **outcome.contender.facts,
    }


def _list_predictions(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one row for each review: its text, true label and source, and what each contender answered."""
    rows = []
    for index, review in enumerate(comparison.reviews):
        source = review.source
        row: dict[str, Any] = {
            "text": review.text,
            "label": review.label,
            "source": {"file": source.file, "line": source.line} if source else None,
        }
        for name, outcome in comparison.outcomes.items():
            if name != "majority":  # the same answer for every review: its figures say it all
                row[name] = _describe_prediction(outcome.predictions[index])
        rows.append(row)
    return rows


def _describe_prediction(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "label": prediction.label,
        "raw": prediction.raw,
        "latency_s": round(prediction.latency_s, 4),
    }
    if prediction.probabilities is not None:
        row["probabilities"] = [round(share, 6) for share in prediction.probabilities]
    return row


def summarise_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report without the predictions, for stdout."""
    return {key: value for key, value in report.items() if key != "predictions"}


def page_path_for(report_path: str | Path) -> Path:
    """Return where the page of a report stands: beside it, with the ending .html."""
    return Path(report_path).with_suffix(".html")


def check_report_place(report_path: str | Path) -> None:
    """Make sure, before hours of work, that the report can be written. Leaves nothing behind.

    Raises:
        ConfigError: when the name is a folder or does not end in .json, or the folder cannot be made or written.
    """
    path = Path(report_path)
    if path.suffix != ".json":
        raise ConfigError(
            f"--output_file is {str(path)!r}", expected="a file name that ends in .json", next_step="choose another"
        )
    if path.is_dir():
        raise ConfigError("--output_file is a folder", where=str(path), expected="a file name", next_step="add one")
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigError(
            f"The report cannot be written ({error.strerror})",
            where=str(path),
            expected="a place in a folder that may be written",
            next_step="choose another --output_file",
        ) from error


def write_report(report: Mapping[str, Any], report_path: str | Path) -> Path:
    """Write report.json and, beside it, the page; return the page's path.

    The page is drawn before either file is written, so that a fault in drawing leaves no half of a report.

    Raises:
        ConfigError: when the place cannot be written.
    """
    from sentifactory.evaluation.page import render_page

    page = render_page(report)
    page_path = page_path_for(report_path)
    write_json(report_path, report)
    write_text(page_path, page)
    return page_path
