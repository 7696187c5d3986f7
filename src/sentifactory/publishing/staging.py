"""The folder that goes up: links to the checkpoint's own files, and beside them what is written from the evidence.

It is made anew for every upload, holds nothing but what is listed, and is removed afterwards. The same evidence gives
the same bytes, so that a repeated upload sends nothing twice.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sentifactory.atomic import explain_os_errors, write_json, write_text
from sentifactory.engines.calibration import CALIBRATION_NAME
from sentifactory.engines.onnx import EXPORT_NAME as ONNX_EXPORT_NAME
from sentifactory.engines.onnx import is_export, read_export
from sentifactory.model_task import write_model_task
from sentifactory.publishing.card import CardRequest, build_card, strip_predictions
from sentifactory.publishing.checks import Refusal
from sentifactory.publishing.evidence import EXPORT_NAME, Evidence
from sentifactory.publishing.files import Sorted
from sentifactory.publishing.licences import Terms
from sentifactory.publishing.picture import PICTURE_NAME, draw_confusion
from sentifactory.publishing.places import hide_places
from sentifactory.publishing.secret_search import search_secrets
from sentifactory.training.run_card import CARD_NAME

EVALUATION_NAME = "evaluation.json"
NOTICE_NAME = "NOTICE"
# Of the run card: what tells the reader nothing, or something about the machine's owner.
_PRIVATE_CARD_KEYS = frozenset({"git", "error", "recipe_file", "continued_from"})


@contextmanager
def stage_files(evidence: Evidence, files: Sorted, terms: Terms, request: CardRequest) -> Iterator[Path]:
    """Give the folder that goes up.

    Raises:
        ConfigError: when the card cannot be made, or the place may not be written.
    """
    parent = evidence.folder.absolute().parent
    prefix = f".{evidence.folder.name}.publish."
    with explain_os_errors(parent), tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as name:
        place = Path(name)
        for path in files.upload:
            _link(path.resolve(), place / path.name)
        _write_evidence(evidence, terms, request, place)
        yield place


def find_written_secrets(place: Path, tokens: tuple[str, ...]) -> list[Refusal]:
    """Return what looks like a secret in the texts of a staged folder: recipes and commands may hold anything."""
    found = search_secrets(sorted(place.iterdir()), tokens)
    return [Refusal(why, "take it out of run card or report, and revoke it") for _, why in found]


def _write_evidence(evidence: Evidence, terms: Terms, request: CardRequest, place: Path) -> None:
    write_text(place / "README.md", build_card(evidence, terms, request))
    if evidence.card is not None:
        card = {key: value for key, value in evidence.card.items() if key not in _PRIVATE_CARD_KEYS}
        write_json(place / CARD_NAME, hide_places(card))
    if evidence.calibration is not None:
        write_json(place / CALIBRATION_NAME, hide_places(evidence.calibration))
    if is_export(evidence.folder):
        write_json(place / ONNX_EXPORT_NAME, hide_places(read_export(evidence.folder)))
    elif evidence.export is not None:
        write_json(place / EXPORT_NAME, hide_places(evidence.export))
    if terms.base.notice and not (place / NOTICE_NAME).exists():
        write_text(place / NOTICE_NAME, f"{terms.base.notice}\nThe weights in this folder were changed by tuning.\n")
    if (task := evidence.read_task()) is not None:
        write_model_task(task, place)
    if evidence.report is not None:
        write_json(place / EVALUATION_NAME, hide_places(strip_predictions(evidence.report)))
        metrics = evidence.tuned["metrics"]
        title = f"{metrics['reviews']} reviews, {metrics['correct']} right"
        draw_confusion(metrics["confusion"], evidence.report["task"]["labels"], title, place / PICTURE_NAME)


def _link(source: Path, target: Path) -> None:
    """Put a file into the folder without a copy: as a hard link, or where that cannot be, as a symbolic one."""
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)
