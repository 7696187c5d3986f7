"""Collects the evidence about a checkpoint: report, run card, manifests, calibration and export file.

A report belongs to a checkpoint if the hashes match: those of the weights and, in reports that have them, of the
settings (config, tokenizer, chat template). `sentifactory export` records the hashes of its source as well, so that
the report on the source counts for the export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.engines.local.onnx_engine import EXPORT_NAME as ONNX_EXPORT_NAME
from sentifactory.engines.local.onnx_engine import TOKENIZER_NAME
from sentifactory.errors import ConfigError
from sentifactory.evaluation.report.report import SCHEMA_VERSION
from sentifactory.metrics.calibration import read_own_calibration
from sentifactory.models.complete_folder import refuse_unfinished
from sentifactory.models.weights import hash_settings, hash_weights
from sentifactory.publishing.export.parity import EXPORT_NAME, INT8_LIMITS
from sentifactory.system.json_text import read_json_object
from sentifactory.task.model_folder import MANIFEST, read_model_task
from sentifactory.task.reports_folder import REPORTS
from sentifactory.task.task import Task
from sentifactory.task.task_file import rebuild_task
from sentifactory.training.recipe.known_training import EARLIER
from sentifactory.training.run.run_card import read_card

SEARCHED_FOLDER = Path("saves")


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence about a checkpoint.

    Attributes:
        folder: of the checkpoint.
        weights: SHA-256 of its weight files, by name.
        report: of a comparison of these weights; None if there is none.
        report_file: path of the report.
        missing_report: why there is no report, as a clause; empty if there is one.
        card: the run card; None if there is none.
        manifests: of the training data, by folder.
        calibration: the content of calibration.json if it was fitted for these weights, else None.
        export: the export file, if `sentifactory export` made this checkpoint.
    """

    folder: Path
    weights: dict[str, str]
    report: dict[str, Any] | None
    report_file: Path | None
    missing_report: Sentence
    card: dict[str, Any] | None
    manifests: dict[str, dict[str, Any]]
    calibration: dict[str, Any] | None
    export: dict[str, Any] | None

    @property
    def tuned(self) -> dict[str, Any]:
        """The report's entry for this checkpoint; {} without a report."""
        return dict(self.report["models"]["tuned"]) if self.report else {}

    @property
    def base_name(self) -> str:
        """The base model named by the run card or the report; "" if neither names one."""
        recipe = (self.card or {}).get("recipe") or {}
        named = recipe.get("model_name_or_path")
        if not named and self.report:
            named = self.report["models"]["base"]["model"]
        return str(named or "")

    def read_task(self) -> Task | None:
        """Return the task in the checkpoint's folder, or else the task of the report.

        Raises:
            ConfigError: when the task is invalid.
        """
        return read_model_task(self.folder) or self.read_reported_task()

    def read_reported_task(self) -> Task | None:
        """Return the task of the report; raises what `rebuild_task` raises."""
        return None if self.report is None else rebuild_task(self.report["task"], str(self.report_file))


def gather_evidence(folder: Path, report_file: Path | None = None) -> Evidence:
    """Read all evidence about a checkpoint.

    Args:
        folder: of the checkpoint.
        report_file: the report.json of a comparison; None searches `saves` and the reports of the checkpoint.

    Raises:
        ConfigError: when the folder does not exist, or the named report cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(
            "This folder does not exist",
            where=str(folder),
            expected="a checkpoint folder",
            next_step="check the path",
            code="model-missing",
        )
    refuse_unfinished(folder, str(folder))
    weights = hash_weights(folder)
    export = read_conversion(folder, weights)
    report, found_in, missing = find_report(folder, weights, export, report_file)
    card = read_card(folder)
    return Evidence(
        folder=folder,
        weights=weights,
        report=report,
        report_file=found_in,
        missing_report=missing,
        card=card,
        manifests=read_manifests(card),
        calibration=read_own_calibration(folder, weights),
        export=export,
    )


def read_conversion(folder: Path, weights: dict[str, str]) -> dict[str, Any] | None:
    """Return the export file of a folder; None if there is none, or the weights have changed since."""
    content = read_json_object(folder / EXPORT_NAME) or _read_onnx_conversion(folder)
    return content if content is not None and content.get("weights") == weights else None


def _read_onnx_conversion(folder: Path) -> dict[str, Any] | None:
    """Return an ONNX export's export.json in the form of the other exports; None if its limits were too loose.

    If the user allowed more flips than our own limits, the export itself must be evaluated.
    """
    content = read_json_object(folder / ONNX_EXPORT_NAME)
    try:
        if content is None:
            return None
        parity = content["parity"]
        if parity["flip_share"] > INT8_LIMITS.flips or parity["difference_mean"] > INT8_LIMITS.difference:
            return None
        return {
            "kind": "onnx",
            "dtype": content["precision"],
            "source_weights": content["checkpoint"]["weights"],
            "weights": {name: sha for name, sha in content["files"].items() if name != TOKENIZER_NAME},
            "parity": parity,
        }
    except (KeyError, TypeError, AttributeError):
        return None


def read_manifests(card: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the manifests of the training files that are unchanged since training, earlier trainings' included."""
    found: dict[str, dict[str, Any]] = {}
    for item in list_files(card):
        file = Path(str(item.get("file", "")))
        content = read_json_object(file.parent / MANIFEST)
        outputs = (content or {}).get("outputs", {})
        if content is not None and outputs.get(file.name, {}).get("sha256") == item.get("sha256"):
            found[str(file.parent)] = content
    return found


