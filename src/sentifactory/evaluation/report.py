"""The report of a comparison: one dictionary of plain JSON values, from which page, tables and texts are drawn.

`report.json` holds every prediction, so that any figure can be computed again. Its shape is published as
`report_schema.json` in this folder and numbered by `SCHEMA_VERSION`; a change that breaks readers raises it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentifactory.atomic import refuse_endangered, write_json, write_text
from sentifactory.errors import ConfigError
from sentifactory.evaluation.judging import TestResult
from sentifactory.evaluation.mistake_files import check_mistakes_place, write_mistakes
from sentifactory.evaluation.outcomes import Outcome
from sentifactory.evaluation.provenance import describe_command, describe_machine, describe_versions
from sentifactory.evaluation.significance import compare_unpaired
from sentifactory.evaluation.verdict import Sentence
from sentifactory.json_object import read_json_object
from sentifactory.records import Prediction
from sentifactory.task_choice import ChosenTask

SCHEMA_VERSION = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """A finished comparison.

    Attributes:
        chosen: what was asked, and who named it.
        results: what each test file says; the verdict is about the first.
        data: validation and training reviews, as the report shows them.
        settings: the options that decide a result.
        warnings: what a reader must know first.
    """

    chosen: ChosenTask
    results: Sequence[TestResult]
    data: dict[str, Any]
    settings: dict[str, Any]
    warnings: Sequence[Sentence] = field(default_factory=list)


def build_report(comparison: Comparison) -> dict[str, Any]:
    """Return the report as plain JSON values; the warnings stand first."""
    first = comparison.results[0]
    result = describe_result(first)
    for name, outcome in first.outcomes.items():
        result["models"][name] |= _describe_contender(outcome)
    result["data"] |= comparison.data
    return {
        "warnings": [asdict(warning) for warning in comparison.warnings],
        "verdict": result.pop("verdict"),
        "schema_version": SCHEMA_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": comparison.chosen.to_json(),
        "settings": comparison.settings,
        "versions": describe_versions(list(comparison.settings["engines"].values())),
        "machine": describe_machine(),
        "command": describe_command(),
        **result,
        "further_tests": [
            {**describe_result(further), "from_first": _describe_change(first, further)}
            for further in comparison.results[1:]
        ],
    }


def describe_result(result: TestResult) -> dict[str, Any]:
    """Return what one test file says as plain JSON values."""
    return {
        "verdict": result.verdict.to_dict(),
        "data": {"test": result.test.facts},
        "models": {name: _describe_figures(outcome) for name, outcome in result.outcomes.items()},
        "paired_tests": {f"{second}_vs_{first}": test.to_dict() for (first, second), test in result.tests.items()},
        "decomposition": result.decomposition.to_dict(),
        "differences": {name: asdict(interval) for name, interval in result.differences.items()},
        "words": {name: [word.to_dict() for word in words] for name, words in result.words.items()},
        "predictions": _list_predictions(result),
    }


def _describe_figures(outcome: Outcome) -> dict[str, Any]:
    return {
        "metrics": outcome.metrics.to_dict(),
        "groups": [group.to_dict() for group in outcome.groups],
        "probability": outcome.probability.to_dict() if outcome.probability else None,
        "calibrated": outcome.calibrated.to_dict() if outcome.calibrated else None,
        "calibrated_accuracy": outcome.calibrated_accuracy,
        "sure": asdict(outcome.sure) if outcome.sure else None,
    }


def _describe_contender(outcome: Outcome) -> dict[str, Any]:
    speed = outcome.reviews_per_s
    return {
        "model": outcome.contender.model,
        "engine": outcome.contender.engine,
        "start_s": round(outcome.start_s, 3),
        "reviews_per_s": round(speed, 2) if speed is not None else None,
        "calibration": outcome.calibration.to_dict() if outcome.calibration else None,
        **outcome.contender.facts,
    }


def _describe_change(first: TestResult, further: TestResult) -> dict[str, Any]:
    """Return by contender how its accuracy on a further file differs from that on the first."""
    found = {}
    for name, outcome in further.outcomes.items():
        before, after = first.outcomes[name].metrics, outcome.metrics
        found[name] = {
            "difference": after.accuracy - before.accuracy,
            "interval": asdict(compare_unpaired(before.correct, before.reviews, after.correct, after.reviews)),
        }
    return found


def _list_predictions(result: TestResult) -> list[dict[str, Any]]:
    """Return one row for each review: its text, true label and source, and what each contender answered."""
    rows = []
    for index, review in enumerate(result.test.reviews):
        source = review.source
        row: dict[str, Any] = {
            "text": review.text,
            "label": review.label,
            "domain": review.domain,
            "source": {"file": source.file, "line": source.line} if source else None,
        }
        for name, outcome in result.outcomes.items():
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
        row["probabilities"] = [round(share, 9) for share in prediction.probabilities]
    return row


def summarise_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report without the predictions, for stdout."""
    rest = {key: value for key, value in report.items() if key != "predictions"}
    rest["further_tests"] = [
        {key: value for key, value in further.items() if key != "predictions"} for further in report["further_tests"]
    ]
    return rest


def page_path_for(report_path: str | Path) -> Path:
    """Return where the page of a report stands: beside it, with the ending .html."""
    return Path(report_path).with_suffix(".html")


def check_report_place(report_path: str | Path, inputs: Iterable[str | Path | None] = ()) -> None:
    """Make sure, before hours of work, that the report can be written. Leaves nothing behind.

    Args:
        report_path: where the report goes.
        inputs: files and models that it is about; neither it nor what goes beside it may replace them.

    Raises:
        ConfigError: when the name is a folder or does not end in .json, the folder cannot be made or written, or
            something would be replaced that no report is.
    """
    path = Path(report_path)
    if path.suffix != ".json":
        raise ConfigError(
            f"--output_file is {str(path)!r}", expected="a file name that ends in .json", next_step="choose another"
        )
    if path.is_dir():
        raise ConfigError("--output_file is a folder", where=str(path), expected="a file name", next_step="add one")
    if path.exists() and "warnings" not in (read_json_object(path) or {}):
        raise ConfigError(
            "Something stands here that is no report, and it would be replaced",
            where=str(path),
            expected="a new file, or an earlier report",
            next_step="choose another --output_file",
        )
    for beside in () if path.exists() else map(path.with_suffix, (".md", ".html")):
        if os.path.lexists(beside):
            raise ConfigError(
                "Something stands here that no report has made, and it would be replaced",
                where=str(beside),
                next_step="move it away, or choose another --output_file",
            )
    mistakes = path.with_name(f"{path.stem}_mistakes")
    check_mistakes_place(mistakes)
    refuse_endangered([path, mistakes, *map(path.with_suffix, (".md", ".html"))], inputs)
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
    """Write report.json and, beside it, the page, the text for pull requests and the tables; return the page's path.

    All is drawn before any file is written, so that a fault in drawing leaves no half of a report.

    Raises:
        ConfigError: when the place cannot be written.
    """
    from sentifactory.evaluation.markdown import render_markdown
    from sentifactory.evaluation.page import render_page

    page, text = render_page(report), render_markdown(report)
    path = Path(report_path)
    page_path = page_path_for(path)
    write_json(path, report)
    write_mistakes(report, path.with_name(f"{path.stem}_mistakes"))
    write_text(path.with_suffix(".md"), text)
    write_text(page_path, page)
    return page_path
