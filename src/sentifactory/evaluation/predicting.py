"""Predictions are written down as they come, so that a comparison that was killed continues and asks nothing twice.

A journal is a file of JSON lines beside the report: a line for each session (a run of the command, or what there was
of it) and a line for each answer. It belongs to one model, prompt, mode and list of reviews, named by a fingerprint; a
journal of another fingerprint is begun anew. A last line that was cut off is dropped. Not covered: two sessions at the
same time; the second is refused.
"""

from __future__ import annotations

import hashlib
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

from sentifactory.atomic import make_parents, remove_empty
from sentifactory.engines.base import Engine
from sentifactory.errors import ConfigError, EngineError
from sentifactory.file_lock import lock_file, refuse_links
from sentifactory.progress import say
from sentifactory.records import Prediction, Review

_MARK = b'{"fingerprint": "'  # so begins every journal


@dataclass(frozen=True, slots=True)
class Answers:
    """What an engine answered, over all sessions.

    Attributes:
        predictions: (n_reviews,) in the order of the reviews.
        start_s: seconds until the engine was ready; of the last session that started one.
        predict_s: seconds of answering, summed over the sessions.
    """

    predictions: tuple[Prediction, ...]
    start_s: float
    predict_s: float


def compute_fingerprint(*parts: Any) -> str:
    """Return a name for everything that decides what a model answers; the parts are what JSON can hold."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


class PredictionJournal:
    """The journal of one model on one list of reviews; use it in a `with` block, which holds the file.

    Args:
        path: the file.
        fingerprint: of all that decides the answers, beside the reviews themselves.
        reviews: what is asked about, in order.

    Raises:
        ConfigError: on entering the block, when another process holds the file or the place may not be written.
    """

    def __init__(self, path: Path, fingerprint: str, reviews: Sequence[Review]) -> None:
        self.path = path
        self._fingerprint = compute_fingerprint(fingerprint, [review.text for review in reviews])
        self._stream: IO[bytes] | None = None
        self._made_folders: list[Path] = []
        self._predict_start = 0.0
        self.answers: dict[int, Prediction] = {}
        self.start_s = 0.0
        self.predict_s = 0.0  # of the sessions before this one

    def __enter__(self) -> Self:
        """Open the file, read what earlier sessions wrote, and cut off what cannot be read."""
        try:
            self._made_folders = make_parents(self.path)
            self._stream = open(self.path, "a+b", opener=refuse_links)
            lock_file(self._stream, self.path)
        except OSError as error:
            self.close()
            is_held = isinstance(error, BlockingIOError)
            raise ConfigError(
                "Another comparison writes here" if is_held else f"This place may not be written ({error.strerror})",
                where=str(self.path),
                next_step="wait until it has ended" if is_held else "choose another --output_file",
            ) from error
        self._stream.seek(0)
        if not is_journal(self._stream.read(len(_MARK)), os.fstat(self._stream.fileno())):
            self.close()
            raise ConfigError(
                "Something stands here that is no journal of answers, and it would be replaced",
                where=str(self.path),
                next_step="move it away, or choose another --output_file",
            )
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of the file; one without an answer, such as of an engine that did not start, is not left behind."""
        if error is not None and not self.answers:
            with suppress(OSError):
                self.path.unlink()
            remove_empty(self._made_folders)
        self.close()

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def begin_session(self, start_s: float) -> None:
        """Write down that an engine is ready, after so many seconds; the time of answering begins."""
        self.start_s = start_s
        self._predict_start = time.monotonic()
        self._write({"fingerprint": self._fingerprint, "start_s": start_s})

    def keep(self, position: int, prediction: Prediction) -> None:
        """Write down an answer."""
        self.answers[position] = prediction
        at_s = time.monotonic() - self._predict_start
        self._write({"position": position, "at_s": at_s, "prediction": asdict(prediction)})

    def _write(self, row: dict[str, Any]) -> None:
        assert self._stream is not None  # noqa: S101 - held by the `with` block
        try:
            self._stream.write(json.dumps(row).encode() + b"\n")  # all ASCII: lone surrogates in a reply survive
            self._stream.flush()
        except OSError as error:
            raise ConfigError(
                f"An answer cannot be written down ({error.strerror})",
                where=str(self.path),
                next_step="free some space and run the same command, which continues here",
            ) from error

    def _read(self) -> None:
        assert self._stream is not None  # noqa: S101 - called with the file open
        self._stream.seek(0)
        end = 0
        session_s = 0.0
        for number, line in enumerate(self._stream):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
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


def is_journal(head: bytes, state: os.stat_result) -> bool:
    """Return whether a file is ours, by its first bytes: empty, or a journal whose first line may be cut off."""
    return stat.S_ISREG(state.st_mode) and state.st_nlink == 1 and _MARK.startswith(head)


def read_prediction(row: dict[str, Any]) -> Prediction:
    """Return a prediction from its fields as JSON has them.

    Raises:
        TypeError: when they are others.
    """
    shares = {name: None if row[name] is None else tuple(row[name]) for name in ("probabilities", "log_likelihoods")}
    return Prediction(**{**row, **shares})


def collect_answers(
    open_engine: Callable[[], AbstractContextManager[Engine]],
    reviews: Sequence[Review],
    journal_path: Path | None = None,
    fingerprint: str = "",
) -> Answers:
    """Return an answer to every review, asking only for those that no earlier session has got.

    Args:
        open_engine: starts the engine; not called when all answers are there.
        reviews: what to ask about.
        journal_path: where answers are written down as they come; None: nowhere.
        fingerprint: of all that decides the answers, beside the reviews.

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
            say(f"{len(known)} of {len(reviews)} answers are in {journal.path}; {len(missing)} are still to be asked")
        if journal is not None and not missing:
            return Answers(tuple(known[at] for at in range(len(reviews))), journal.start_s, journal.predict_s)
        started = time.monotonic()
        engine = stack.enter_context(open_engine())
        ready = time.monotonic()
        if journal is not None:
            journal.begin_session(ready - started)
        keep = journal.keep if journal is not None else lambda place, prediction: None
        answers = engine.predict(
            [reviews[position] for position in missing],
            lambda place, prediction: keep(missing[place], prediction),
        )
        predict_s = time.monotonic() - ready + (journal.predict_s if journal is not None else 0.0)
    if len(answers) != len(missing):
        raise EngineError(
            f"The engine gave {len(answers)} answers to {len(missing)} reviews", expected="one answer for each review"
        )
    known.update(zip(missing, answers, strict=True))
    return Answers(tuple(known[position] for position in range(len(reviews))), ready - started, predict_s)
