"""The common form of all file formats: a header, and rows of three text cells, or broken rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sentifactory.corpus.files.columns import Columns
from sentifactory.records import Reason


class RawRow(NamedTuple):
    """The three cells of a row, as they are in the file.

    Attributes:
        line: the line on which the row begins, from 1; for formats without lines, the number of the row.
        text: the review.
        label: the label cell.
        domain: the domain cell, "" where there is none.
        round: number of the round in a chat of several, from 1; None for all other rows.
    """

    line: int
    text: str
    label: str
    domain: str
    round: int | None = None


class BrokenRow(NamedTuple):
    """A row without valid cells.

    Attributes:
        line: as in `RawRow`.
        detail: what is wrong with it, as a clause.
        shown: the whole row.
        reason: the kind of fault.
    """

    line: int
    detail: str
    shown: str
    reason: Reason = Reason.BROKEN_ROW


@dataclass(frozen=True, slots=True)
class Table:
    """An open file of any format.

    Attributes:
        format: csv, tsv, jsonl, json, parquet, excel, ...
        encoding: of its text; None for binary formats.
        header: the column names; of JSON, the keys of the objects.
        header_at: file and line of the header, for messages.
        is_sound: whether no cell can hold a lone surrogate.
        sha256: of the file; "" where there is none.
        iter_rows: yields the rows, given the columns.
    """

    format: str
    encoding: str | None
    header: Sequence[str]
    header_at: str
    is_sound: bool
    sha256: str
    iter_rows: Callable[[Columns], Iterator[RawRow | BrokenRow]]


def spell_cell(value: Any) -> str | None:
    """Return a cell as text, None for a list, an object or the like.

    Missing values become "". Whole numbers have no decimal point.

    Example:
        >>> spell_cell(1.0), spell_cell(None), spell_cell(float("nan")), spell_cell([1])
        ('1', '', '', None)
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return None


def make_row(line: int, text: Any, label: Any, domain: Any) -> RawRow | BrokenRow:
    """Return the row of three cells of any type."""
    if type(text) is str and type(label) is str and type(domain) is str:
        return RawRow(line, text, label, domain)
    cells = [spell_cell(text), spell_cell(label), spell_cell(domain)]
    for kind, cell, value in zip(("text", "label", "domain"), cells, (text, label, domain), strict=True):
        if cell is None:
            return BrokenRow(line, f"the {kind} is a {type(value).__name__}", str(text))
    return RawRow(line, cells[0] or "", cells[1] or "", cells[2] or "")
