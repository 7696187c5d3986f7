"""The evidence that stands behind a checkpoint: what its card says, and what decides whether it may be published.

A report belongs to a checkpoint when it was made with the very same bytes: weights and, in reports that have them, the
settings beside them (config, tokenizer, chat template). A checkpoint that `sentifactory export` made of another one,
as ONNX too, carries the hashes of both, so that the report on the first counts for the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.engines.calibration import CALIBRATION_NAME
from sentifactory.engines.onnx import EXPORT_NAME as ONNX_EXPORT_NAME
from sentifactory.engines.onnx import TOKENIZER_NAME
from sentifactory.errors import ConfigError
from sentifactory.evaluation.report import SCHEMA_VERSION
from sentifactory.json_object import read_json_object
from sentifactory.model_task import MANIFEST, read_model_task
from sentifactory.models.weights import hash_settings, hash_weights
from sentifactory.publishing.parity import INT8_LIMITS
from sentifactory.task import Task
from sentifactory.task_files import rebuild_task
from sentifactory.training.run_card import read_card

EXPORT_NAME = "sentifactory_export.json"
SEARCHED_FOLDER = Path("saves")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a checkpoint.

    Attributes:
        folder: of the checkpoint.
        weights: SHA-256 of its weight files, by name.
        report: of the comparison; None where none belongs to these weights.
        report_file: where it stands.
        missing_report: why there is none, as a clause; "" where there is one.
        card: the run card; None where there is none.
        manifests: of the training data, by the folder they stand in.
        calibration: the content of calibration.json where it was fitted for these weights, else None.
        export: what `sentifactory export` wrote down, where it made this checkpoint.
    """

    folder: Path
    weights: dict[str, str]
    report: dict[str, Any] | None
    report_file: Path | None
    missing_report: str
    card: dict[str, Any] | None
    manifests: dict[str, dict[str, Any]]
    calibration: dict[str, Any] | None
    export: dict[str, Any] | None

    @property
    def tuned(self) -> dict[str, Any]:
        """What the report says about this checkpoint; {} without a report."""
        return dict(self.report["models"]["tuned"]) if self.report else {}

    @property
    def base_name(self) -> str:
        """The model that this one was tuned from, as the run card or the report names it; "" where neither does."""
        recipe = (self.card or {}).get("recipe") or {}
        named = recipe.get("model_name_or_path")
        if not named and self.report:
            named = self.report["models"]["base"]["model"]
        return str(named or "")

    def read_task(self) -> Task | None:
        """Return the task that the checkpoint was taught, or where its folder says nothing, that of the report.

        Raises:
            ConfigError: when what is written there cannot be used.
        """
        return read_model_task(self.folder) or self.read_reported_task()

    def read_reported_task(self) -> Task | None:
        """Return the task that the report is about; raises what `rebuild_task` raises."""
        return None if self.report is None else rebuild_task(self.report["task"], str(self.report_file))


def gather_evidence(folder: Path, report_file: Path | None = None) -> Evidence:
    """Read all that is known of a checkpoint.

    Args:
        folder: of the checkpoint.
        report_file: the report.json of a comparison; None looks for one under `saves`.

    Raises:
        ConfigError: when the folder is not there, or the named report cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(
            "There is no such folder", where=str(folder), expected="the folder of a checkpoint", next_step="check it"
        )
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
    """Return what `sentifactory export` wrote into a folder, unless the weights are others now."""
    content = read_json_object(folder / EXPORT_NAME) or _read_onnx_conversion(folder)
    return content if content is not None and content.get("weights") == weights else None


def _read_onnx_conversion(folder: Path) -> dict[str, Any] | None:
    """Return what export.json says, in the words of the other exports; None where it does not speak for the source.

    Its user may have allowed more flips than the limits of the house. Then the export must be compared itself.
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


def read_own_calibration(folder: Path, weights: dict[str, str]) -> dict[str, Any] | None:
    """Return the content of calibration.json where it belongs to these weights."""
    content = read_json_object(folder / CALIBRATION_NAME)
    return content if content is not None and content.get("weights") == weights else None


def read_manifests(card: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the manifests beside the training files that stand there as they were trained on."""
    found: dict[str, dict[str, Any]] = {}
    for item in (card or {}).get("data", ()):
        file = Path(str(item.get("file", "")))
        content = read_json_object(file.parent / MANIFEST)
        outputs = (content or {}).get("outputs", {})
        if content is not None and outputs.get(file.name, {}).get("sha256") == item.get("sha256"):
            found[str(file.parent)] = content
    return found


def find_report(
    folder: Path, weights: dict[str, str], export: dict[str, Any] | None, named: Path | None
) -> tuple[dict[str, Any] | None, Path | None, str]:
    """Return the newest report on a checkpoint, its file, and why there is none.

    Raises:
        ConfigError: when the named file cannot be read as a report.
    """
    # A tokenizer's file of many megabytes stands in every checkpoint, and is no report.
    searched = (file for file in SEARCHED_FOLDER.rglob("*.json") if file.name != "tokenizer.json")
    files = [named] if named is not None else sorted(searched)
    accepted = [weights, *([export["source_weights"]] if export else [])]
    found: list[tuple[str, Path, dict[str, Any]]] = []
    n_reports, problem = 0, ""
    for file in files:
        report = read_report(file)
        if report is None:
            if named is not None:
                raise ConfigError(
                    "This is no report of a comparison of this version",
                    where=str(file),
                    expected=f"a report.json with schema_version {SCHEMA_VERSION}",
                    next_step="compare again with scripts/eval_sentiment_compare.py",
                )
            continue
        n_reports += 1
        tuned = report["models"]["tuned"]
        if not weights or tuned.get("weights") not in accepted:
            continue
        # An export writes a dtype of its own into config.json: only the checkpoint itself must have the same settings.
        if tuned["weights"] == weights and (changed := find_changed_settings(folder, tuned)):
            problem = f"{file} is about these weights, but {', '.join(changed)} changed since then"
            continue
        found.append((report["created_at"], file, report))
    if found:
        _, file, report = max(found, key=lambda one: one[:2])
        return report, file, ""
    where = str(named) if named is not None else f"{n_reports} reports under {SEARCHED_FOLDER}"
    return None, None, problem or f"looked at {where}, and none has the hashes of these weights"


def find_changed_settings(folder: Path, tuned: dict[str, Any]) -> list[str]:
    """Return the files beside the weights that are others than in the report; [] where it does not say."""
    stated = tuned.get("settings")
    if stated is None:
        return []
    now = hash_settings(folder)
    return sorted(name for name in {*stated, *now} if stated.get(name) != now.get(name))


def read_report(file: Path) -> dict[str, Any] | None:
    """Return the report of a comparison in a file, or None where the file holds something else."""
    content = read_json_object(file)
    if content is None or content.get("schema_version") != SCHEMA_VERSION:
        return None
    has_sides = isinstance(content.get("models"), dict) and {"base", "tuned"} <= content["models"].keys()
    return content if has_sides and "verdict" in content else None