def list_files(card: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the training files of a run card, then those that its starting model had learned from."""
    earlier = (card or {}).get(EARLIER) or {}
    return [*(card or {}).get("data", ()), *earlier.get("files", ())]


def list_names_without_manifest(card: dict[str, Any] | None, manifests: Mapping[str, Any]) -> list[str]:
    """Return the names of the training files of which no manifest tells the source."""
    files = [(Path(str(item.get("file", ""))), item.get("dataset")) for item in list_files(card)]
    return [str(name or file.stem) for file, name in files if str(file.parent) not in manifests]


def find_report(
    folder: Path, weights: dict[str, str], export: dict[str, Any] | None, named: Path | None
) -> tuple[dict[str, Any] | None, Path | None, Sentence]:
    """Return the newest report on a checkpoint and its file, or else None, None and the reason.

    Raises:
        ConfigError: when the named file is not a report.
    """
    # Every checkpoint has a tokenizer.json of many megabytes, which is not a report.
    found_files = (*SEARCHED_FOLDER.rglob("*.json"), *(folder / REPORTS).glob("*.json"))
    searched = {file.resolve(): file for file in found_files if file.name != "tokenizer.json"}
    files = [named] if named is not None else sorted(searched.values())
    accepted = [weights, *([export["source_weights"]] if export else [])]
    found: list[tuple[str, Path, dict[str, Any]]] = []
    n_reports, problem = 0, None
    for file in files:
        report = read_report(file)
        if report is None:
            if named is not None:
                raise ConfigError(
                    "This is not a comparison report of this version",
                    where=str(file),
                    expected=f"a report.json with schema_version {SCHEMA_VERSION}",
                    next_step="compare again with scripts/eval_sentiment_compare.py",
                    code="report-invalid",
                )
            continue
        n_reports += 1
        tuned = report["models"]["tuned"]
        if not weights or tuned.get("weights") not in accepted:
            continue
        # An export's config.json has another dtype, so the settings are compared only for the source itself.
        if tuned["weights"] == weights and (changed := find_changed_settings(folder, tuned)):
            problem = Sentence.write(
                f"{file} is about these weights, but {', '.join(changed)} has changed since",
                f"{file} 评测的是这些权重，但此后 {'、'.join(changed)} 有改动",
            )
            continue
        found.append((report["created_at"], file, report))
    if found:
        _, file, report = max(found, key=lambda one: one[:2])
        return report, file, Sentence("", "")
    places = f"{SEARCHED_FOLDER}", f"{folder / REPORTS}"
    where = str(named) if named is not None else f"{n_reports} reports under {' and '.join(places)}"
    where_zh = str(named) if named is not None else f"{'、'.join(places)} 下的 {n_reports} 份报告"
    none = Sentence.write(
        f"searched {where}; none has the hashes of these weights", f"已查找 {where_zh}，均与这些权重的哈希不符"
    )
    return None, None, problem or none


def find_changed_settings(folder: Path, tuned: dict[str, Any]) -> list[str]:
    """Return the settings files whose hashes differ from the report's; [] if the report has none."""
    stated = tuned.get("settings")
    if stated is None:
        return []
    now = hash_settings(folder)
    return sorted(name for name in {*stated, *now} if stated.get(name) != now.get(name))


def read_report(file: Path) -> dict[str, Any] | None:
    """Return the comparison report in a file; None if the file holds something else."""
    content = read_json_object(file)
    if content is None or content.get("schema_version") != SCHEMA_VERSION:
        return None
    has_sides = isinstance(content.get("models"), dict) and {"base", "tuned"} <= content["models"].keys()
    return content if has_sides and "verdict" in content else None
