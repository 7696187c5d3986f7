"""Labels a file of any length: rows stream through an engine and out again, in their order, in bounded memory."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from sentifactory.atomic import find_endangered, refuse_endangered
from sentifactory.corpus.encodings import show_undecodable
from sentifactory.corpus.garbled import GarbledCount, word_garbled
from sentifactory.corpus.tables import BrokenRow
from sentifactory.engines.base import Engine
from sentifactory.engines.identity import KNOWN_BY_NAME, is_known_by_name
from sentifactory.errors import ConfigError
from sentifactory.progress import Progress, hide_progress, say, show_progress
from sentifactory.records import Prediction, Review, Source
from sentifactory.serving.reporting import Reporter
from sentifactory.serving.row_files import DELIMITED, Answer, Row, RowFile, WholeRow, is_formula, open_rows
from sentifactory.serving.spool import Spool, name_bad_file, name_journal

# Rows in memory at the same time. Local engines answer them by length, the first row perhaps last: a kill may cost as
# many answers.
CHUNK_ROWS = 512
WRITE_EVERY_S = 1.0
NO_LABEL = "the model named no label"
BAD, UNSURE, ROWS = "bad_rows", "unsure", "rows"

# Told rows in the order of the file, each with its prediction, or None for a bad one.
WriteRows = Callable[[Sequence[Row], Sequence[Prediction | None]], None]


class Answerer(Protocol):
    """Answers rows as they come."""

    def __call__(self, iter_rows: Callable[[], Iterator[Row]], write: WriteRows) -> None:
        """Answer all rows and write them in their order; the rows may be gone through more than once."""
        ...


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What is labelled, and where it goes.

    Attributes:
        source: a .csv, .tsv, .jsonl or .parquet file.
        out: a file of the same kind.
        text_column: column of the reviews; None: it is recognised.
        encoding: of a text file; None: it is recognised.
        overwrite: replace a finished output, and begin anew where an unfinished one stands.
        is_excel_safe: begin cells with an apostrophe that a spreadsheet would take for formulas.
    """

    source: Path
    out: Path
    text_column: str | None = None
    encoding: str | None = None
    overwrite: bool = False
    is_excel_safe: bool = False


def label_file(
    options: LabelOptions, reporter: Reporter, identity: Mapping[str, Any], open_answerer: Callable[[], Answerer]
) -> dict[str, Any]:
    """Label a file and return what was counted.

    Args:
        options: the file.
        reporter: turns predictions into labels.
        identity: all that decides the engine's answers (`engines.identity`): an unfinished labelling goes on with the
            same one only.
        open_answerer: makes what answers rows; called only when there are rows left.

    Raises:
        DataError: when the file cannot be used.
        ConfigError: when the output cannot be written, stands there already, or is another run's.
        EngineError: when the engine fails; the same command goes on from there.
    """
    source, out = options.source, options.out
    if source.suffix.lower() != out.suffix.lower() or find_endangered(out, [source]) is not None:
        raise ConfigError(
            "The output must be another file of the kind of the input",
            where=str(out),
            expected=f"a name that ends in {source.suffix}",
        )
    refuse_endangered([name_bad_file(out), name_journal(out)], [source], "OUT")
    if source.suffix.lower() in DELIMITED and is_formula(reporter.model):
        raise ConfigError(
            f"A spreadsheet would take the name {reporter.model!r} of the model for a formula",
            where="--name",
            next_step="give it another --name",
        )
    rows = open_rows(source, options.text_column, options.encoding, is_excel_safe=options.is_excel_safe)
    n_rows = _count_rows(rows, source)
    with Spool(
        out,
        describe_settings(rows, reporter, identity) | {"excel_safe": options.is_excel_safe},
        rows.head,
        overwrite=options.overwrite,
    ) as spool:
        if spool.n_rows:
            doubt = f"; {KNOWN_BY_NAME}" if is_known_by_name(identity) else ""
            say(f"{spool.n_rows} of {n_rows} rows are done already{doubt}")
        if spool.n_rows < n_rows:
            answer = open_answerer()
            with show_progress(f"Labelling {source.name}", total=n_rows, unit="rows") as progress:
                progress.advance(spool.n_rows)
                n_done = spool.n_rows
                answer(lambda: islice(rows.iter_rows(), n_done, None), _make_writer(rows, reporter, spool, progress))
        spool.complete(rows.complete)
    return {
        "output": str(out),
        "bad_rows_file": str(spool.bad) if spool.counts.get(BAD) else None,
        "model": reporter.model,
        ROWS: n_rows,
        "labelled": n_rows - spool.counts.get(BAD, 0),
        "counts": spool.counts,
    }


