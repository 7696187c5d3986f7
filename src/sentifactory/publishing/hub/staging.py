"""Builds the folder to upload: links to the checkpoint's files, plus files generated from the evidence.

The folder is temporary and contains only what is listed. The same evidence gives the same bytes, so that a repeated
upload sends nothing twice.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sentifactory.engines.local.onnx_engine import EXPORT_NAME as ONNX_EXPORT_NAME
from sentifactory.engines.local.onnx_engine import is_export, read_export
from sentifactory.metrics.calibration import CALIBRATION_NAME
from sentifactory.models.notices import add_notice
from sentifactory.publishing.export.parity import EXPORT_NAME
from sentifactory.publishing.hub.confusion_picture import PICTURE_NAME, draw_confusion
from sentifactory.publishing.hub.evidence import Evidence
from sentifactory.publishing.hub.licences import Terms
from sentifactory.publishing.hub.model_card import CardRequest, build_card, strip_predictions
from sentifactory.publishing.hub.refusal import Refusal
from sentifactory.publishing.hub.secret_search import search_secrets
from sentifactory.publishing.model_files import SortedFiles
from sentifactory.redaction import redact_paths
from sentifactory.system.atomic import explain_os_errors, write_json, write_text
from sentifactory.task.model_folder import write_model_task
from sentifactory.training.run.run_card import CARD_NAME

EVALUATION_NAME = "evaluation.json"
# Entries of the run card that are private or of no use to a reader.
_PRIVATE_CARD_KEYS = frozenset({"git", "error", "recipe_file", "continued_from"})


@contextmanager
def stage_files(evidence: Evidence, files: SortedFiles, terms: Terms, request: CardRequest) -> Iterator[Path]:
    """Yield the temporary folder to upload.

    Raises:
        ConfigError: when the card cannot be generated, or the folder cannot be written.
    """
    parent = evidence.folder.absolute().parent
    prefix = f".{evidence.folder.name}.publish."
    with explain_os_errors(parent), tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as name:
        place = Path(name)
        for path in files.upload:
            _link(path.resolve(), place / path.name)
        _write_evidence(evidence, terms, request, place)
        yield place


def find_secrets_in_new_files(place: Path, files: SortedFiles, tokens: tuple[str, ...]) -> list[Refusal]:
    """Return refusals for secrets in the generated files, which quote recipes and commands.

    The linked files were searched before; a tokenizer alone takes ten seconds.
    """
    carried = {path.name for path in files.upload}
    found = search_secrets([path for path in sorted(place.iterdir()) if path.name not in carried], tokens)
    return [Refusal("secret", why, "remove it from the run card or the report, and revoke it") for _, why in found]


def _write_evidence(evidence: Evidence, terms: Terms, request: CardRequest, place: Path) -> None:
    write_text(place / "README.md", build_card(evidence, terms, request))
    if evidence.card is not None:
        card = {key: value for key, value in evidence.card.items() if key not in _PRIVATE_CARD_KEYS}
        write_json(place / CARD_NAME, redact_paths(card))
    if evidence.calibration is not None:
        write_json(place / CALIBRATION_NAME, redact_paths(evidence.calibration))
    if is_export(evidence.folder):
        write_json(place / ONNX_EXPORT_NAME, redact_paths(read_export(evidence.folder)))
    elif evidence.export is not None:
        write_json(place / EXPORT_NAME, redact_paths(evidence.export))
    if terms.base.notice:
        add_notice(place, terms.base.notice)
    if (task := evidence.read_task()) is not None:
        write_model_task(task, place)
    if evidence.report is not None:
        write_json(place / EVALUATION_NAME, redact_paths(strip_predictions(evidence.report)))
        metrics = evidence.tuned["metrics"]
        title = f"{metrics['reviews']} reviews, {metrics['correct']} correct"
        draw_confusion(metrics["confusion"], evidence.report["task"]["labels"], title, place / PICTURE_NAME)


def _link(source: Path, target: Path) -> None:
    """Add a file to the folder as a hard link, or else as a symbolic link."""
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)
