"""Labels a file of any length: streams its rows through an engine, in order and in bounded memory."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from sentifactory.corpus.files.encodings import show_undecodable
from sentifactory.corpus.files.garbled_text import GarbledCount, word_garbled
from sentifactory.corpus.files.open_file import DELIMITED_SUFFIXES
from sentifactory.corpus.files.tables import BrokenRow
from sentifactory.engines.base import Engine
from sentifactory.engines.model_identity import KNOWN_BY_NAME, is_known_by_name
from sentifactory.errors import ConfigError
from sentifactory.records import Prediction, Review, Source
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.labelling.input_guard import InputGuard
from sentifactory.serving.labelling.prior_adaptation import (
    KEPT_PROBABILITIES,
    decide_adaptation,
    encode_probabilities,
    keeps_probabilities,
    refuse_early,
    write_adapted,
)
from sentifactory.serving.labelling.resumable_output import ResumableOutput, name_bad_file, name_journal, read_journal
from sentifactory.serving.labelling.row_files import (
    ADDED,
    BAD,
    UNSURE,
    Answer,
    Row,
    RowFile,
    WholeRow,
    is_formula,
    open_rows,
)
from sentifactory.system.atomic import find_overwritten_input, refuse_overwriting_inputs
from sentifactory.system.progress import Progress, hide_progress, say, show_progress
from sentifactory.system.stop_signals import StoppedError, raise_on_signals

# Rows in memory at the same time. Local engines answer them by length, perhaps the first row last, so that a kill may
# lose as many answers.
CHUNK_ROWS = 512
# With bad rows included: they are cheap to read again, but each write of them waits for the disk.
_MAX_CHUNK_ROWS = 16 * CHUNK_ROWS
WRITE_EVERY_S = 1.0
NO_LABEL = "the model gave no label"
ROWS = "rows"

# Takes rows in the order of the file, each with its prediction, or None for a bad row.
WriteRows = Callable[[Sequence[Row], Sequence[Prediction | None]], None]


class RowPredictor(Protocol):
    """Predicts the labels of rows."""

    def __call__(self, iter_rows: Callable[[], Iterator[Row]], write: WriteRows) -> None:
        """Predict all rows and write them in order; `iter_rows` may be called more than once."""
        ...


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Input and output of a labelling.

    Attributes:
        source: a .csv, .tsv, .jsonl or .parquet file.
        out: a file of the same kind.
        text_column: column of the reviews; None: detected.
        encoding: of a text file; None: detected.
        overwrite: replace a finished output, and discard an unfinished one.
        is_excel_safe: prefix cells with an apostrophe that a spreadsheet would take for formulas.
        adapt_prior: estimate the labels' shares among the rows, and adapt the answers to them.
    """

    source: Path
    out: Path
    text_column: str | None = None
    encoding: str | None = None
    overwrite: bool = False
    is_excel_safe: bool = False
    adapt_prior: bool = False