def _count_rows(rows: RowFile, source: Path) -> int:
    """Return how many rows there are, and warn of garbled texts."""
    n_rows = 0
    suspect = GarbledCount()
    for row in rows.iter_rows():
        n_rows += 1
        if isinstance(row, WholeRow):
            suspect.add(row.text, Source(str(source), row.line))
    for english, _ in word_garbled(suspect.describe()):
        say(f"Warning: {english}")
    return n_rows


def describe_settings(rows: RowFile, reporter: Reporter, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the rows of the output depend on."""
    return {
        "input": rows.sha256,
        "text column": rows.column,
        "encoding": rows.encoding,
        "columns": rows.added,
        "model": reporter.model,
        "threshold": reporter.threshold,
        **identity,
    }


def _make_writer(rows: RowFile, reporter: Reporter, spool: Spool, progress: Progress) -> WriteRows:
    def write(done: Sequence[Row], predictions: Sequence[Prediction | None]) -> None:
        good: list[WholeRow] = []
        answers: list[Answer] = []
        bad: list[BrokenRow] = []
        counts: Counter[str] = Counter()
        for row, prediction in zip(done, predictions, strict=True):
            verdict = None if prediction is None else reporter.judge(prediction)
            if isinstance(row, BrokenRow):
                bad.append(row)
            elif verdict is None:
                bad.append(BrokenRow(row.line, NO_LABEL, row.text))
            else:
                name = None if verdict.is_unsure else reporter.task.labels[verdict.label]
                good.append(row)
                answers.append(Answer(name, verdict.score, reporter.model))
                counts[name or UNSURE] += 1
        if bad:
            counts[BAD] = len(bad)
        spool.append(rows.encode(good, answers) if good else b"", encode_bad(bad), len(done), counts)
        progress.advance(len(done))

    return write


def encode_bad(rows: Iterable[BrokenRow]) -> bytes:
    """Return the lines of the side file for bad rows."""
    lines = (
        json.dumps({"line": row.line, "reason": row.detail, "row": show_undecodable(row.shown)}, ensure_ascii=False)
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines).encode()


class EngineAnswerer:
    """Answers rows with one engine. What is answered is written every second, up to the first row without an answer.

    Args:
        engine: answers reviews.
        name: of the file, for messages.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def __call__(self, iter_rows: Callable[[], Iterator[Row]], write: WriteRows) -> None:
        """Answer all rows and write them in their order."""
        rows = iter_rows()
        while chunk := list(islice(rows, CHUNK_ROWS)):
            self._answer_chunk(chunk, write)

    def _answer_chunk(self, chunk: list[Row], write: WriteRows) -> None:
        asked = [place for place, row in enumerate(chunk) if isinstance(row, WholeRow)]
        reviews = [Review(chunk[place].text, None, Source(self._name, chunk[place].line)) for place in asked]  # type: ignore[union-attr]
        answers: dict[int, Prediction | None] = dict.fromkeys({*range(len(chunk))} - {*asked})
        written = 0
        written_at = time.monotonic()

        def write_prefix() -> None:
            nonlocal written, written_at
            end = written
            while end in answers:
                end += 1
            if end > written:
                write(chunk[written:end], [answers[place] for place in range(written, end)])
            written, written_at = end, time.monotonic()

        def keep(position: int, prediction: Prediction) -> None:
            answers[asked[position]] = prediction
            if time.monotonic() - written_at > WRITE_EVERY_S:
                write_prefix()

        if reviews:
            with hide_progress():
                self._engine.predict(reviews, keep)
        write_prefix()
