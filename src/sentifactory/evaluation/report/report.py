"""Builds and writes the report of a comparison.

`report.json` holds every prediction, so that any figure can be computed again; page, CSV files and Markdown are
rendered from it. `report_schema.json` in this folder describes it; a change that breaks readers raises
`SCHEMA_VERSION`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.engines.registry import is_address
from sentifactory.errors import ConfigError
from sentifactory.evaluation.report.mistake_files import check_mistakes_place, write_mistakes
from sentifactory.evaluation.report.report_markdown import TITLE, render_markdown
from sentifactory.evaluation.report.shown_paths import hide_folders
from sentifactory.evaluation.scoring.results import TestResult
from sentifactory.evaluation.scoring.scored_predictions import ScoredPredictions
from sentifactory.evaluation.scoring.small_test import warn_of_small_test
from sentifactory.evaluation.scoring.written_answers import WrittenAnswers
from sentifactory.metrics.significance import compare_unpaired
from sentifactory.records import Prediction
from sentifactory.redaction import mask_text
from sentifactory.system.atomic import has_marker, refuse_overwriting_inputs, write_json, write_text
from sentifactory.system.command_line import describe_command
from sentifactory.system.hardware import describe_machine
from sentifactory.system.json_text import read_json_object
from sentifactory.task.task_choice import ChosenTask
from sentifactory.training.run.provenance import describe_versions

SCHEMA_VERSION = 3
_PAGE_MARK = "<title>SentiFactory"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A finished comparison.

    Attributes:
        chosen: the task, and what chose it.
        results: of each test file; the verdict is about the first.
        data: facts on validation and training reviews.
        settings: the options that decide the result.
        warnings: what the report begins with.
        written: what the tuned model wrote; None where it was not asked to.
    """

    chosen: ChosenTask
    results: Sequence[TestResult]
    data: dict[str, Any]
    settings: dict[str, Any]
    warnings: Sequence[Sentence] = field(default_factory=list)
    written: WrittenAnswers | None = None


def build_report(comparison: Comparison) -> dict[str, Any]:
    """Return the report as plain JSON values, the warnings first, without the folders of this machine."""
    first = comparison.results[0]
    result = describe_result(first)
    for name, scored in first.scored.items():
        result["models"][name] |= _describe_model(scored)
    result["data"] |= comparison.data
    written = comparison.written
    if written is not None:
        details = result["verdict"]["details"]
        result["verdict"]["details"] = [*details, asdict(written.describe())]
    report = {
        "warnings": [asdict(warning) for warning in list_warnings(comparison)],
        "verdict": result.pop("verdict"),
        "schema_version": SCHEMA_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": comparison.chosen.to_json(),
        "settings": comparison.settings,
        "versions": describe_versions(list(comparison.settings["engines"].values())),
        "machine": describe_machine(),
        "command": describe_command(),
        **result,
        **({"written": written.to_dict()} if written is not None else {}),
        "further_tests": [
            {**describe_result(further), "from_first": _describe_change(first, further)}
            for further in comparison.results[1:]
        ],
    }
    return dict(hide_folders(report))


def list_warnings(comparison: Comparison) -> list[Sentence]:
    """Return what the report begins with: that of the comparison, then of the base model and of a small test."""
    doubt = comparison.results[0].verdict.base_doubt
    return [
        *comparison.warnings,
        *([doubt.sentence] if doubt is not None else []),
        *warn_of_small_test(len(comparison.results[0].test.reviews)),
    ]


def describe_result(result: TestResult) -> dict[str, Any]:
    """Return the result of one test file as plain JSON values."""
    adapted = {name: scored.adapted.to_dict() for name, scored in result.scored.items() if scored.adapted}
    tests = {f"{second}_vs_{first}": test.to_dict() for (first, second), test in result.adapted_tests.items()}
    return {
        **({"adapted": {"models": adapted, "paired_tests": tests}} if adapted else {}),
        "verdict": result.verdict.to_dict(),
        "data": {"test": result.test.facts},
        "models": {name: _describe_figures(scored) for name, scored in result.scored.items()},
        "paired_tests": {f"{second}_vs_{first}": test.to_dict() for (first, second), test in result.tests.items()},
        "decomposition": result.decomposition.to_dict(),
        "differences": {name: asdict(interval) for name, interval in result.differences.items()},
        "words": {name: [word.to_dict() for word in words] for name, words in result.words.items()},
        "predictions": _list_predictions(result),
    }


def _describe_figures(scored: ScoredPredictions) -> dict[str, Any]:
    return {
        "metrics": scored.metrics.to_dict(),
        "groups": [group.to_dict() for group in scored.groups],
        "probability": scored.probability.to_dict() if scored.probability else None,
        "calibrated": scored.calibrated.to_dict() if scored.calibrated else None,
        "calibrated_accuracy": scored.calibrated_accuracy,
        "sure": asdict(scored.sure) if scored.sure else None,
        "decided": scored.decided.to_dict() if scored.decided else None,
    }