def label_file(
    options: LabelOptions,
    formatter: AnswerFormatter,
    identity: Mapping[str, Any],
    open_predictor: Callable[[], RowPredictor],
) -> dict[str, Any]:
    """Label a file and return its counts.

    Args:
        options: input and output.
        formatter: turns predictions into labels.
        identity: all that determines the engine's answers (`engines.model_identity`): an unfinished labelling resumes
            with the same identity only.
        open_predictor: called only when there are rows left.

    Raises:
        DataError: when the file cannot be used, or changes meanwhile: no row is kept that was read after that.
        ConfigError: when the output cannot be written, exists, or belongs to another run; or when answers cannot be
            adapted: the evidence for the shares of the labels is too thin.
        EngineError: when the engine fails; the same command resumes.
        StoppedError: on Ctrl-C and SIGTERM; likewise.
    """
    source, out = options.source, options.out
    if source.suffix.lower() != out.suffix.lower() or find_overwritten_input(out, [source]) is not None:
        raise ConfigError(
            "The output must be another file of the kind of the input",
            where=str(out),
            expected=f"a name that ends in {source.suffix}",
        )
    refuse_overwriting_inputs([name_bad_file(out), name_journal(out)], [source], "OUT")
    if source.suffix.lower() in DELIMITED_SUFFIXES and is_formula(formatter.model):
        raise ConfigError(
            f"A spreadsheet would take the model's name {formatter.model!r} for a formula",
            where="--name",
            next_step="choose another --name",
        )
    guard = InputGuard(source)
    with guard.explain_failures():
        rows = open_rows(
            source,
            options.text_column,
            options.encoding,
            is_excel_safe=options.is_excel_safe,
            is_adapted=options.adapt_prior,
        )
        n_rows = _count_rows(rows, source)
    if options.adapt_prior:
        refuse_early(formatter, n_rows)
    is_kept = options.adapt_prior or (not options.overwrite and keeps_probabilities(out))
    settings = describe_settings(rows, formatter, identity) | {"excel_safe": options.is_excel_safe}
    settings |= KEPT_PROBABILITIES if is_kept else {}
    head = b"" if is_kept else rows.head
    with (
        _say_what_is_done(out, n_rows),
        ResumableOutput(out, settings, head, overwrite=options.overwrite) as output,
        guard.explain_failures(),
    ):
        if output.n_rows > n_rows:
            raise ConfigError(
                f"The journal says that {output.n_rows} rows are done, but the file has {n_rows}",
                where=str(output.journal),
                next_step="choose another output",
            )
        if output.n_rows:
            caveat = f"; {KNOWN_BY_NAME}" if is_known_by_name(identity) else ""
            say(f"{output.n_rows} of {n_rows} rows are done already{caveat}")
        if output.n_rows < n_rows:
            predict = open_predictor()
            with show_progress(f"Labelling {source.name}", total=n_rows, unit="rows") as progress:
                progress.advance(output.n_rows)
                n_done = output.n_rows
                write = _make_writer(rows, guard, formatter, output, progress, is_kept=is_kept)
                predict(lambda: islice(rows.iter_rows(), n_done, None), write)
        guard.check(rows.sha256)
        if output.n_rows != n_rows:
            raise guard.explain_change()
        counts, shift = output.counts, None
        if is_kept:
            adaptation = decide_adaptation(output, formatter, adapt_prior=options.adapt_prior)
            counts, shift = adaptation.counts, adaptation.describe(formatter.task)

            def write_whole(kept: IO[bytes], whole: IO[bytes]) -> None:
                write_adapted(kept, whole, rows, adaptation, out.parent)
                guard.check(rows.sha256)  # its rows were read once more

            output.complete(write_whole)
        else:
            output.complete(rows.complete)
    return {
        "output": str(out),
        "bad_rows_file": str(output.bad) if output.counts.get(BAD) else None,
        "model": formatter.model,
        "text_column": rows.column,
        "label_column": rows.added[0],
        ROWS: n_rows,
        "labelled": n_rows - output.counts.get(BAD, 0),
        "counts": counts,
        "prior_shift": shift,
    }


@contextmanager
def _say_what_is_done(out: Path, n_rows: int) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a sentence about the rows that are done.

    Raises:
        StoppedError: which says it.
    """
    try:
        with raise_on_signals():
            yield
    except (KeyboardInterrupt, StoppedError) as stop:
        number = stop.number if isinstance(stop, StoppedError) else signal.SIGINT
        done = read_journal(name_journal(out))
        what = f"{done['rows']} of {n_rows} rows are labelled and kept." if done else "No row was labelled yet."
        raise StoppedError(f"Stopped: {what}", number, continues=bool(done)) from None


def _count_rows(rows: RowFile, source: Path) -> int:
    """Return the number of rows, and warn about garbled texts."""
    n_rows = 0
    garbled = GarbledCount()
    for row in rows.iter_rows():
        n_rows += 1
        if isinstance(row, WholeRow):
            garbled.add(row.text, Source(str(source), row.line))
    for english, _ in word_garbled(garbled.describe()):
        say(f"Warning: {english}")
    return n_rows


def describe_settings(rows: RowFile, formatter: AnswerFormatter, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the rows of the output depend on."""
    return {
        "input": rows.sha256,
        "text column": rows.column,
        "encoding": rows.encoding,
        "columns": rows.added[: len(ADDED)],
        "model": formatter.model,
        "threshold": formatter.threshold,
        **identity,
    }


