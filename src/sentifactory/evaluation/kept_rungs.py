"""Keeps the answers of rungs that have ended, so that a ladder that was killed goes on where it was.

A file of JSON for each rung stands in a folder beside the ladder until that is written. It counts for the very same
ladder alone: options, reviews, weights and settings are in its fingerprint. A rung that was missing is tried again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.atomic import write_json
from sentifactory.engines.calibration import find_calibration
from sentifactory.engines.identity import identify_engine
from sentifactory.errors import ConfigError
from sentifactory.evaluation.predicting import compute_fingerprint, read_prediction
from sentifactory.evaluation.provenance import describe_versions
from sentifactory.evaluation.rungs import RungAnswers, RungSetting
from sentifactory.evaluation.verdict import Sentence

_MARK = b'{\n  "fingerprint": "'  # so begins every kept rung


class KeptRungs:
    """The rungs of one ladder that have ended.

    Args:
        folder: where they are kept; None: nowhere.
        setting: what all rungs are given.

    Raises:
        ConfigError: when other files stand there.
    """

    def __init__(self, folder: Path | None, setting: RungSetting) -> None:
        if folder is not None and (stranger := _find_stranger(folder)) is not None:
            raise ConfigError(
                "Something stands here that no ladder has kept, and it would be removed",
                where=str(stranger),
                next_step="move it away, or choose another --output_file",
            )
        self._folder = folder
        self._fingerprint = compute_setting_fingerprint(setting) if folder is not None else ""
        self.n_used = 0

    def read(self, key: str) -> tuple[RungAnswers, int | None] | None:
        """Return the answers and the peak of bytes of a rung that has ended; None where it has not."""
        if self._folder is None:
            return None
        try:
            kept = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            if kept["fingerprint"] != self._fingerprint:
                return None
            answers = dict(kept["answers"])
            answers["predictions"] = [read_prediction(row) for row in answers["predictions"]]
            answers["note"] = None if answers["note"] is None else Sentence(**answers["note"])
            found = RungAnswers(**answers), kept["peak_bytes"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        self.n_used += 1
        return found

    def keep(self, key: str, answers: RungAnswers, peak_bytes: int | None) -> None:
        """Write down what a rung answered; raises what `atomic.write_json` raises."""
        if self._folder is not None:
            content = {"fingerprint": self._fingerprint, "answers": asdict(answers), "peak_bytes": peak_bytes}
            write_json(self._folder / f"{key}.json", content)


def name_folder(ladder_file: str | Path) -> Path:
    """Return where the rungs of a ladder are kept until it is written."""
    return Path(ladder_file).with_suffix(".rungs")


def remove_kept(ladder_file: str | Path) -> None:
    """Remove the rungs of a ladder that is written, and nothing that has come to stand beside them."""
    folder = name_folder(ladder_file)
    if not folder.is_symlink() and folder.is_dir():
        for path in filter(_is_rung, folder.iterdir()):
            path.unlink()
        with suppress(OSError):
            folder.rmdir()


def _is_rung(path: Path) -> bool:
    """Return whether a file was kept here, whole or, by a process that was killed, in part."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        return path.match(".*.json.*.part") or _MARK.startswith(stream.read(len(_MARK)))


def _find_stranger(folder: Path) -> Path | None:
    """Return what stands in the folder, or is it, and was not kept here; None where there is nothing."""
    if not folder.is_symlink() and folder.is_dir():
        return next((path for path in sorted(folder.iterdir()) if not _is_rung(path)), None)
    return folder if os.path.lexists(folder) else None


def describe_state(model: str | None, setting: RungSetting) -> list[Any]:
    """Return a model's name, which the ladder shows, and its identity."""
    if model is None:
        return []
    try:
        calibration = find_calibration(model, setting.task)  # the engines of a ladder apply it
    except ConfigError:  # its rung will say what is wrong with it
        calibration = None
    return [model, identify_engine(setting.engine, model, setting.task, calibration, mode=setting.mode)]


def compute_setting_fingerprint(setting: RungSetting) -> str:
    """Return a name for all that decides the answers of a ladder's rungs."""
    named = [setting.base_model, setting.freeze_model, setting.lora_model, *setting.encoder_models]
    models = [describe_state(model, setting) for model in named]
    reviews = [[(review.text, review.label) for review in part] for part in (setting.train, setting.test)]
    ways = [repr(setting.task), setting.engine, setting.mode, setting.shots, setting.seed]
    return compute_fingerprint(sentifactory.__version__, describe_versions([setting.engine]), ways, models, reviews)
