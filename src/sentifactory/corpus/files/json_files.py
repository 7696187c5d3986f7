"""Reads JSON lines and JSON documents.

A document is a list of objects, an object with one such list, or an object of columns (lists of equal length, or
pandas' objects by row number). A line that is not a JSON object is a broken row; a broken document is an error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from sentifactory.corpus.files.columns import Columns
from sentifactory.corpus.files.delimited import refuse_empty
from sentifactory.corpus.files.encodings import TextFile
from sentifactory.corpus.files.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_ROW_CHARS,
    describe_long,
    is_long,
    iter_lines,
    shorten,
)
from sentifactory.corpus.files.tables import BrokenRow, RawRow, Table, make_row
from sentifactory.errors import DataError
from sentifactory.system.json_text import parse_json, parse_json_at

# Objects may lack keys: the header is all keys of this many objects.
HEADER_ROWS = 1000
_BLANKS = " \t\n\r"


NumberedObject = tuple[int, dict[str, Any]] | BrokenRow


class _RepeatedKeyError(ValueError):
    pass


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _RepeatedKeyError(next(key for key, n_times in counts.items() if n_times > 1))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_make_object)


def open_json_lines(text: TextFile) -> Table:
    """Open a file with one JSON object a line.

    Raises:
        DataError: when it is empty or no line is an object.
    """
    with text.open(newline="\n") as stream:
        first = list(islice(iter_objects(stream), HEADER_ROWS))
    if not first:
        refuse_empty(text.path)
    header = collect_keys(first)
    if not header:
        broken = next(row for row in first if isinstance(row, BrokenRow))
        raise DataError(
            f"The lines are not JSON objects: {broken.detail}",
            where=f"{text.path}, line {broken.line}",
            expected='one object per line, such as {"text": "很好", "label": 1}',
            code="file-json",
        )

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        with text.open(newline="\n") as stream:
            yield from _pick_cells(iter_objects(stream), header, columns)

    # Any JSON string can hold an escaped lone surrogate.
    return Table("jsonl", text.encoding, header, str(text.path), False, text.sha256, iter_rows)


def iter_objects(stream: TextIO, lines: list[str] | None = None) -> Iterator[NumberedObject]:
    """Yield the object of each line with its line number, from 1; blank lines are skipped.

    Args:
        stream: the file.
        lines: is updated to the line of the object that was yielded last, as it is in the file.
    """
    for number, line in enumerate(iter_lines(stream), start=1):
        if line.isspace():
            continue
        if is_long(line):
            yield BrokenRow(number, describe_long("row", MAX_ROW_CHARS), shorten(line))
            continue
        try:
            found = parse_json(line, _DECODER)
        except ValueError as error:
            yield BrokenRow(number, _describe_fault(error), shorten(line.rstrip("\r\n")))
            continue
        if isinstance(found, dict):
            if lines is not None:
                lines[:] = [line]
            yield number, found
        else:
            fault = f"the line is a JSON {type(found).__name__}, not an object"
            yield BrokenRow(number, fault, shorten(line.rstrip("\r\n")))


def _describe_fault(error: Exception) -> str:
    if isinstance(error, _RepeatedKeyError):
        return f"the key {str(error)!r} occurs twice"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at character {error.pos + 1})"
    return "JSON that cannot be read (nested too deeply, or a number is too long)"


def collect_keys(rows: Iterable[NumberedObject]) -> list[str]:
    """Return the keys of all objects, in the order in which they first occur."""
    objects = (row[1] for row in rows if not isinstance(row, BrokenRow))
    return list(dict.fromkeys(chain.from_iterable(objects)))


def _pick_cells(
    rows: Iterable[NumberedObject], header: Sequence[str], columns: Columns
) -> Iterator[RawRow | BrokenRow]:
    text_key, label_key = header[columns.text], header[columns.label]
    domain_key = None if columns.domain is None else header[columns.domain]
    for row in rows:
        if isinstance(row, BrokenRow):
            yield row
            continue
        line, found = row
        if columns.has_chats:
            yield RawRow(line, json.dumps(found, ensure_ascii=False), "", "")
            continue
        if text_key not in found:
            yield BrokenRow(line, f"there is no key {text_key!r}", json.dumps(found, ensure_ascii=False))
            continue
        yield make_row(
            line, found[text_key], found.get(label_key), "" if domain_key is None else found.get(domain_key)
        )


def open_json(text: TextFile) -> Table:
    """Open a JSON document, or a file of JSON lines that ends in .json.

    Raises:
        DataError: when it is empty, broken, or holds no rows.
    """
    if text.path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise DataError(
            f"The JSON document is larger than {MAX_DOCUMENT_BYTES >> 20} MiB, and must be read as a whole",
            where=str(text.path),
            next_step="save it as JSON lines, one object per line",
            code="file-too-large",
        )
    with text.open() as stream:
        content = stream.read()
    start = _skip_blanks(content, 0)
    if start == len(content):
        refuse_empty(text.path)
    try:
        if content[start] == "[":
            rows: list[NumberedObject] = list(_iter_elements(content, start + 1))
        else:
            document, end = parse_json_at(content, start, _DECODER)
            if _skip_blanks(content, end) < len(content):
                return open_json_lines(text)
            rows = _find_rows(document, text.path)
    except ValueError as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"The document cannot be read: {_describe_fault(error)}",
            where=f"{text.path}{line}",
            expected="a list of objects, each with a text and a label",
            code="file-json",
        ) from None
    header = collect_keys(rows)
    if not header:
        raise DataError(
            "The document holds no rows", where=str(text.path), expected="a list of objects", code="file-empty"
        )
    return Table("json", text.encoding, header, str(text.path), False, text.sha256, partial(_pick_cells, rows, header))


def _skip_blanks(content: str, position: int) -> int:
    while position < len(content) and content[position] in _BLANKS:
        position += 1
    return position


def _iter_elements(content: str, position: int) -> Iterator[NumberedObject]:
    """Yield the elements of a list from a position within it, each with the line on which it begins.

    Raises:
        ValueError: when the list is broken.
    """
    line = content.count("\n", 0, position) + 1
    counted_to = position
    position = _skip_blanks(content, position)
    if content.startswith("]", position):
        return
    while True:
        position = _skip_blanks(content, position)
        line += content.count("\n", counted_to, position)
        counted_to = position
        element, end = parse_json_at(content, position, _DECODER)
        if isinstance(element, dict):
            yield line, element
        else:
            yield BrokenRow(
                line, f"the element is a JSON {type(element).__name__}, not an object", content[position:end]
            )
        position = _skip_blanks(content, end)
        if content.startswith(",", position):
            position += 1
        elif content.startswith("]", position):
            end = _skip_blanks(content, position + 1)
            if end < len(content):
                raise json.JSONDecodeError("Extra data", content, end)
            return
        else:
            raise json.JSONDecodeError("Expecting ',' or ']'", content, position)


def _find_rows(document: Any, path: Path) -> list[NumberedObject]:
    """Return the rows of a document that is not a list, numbered from 1.

    Raises:
        DataError: when it is ambiguous which they are.
    """
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        of_objects = [rows for rows in lists if rows and all(isinstance(row, dict) for row in rows)]
        if len(of_objects) == 1:
            return list(enumerate(of_objects[0], start=1))
        columns = [
            list(value.values()) if isinstance(value, dict) else value
            for value in document.values()
            if isinstance(value, list | dict)
        ]
        lengths = {len(column) for column in columns}
        if len(columns) == len(document) and len(lengths) == 1 and not of_objects:
            return [
                (number, dict(zip(document, cells, strict=True)))
                for number, cells in enumerate(zip(*columns, strict=True), start=1)
            ]
        if columns == []:
            return [(1, document)]
    raise DataError(
        f"The document is a JSON {type(document).__name__} in which the rows cannot be identified",
        where=str(path),
        expected="a list of objects, an object with one list of objects, or an object of equally long columns",
        code="file-json",
    )