def _make_writer(
    rows: RowFile,
    guard: InputGuard,
    formatter: AnswerFormatter,
    output: ResumableOutput,
    progress: Progress,
    *,
    is_kept: bool,
) -> WriteRows:
    """Return what writes rows with their answers, or (`is_kept`) the probabilities of their labels alone."""
    n_labels = len(formatter.task.labels)

    def write(done: Sequence[Row], predictions: Sequence[Prediction | None]) -> None:
        guard.check()  # the journal says that these rows are of the input as it was
        good: list[WholeRow] = []
        answers: list[Answer] = []
        bad: list[BrokenRow] = []
        counts: Counter[str] = Counter()
        for row, prediction in zip(done, predictions, strict=True):
            decision = None if prediction is None else formatter.decide(prediction)
            if isinstance(row, BrokenRow):
                bad.append(row)
            elif decision is None or (is_kept and decision.probabilities is None):
                bad.append(BrokenRow(row.line, NO_LABEL, row.text))
            else:
                name = formatter.name_label(decision)
                good.append(row)
                answers.append(Answer(name, decision.score, formatter.model))
                counts[name or UNSURE] += 1
        if bad:
            counts[BAD] = len(bad)
        if is_kept:
            appended = encode_probabilities(predictions, n_labels)
        else:
            appended = rows.encode(good, answers) if good else b""
        output.append(appended, encode_bad(bad), len(done), counts)
        progress.advance(len(done))

    return write


def encode_bad(rows: Iterable[BrokenRow]) -> bytes:
    """Return the lines of the file of bad rows."""
    lines = (
        json.dumps({"line": row.line, "reason": row.detail, "row": show_undecodable(row.shown)}, ensure_ascii=False)
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines).encode()


class EngineRowPredictor:
    """Predicts rows with one engine, and writes every second up to the first row without an answer.

    Args:
        engine: predicts reviews.
        name: of the file, for messages.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def __call__(self, iter_rows: Callable[[], Iterator[Row]], write: WriteRows) -> None:
        """Predict all rows and write them in order."""
        rows = iter_rows()
        while chunk := _take_chunk(rows):
            self._predict_chunk(chunk, write)

    def _predict_chunk(self, chunk: list[Row], write: WriteRows) -> None:
        asked = [(at, row) for at, row in enumerate(chunk) if isinstance(row, WholeRow)]
        reviews = [Review(row.text, None, Source(self._name, row.line)) for _, row in asked]
        answers: dict[int, Prediction | None] = {
            at: None for at, row in enumerate(chunk) if isinstance(row, BrokenRow)
        }
        written = 0
        written_at = time.monotonic()

        def write_prefix() -> None:
            nonlocal written, written_at
            end = written
            while end in answers:
                end += 1
            if end > written:
                write(chunk[written:end], [answers[at] for at in range(written, end)])
            written, written_at = end, time.monotonic()

        def keep(position: int, prediction: Prediction) -> None:
            answers[asked[position][0]] = prediction
            if time.monotonic() - written_at > WRITE_EVERY_S:
                write_prefix()

        if reviews:
            with hide_progress():
                self._engine.predict(reviews, keep)
        write_prefix()


def _take_chunk(rows: Iterator[Row]) -> list[Row]:
    """Return the next rows, up to CHUNK_ROWS that can be predicted; [] at the end."""
    chunk: list[Row] = []
    n_whole = 0
    while n_whole < CHUNK_ROWS and len(chunk) < _MAX_CHUNK_ROWS and (row := next(rows, None)) is not None:
        chunk.append(row)
        n_whole += isinstance(row, WholeRow)
    return chunk
