"""What every format is turned into: a header, and rows of three cells that are text, or that are broken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.columns import Columns


class RawRow(NamedTuple):
    """The cells of a row that matter, as they stand in the file.

    Attributes:
        line: the line on which the row begins, from 1; for formats without lines its number.
        text: the review.
        label: the cell that states the label.
        domain: the cell that names the domain, "" where there is none.
        round: which round of a chat of several it is, from 1; None for all other rows.
    """

    line: int
    text: str
    label: str
    domain: str
    round: int | None = None


class BrokenRow(NamedTuple):
    """A row that has no such cells.

    Attributes:
        line: as in `RawRow`.
        detail: what is wrong with it, as a clause.
        shown: the row as it stands.
        reason: what it is counted by.
    """

    line: int
    detail: str
    shown: str
    reason: Reason = Reason.BROKEN_ROW


@dataclass(frozen=True, slots=True)
class Table:
    """A file of any format.

    Attributes:
        format: csv, tsv, jsonl, json, parquet, excel, ...
        encoding: of its text, or None for formats that have none.
        header: the column names; of JSON the keys of its objects.
        header_at: file and line of the header, for messages.
        is_sound: whether no cell can hold half a character (a lone surrogate).
        sha256: of the file, "" where there is none.
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
    """Return a cell that is not text yet as text; None where it is a list, an object or the like.

    Missing values are "". Whole numbers have no point, as people write them.

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
