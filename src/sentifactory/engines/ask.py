"""Asks an engine about reviews and journals the predictions, so that a killed comparison resumes where it stopped.

A journal is a JSON Lines file next to the report: one line per session (a run of the command) and one per answer. Its
fingerprint identifies model, prompt, mode and reviews; a journal with another fingerprint is started over. A truncated
last line is dropped. A second session at the same time is refused.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from sentifactory.engines.base import Engine
from sentifactory.errors import ConfigError, EngineError
from sentifactory.records import Prediction, Review
from sentifactory.system.atomic import make_parents, remove_empty
from sentifactory.system.file_lock import lock_file, refuse_links
from sentifactory.system.fingerprint import compute_fingerprint
from sentifactory.system.hardware import MemoryWatch
from sentifactory.system.json_text import parse_json
from sentifactory.system.progress import say
from sentifactory.system.stop_signals import note_kept

_MARK = b'{"fingerprint": "'  # first bytes of every journal


@dataclass(frozen=True, slots=True)
class Answers:
    """An engine's answers, over all sessions.

    Attributes:
        predictions: (n_reviews,) in the order of the reviews.
        start_s: seconds until the engine was ready, in the last session that started one.
        predict_s: seconds of predicting, summed over the sessions.
        peak_bytes: most memory of this process and its children while the engine answered; None where it was not
            asked in this session.
    """

    predictions: tuple[Prediction, ...]
    start_s: float
    predict_s: float
    peak_bytes: int | None = None


class PredictionJournal:
    """The journal of one model's answers to one list of reviews; its `with` block locks the file.

    Args:
        path: the file.
        fingerprint: of everything that determines the answers, except the reviews.
        reviews: in order.

    Raises:
        ConfigError: on entering the block, when another process holds the lock or the path cannot be written.
    """

    def __init__(self, path: Path, fingerprint: str, reviews: Sequence[Review]) -> None:
        self.path = path
        self._fingerprint = compute_fingerprint(fingerprint, [review.text for review in reviews])
        self._n_reviews = len(reviews)
        self._stream: IO[bytes] | None = None
        self._made_folders: list[Path] = []
        self._predict_start = 0.0
        self.answers: dict[int, Prediction] = {}
        self.start_s = 0.0
        self.predict_s = 0.0  # of earlier sessions

    def __enter__(self) -> Self:
        """Open and lock the file, read earlier sessions, and truncate it after the last valid line."""
        try:
            self._made_folders = make_parents(self.path)
            self._stream = open(self.path, "a+b", opener=refuse_links)
            lock_file(self._stream, self.path)
        except OSError as error:
            self.close()
            is_held = isinstance(error, BlockingIOError)
            raise ConfigError(
                "Another comparison is writing here" if is_held else f"This file cannot be written ({error.strerror})",
                where=str(self.path),
                next_step="wait until it has finished" if is_held else "choose another --output_file",
                code="output-unwritable",
            ) from error
        self._stream.seek(0)
        if not is_journal(self._stream.read(len(_MARK)), os.fstat(self._stream.fileno())):
            self.close()
            raise ConfigError(
                "This file is not a journal of answers, and would be replaced",
                where=str(self.path),
                next_step="move it away, or choose another --output_file",
                code="output-foreign",
            )
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file; after an error, remove a journal without answers."""
        if error is not None and not self.answers:
            with suppress(OSError):
                self.path.unlink()
            remove_empty(self._made_folders)
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def begin_session(self, start_s: float) -> None:
        """Record that the engine is ready after `start_s` seconds, and start timing its answers."""
        self.start_s = start_s
        self._predict_start = time.monotonic()
        self._write({"fingerprint": self._fingerprint, "start_s": start_s})

    def keep(self, position: int, prediction: Prediction) -> None:
        """Record an answer; whoever is stopped in between is told of no answer that is not in the file."""
        at_s = time.monotonic() - self._predict_start
        self._write({"position": position, "at_s": at_s, "prediction": asdict(prediction)})
        self.answers[position] = prediction
        self._note_answers()

    def _write(self, row: dict[str, Any]) -> None:
        assert self._stream is not None  # noqa: S101 - held by the `with` block
        try:
            self._stream.write(json.dumps(row).encode() + b"\n")  # all ASCII: lone surrogates in a reply survive
            self._stream.flush()
        except OSError as error:
            raise ConfigError(
                f"An answer cannot be saved ({error.strerror})",
                where=str(self.path),
                next_step="free some space and run the same command, which resumes here",
                code="output-unwritable",
            ) from error

    def _read(self) -> None:
        assert self._stream is not None  # noqa: S101 - called with the file open
        self._stream.seek(0)
        end = 0
        session_s = 0.0
        for number, line in enumerate(self._stream):
            try:
                row = parse_json(line.decode()) if line.endswith(b"\n") else None
                if not isinstance(row, dict) or (number == 0 and row.get("fingerprint") != self._fingerprint):
                    break
                if "fingerprint" in row:
                    self.start_s, self.predict_s, session_s = float(row["start_s"]), self.predict_s + session_s, 0.0
                else:
                    session_s = float(row["at_s"])
                    self.answers[int(row["position"])] = read_prediction(row["prediction"])
            except (ValueError, KeyError, TypeError):
                break
            end += len(line)
        self.predict_s += session_s
        self._stream.truncate(end)
        self._note_answers()

    def _note_answers(self) -> None:
        note_kept(self.path, f"{len(self.answers)} of {self._n_reviews} answers")