def _describe_model(scored: ScoredPredictions) -> dict[str, Any]:
    speed = scored.reviews_per_s
    # The memory of a server at an address is not that of the processes here.
    peak_bytes = None if is_address(scored.model.engine) else scored.peak_bytes
    return {
        "model": scored.model.name_or_path,
        "engine": mask_text(scored.model.engine),
        "start_s": round(scored.start_s, 3),
        "reviews_per_s": round(speed, 2) if speed is not None else None,
        "peak_bytes": peak_bytes,
        "calibration": scored.calibration.to_dict() if scored.calibration else None,
        **scored.model.facts,
    }


def _describe_change(first: TestResult, further: TestResult) -> dict[str, Any]:
    """Return by model how its accuracy on a further test file differs from that on the first."""
    found = {}
    for name, scored in further.scored.items():
        before, after = first.scored[name].metrics, scored.metrics
        found[name] = {
            "difference": after.accuracy - before.accuracy,
            "interval": asdict(compare_unpaired(before.correct, before.reviews, after.correct, after.reviews)),
        }
    return found


def _list_predictions(result: TestResult) -> list[dict[str, Any]]:
    """Return one row for each review: its text, true label and source, and what each model answered."""
    rows = []
    for index, review in enumerate(result.test.reviews):
        source = review.source
        row: dict[str, Any] = {
            "text": review.text,
            "label": review.label,
            "domain": review.domain,
            "source": {"file": source.file, "line": source.line} if source else None,
        }
        for name, scored in result.scored.items():
            if name != "majority":  # it gives every review the same answer
                row[name] = _describe_prediction(scored.predictions[index])
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
    """Return the report without the predictions and written replies, for stdout."""
    rest = {key: value for key, value in report.items() if key != "predictions"}
    if "written" in rest:
        rest["written"] = {key: value for key, value in report["written"].items() if key != "replies"}
    rest["further_tests"] = [
        {key: value for key, value in further.items() if key != "predictions"} for further in report["further_tests"]
    ]
    return rest


def page_path_for(report_path: str | Path) -> Path:
    """Return the path of a report's page: that of the report with the suffix .html."""
    return Path(report_path).with_suffix(".html")


def check_report_place(
    report_path: str | Path,
    inputs: Iterable[str | Path | None] = (),
    *,
    version: str = "schema_version",
    title: str = TITLE,
) -> None:
    """Make sure, before hours of work, that the report can be written; writes nothing that stays.

    Args:
        report_path: where the report goes.
        inputs: files and models of the comparison, which neither the report nor the files next to it may replace.
        version: the key by which an earlier report of this kind is recognised.
        title: the heading by which the Markdown file next to it is recognised.

    Raises:
        ConfigError: when the name is a folder or does not end in .json, the folder cannot be created or written, or
            a file that is not from a report would be replaced.
    """
    path = Path(report_path)
    if path.suffix != ".json":
        raise ConfigError(
            f"--output_file is {str(path)!r}",
            expected="a file name that ends in .json",
            next_step="choose another",
            code="output-name",
        )
    if path.is_dir():
        raise ConfigError(
            "--output_file is a folder",
            where=str(path),
            expected="a file name",
            next_step="add one",
            code="output-name",
        )
    if os.path.lexists(path) and not {"warnings", version} <= {*(read_json_object(path) or ())}:
        raise ConfigError(
            "This file is not a report, and the report would replace it",
            where=str(path),
            expected="a new file, or an earlier report",
            next_step="choose another --output_file",
            code="output-foreign",
        )
    for suffix, mark in ((".md", f"# {title}"), (".html", _PAGE_MARK)):
        rendered = path.with_suffix(suffix)
        if os.path.lexists(rendered) and not (path.exists() and has_marker(rendered, mark)):
            raise ConfigError(
                "This file is not from a report, and the report would replace it",
                where=str(rendered),
                next_step="move it away, or choose another --output_file",
                code="output-foreign",
            )
    mistakes = path.with_name(f"{path.stem}_mistakes")
    check_mistakes_place(mistakes)
    refuse_overwriting_inputs([path, mistakes, *map(path.with_suffix, (".md", ".html"))], inputs)
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigError(
            f"The report cannot be written ({error.strerror})",
            where=str(path),
            expected="a path in a writable folder",
            next_step="choose another --output_file",
            code="output-unwritable",
        ) from error


def write_report(report: Mapping[str, Any], report_path: str | Path) -> Path:
    """Write report.json and, next to it, the page, the Markdown and the CSV files; return the path of the page.

    Everything is rendered before the first file is written, so that a failure leaves no partial report.

    Raises:
        ConfigError: when a file cannot be written.
    """
    from sentifactory.evaluation.report.report_page import render_page

    page, text = render_page(report), render_markdown(report)
    path = Path(report_path)
    page_path = page_path_for(path)
    write_json(path, report)
    write_mistakes(report, path.with_name(f"{path.stem}_mistakes"))
    write_text(path.with_suffix(".md"), text)
    write_text(page_path, page)
    return page_path
