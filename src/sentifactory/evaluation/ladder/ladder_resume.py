"""Keeps the answers of finished entries, so that a ladder that was killed continues where it stopped.

Each finished entry is a JSON file in a folder next to the ladder, until the ladder is written. It is used only for the
same ladder: its fingerprint covers options, reviews, weights and settings. An entry that was missing is tried again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.bilingual import Sentence
from sentifactory.engines.ask import read_prediction
from sentifactory.engines.model_identity import identify_engine
from sentifactory.errors import ConfigError
from sentifactory.evaluation.ladder.ladder_entries import EntryAnswers, LadderInputs, list_entries
from sentifactory.metrics.calibration import find_calibration
from sentifactory.system.atomic import write_json
from sentifactory.system.fingerprint import compute_fingerprint
from sentifactory.system.json_text import read_json_object
from sentifactory.system.stop_signals import note_kept
from sentifactory.training.run.provenance import describe_versions

_MARK = b'{\n  "fingerprint": "'  # how the file of every entry begins


class FinishedEntries:
    """The finished entries of one ladder.

    Args:
        folder: where they are kept; None: nowhere.
        inputs: of the ladder.

    Raises:
        ConfigError: when the folder contains other files.
    """

    def __init__(self, folder: Path | None, inputs: LadderInputs) -> None:
        if folder is not None and (foreign := _find_foreign_file(folder)) is not None:
            raise ConfigError(
                "This is not from an interrupted ladder, and it would be removed",
                where=str(foreign),
                next_step="move it away, or choose another --output_file",
                code="output-foreign",
            )
        self._folder = folder
        self._fingerprint = compute_ladder_fingerprint(inputs) if folder is not None else ""
        self.n_used = 0
        self._n_finished, self._n_entries = 0, len(list_entries(inputs))

    def read(self, key: str) -> tuple[EntryAnswers, int | None] | None:
        """Return the answers of a finished entry and its peak memory in bytes; None where it is not finished."""
        if self._folder is None:
            return None
        kept = read_json_object(self._folder / f"{key}.json") or {}
        if kept.get("fingerprint") != self._fingerprint:
            return None
        try:
            answers = dict(kept["answers"])
            for part in ("predictions", "uncorrected", "val_predictions"):
                answers[part] = [read_prediction(row) for row in answers[part]]
            answers["note"] = None if answers["note"] is None else Sentence(**answers["note"])
            found = EntryAnswers(**answers), kept["peak_bytes"]
        except (ValueError, KeyError, TypeError):
            return None
        self.n_used += 1
        self._note_entry()
        return found

    def _note_entry(self) -> None:
        assert self._folder is not None  # noqa: S101 - where entries are read or kept
        self._n_finished += 1
        note_kept(self._folder, f"the answers of {self._n_finished} of {self._n_entries} models")

    def keep(self, key: str, answers: EntryAnswers, peak_bytes: int | None) -> None:
        """Save the answers of an entry; raises what `atomic.write_json` raises."""
        if self._folder is not None:
            content = {"fingerprint": self._fingerprint, "answers": asdict(answers), "peak_bytes": peak_bytes}
            write_json(self._folder / f"{key}.json", content)
            self._note_entry()


def find_resume_folder(ladder_file: str | Path) -> Path:
    """Return the folder in which the entries of a ladder are kept until the ladder is written."""
    return Path(ladder_file).with_suffix(".rungs")


def remove_finished(ladder_file: str | Path) -> None:
    """Remove the kept entries of a ladder that is written; other files in the folder stay."""
    folder = find_resume_folder(ladder_file)
    if not folder.is_symlink() and folder.is_dir():
        for path in filter(_is_entry_file, folder.iterdir()):
            path.unlink()
        with suppress(OSError):
            folder.rmdir()


def _is_entry_file(path: Path) -> bool:
    """Return whether a file is a kept entry, complete or, from a process that was killed, partial."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        return path.match(".*.json.*.part") or _MARK.startswith(stream.read(len(_MARK)))


def _find_foreign_file(folder: Path) -> Path | None:
    """Return a file in the folder, or at its path, that is not a kept entry; None where there is none."""
    if not folder.is_symlink() and folder.is_dir():
        return next((path for path in sorted(folder.iterdir()) if not _is_entry_file(path)), None)
    return folder if os.path.lexists(folder) else None


def describe_state(model: str | None, inputs: LadderInputs) -> list[Any]:
    """Return the name of a model, which the ladder shows, and its identity."""
    if model is None:
        return []
    try:
        calibration = find_calibration(model, inputs.task)  # the engines of a ladder apply it
    except ConfigError:  # its entry reports what is wrong with it
        calibration = None
    return [
        model,
        identify_engine(inputs.options.engine, model, inputs.task, calibration, mode=inputs.options.mode),
    ]


def compute_ladder_fingerprint(inputs: LadderInputs) -> str:
    """Return a fingerprint of everything that decides the answers of a ladder's entries."""
    options = inputs.options
    named = [
        options.base_model, options.freeze_model, options.lora_model, options.stack_model, *options.encoder_models,
    ]  # fmt: skip
    models = [describe_state(model, inputs) for model in named]
    reviews = [[(review.text, review.label) for review in part] for part in (inputs.train, inputs.test, inputs.val)]
    settings = [repr(inputs.task), options.engine, options.mode, options.shots, options.seed]
    return compute_fingerprint(
        sentifactory.__version__, describe_versions([options.engine]), settings, models, reviews
    )