def is_journal(head: bytes, state: os.stat_result) -> bool:
    """Return whether a file is empty or starts like a journal, possibly truncated."""
    return stat.S_ISREG(state.st_mode) and state.st_nlink == 1 and _MARK.startswith(head)


def read_prediction(row: dict[str, Any]) -> Prediction:
    """Return a prediction from its JSON fields.

    Raises:
        TypeError: when there are other fields.
    """
    shares = {name: None if row[name] is None else tuple(row[name]) for name in ("probabilities", "log_likelihoods")}
    return Prediction(**{**row, **shares})


def collect_answers(
    open_engine: Callable[[], AbstractContextManager[Engine]],
    reviews: Sequence[Review],
    journal_path: Path | None = None,
    fingerprint: str = "",
) -> Answers:
    """Return an answer to every review, asking only about those without an answer in the journal.

    Args:
        open_engine: starts the engine; not called if all answers are in the journal.
        reviews: to ask about.
        journal_path: of the journal; None for no journal.
        fingerprint: of everything that determines the answers, except the reviews.

    Raises:
        ConfigError: when the journal cannot be written, or another session writes it.
        EngineError: when the engine does not start, does not answer, or does not give one answer for each review.
    """
    with ExitStack() as stack:
        journal = None
        if journal_path is not None:
            journal = stack.enter_context(PredictionJournal(journal_path, fingerprint, reviews))
        known = dict(journal.answers) if journal else {}
        missing = [position for position in range(len(reviews)) if position not in known]
        if journal is not None and known:
            say(f"{len(known)} of {len(reviews)} answers are in {journal.path}; asking for the other {len(missing)}")
        if journal is not None and not missing:
            return Answers(tuple(known[at] for at in range(len(reviews))), journal.start_s, journal.predict_s)
        started = time.monotonic()
        engine = stack.enter_context(open_engine())
        ready = time.monotonic()
        if journal is not None:
            journal.begin_session(ready - started)
        keep = journal.keep if journal is not None else lambda place, prediction: None
        with MemoryWatch(os.getpid(), is_whole=True) as watch:
            answers = engine.predict(
                [reviews[position] for position in missing],
                lambda place, prediction: keep(missing[place], prediction),
            )
        predict_s = time.monotonic() - ready + (journal.predict_s if journal is not None else 0.0)
    if len(answers) != len(missing):
        raise EngineError(
            f"The engine gave {len(answers)} answers to {len(missing)} reviews",
            expected="one answer for each review",
            code="engine-answers",
        )
    known.update(zip(missing, answers, strict=True))
    predictions = tuple(known[position] for position in range(len(reviews)))
    return Answers(predictions, ready - started, predict_s, watch.peak_bytes)
