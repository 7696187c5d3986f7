"""Reads JSON lines and JSON documents.

A document is a list of objects, an object that holds one such list, or an object of columns (lists of equal length, or
pandas' objects by row number). A line that is no JSON object is a broken row; a broken document is a broken file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from sentifactory.corpus.columns import Columns
from sentifactory.corpus.delimited import refuse_empty
from sentifactory.corpus.encodings import TextFile
from sentifactory.corpus.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_ROW_CHARS,
    check_depth,
    describe_long,
    is_long,
    iter_lines,
    shorten,
)
from sentifactory.corpus.tables import BrokenRow, RawRow, Table, make_row
from sentifactory.errors import DataError

# Objects may lack a key: the names of this many together are the header.
HEADER_ROWS = 1000
_BLANKS = " \t\n\r"

_BEGINNING = 4096
_LIST = re.compile(r"\s*\[\s*\{")
_OBJECT = re.compile(r'\s*(\[\s*)?\{\s*"[^"\n]*"\s*:')

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
            f"The lines are no JSON objects: {broken.detail}",
            where=f"{text.path}, line {broken.line}",
            expected='one object a line, such as {"text": "很好", "label": 1}',
        )

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        with text.open(newline="\n") as stream:
            yield from _pick_cells(iter_objects(stream), header, columns)

    # The sign for half a character (a lone surrogate) can be written in any JSON string.
    return Table("jsonl", text.encoding, header, str(text.path), False, text.sha256, iter_rows)


def iter_objects(stream: TextIO) -> Iterator[NumberedObject]:
    """Yield the object of each line with the line's number, from 1; blank lines are passed over."""
    for number, line in enumerate(iter_lines(stream), start=1):
        if line.isspace():
            continue
        if is_long(line):
            yield BrokenRow(number, describe_long("row", MAX_ROW_CHARS), shorten(line))
            continue
        try:
            found = _DECODER.decode(line)
            check_depth(found, line)
        except (ValueError, RecursionError) as error:
            yield BrokenRow(number, _describe_fault(error), shorten(line.rstrip("\r\n")))
            continue
        if isinstance(found, dict):
            yield number, found
        else:
            fault = f"the line is a JSON {type(found).__name__}, no object"
            yield BrokenRow(number, fault, shorten(line.rstrip("\r\n")))


def _describe_fault(error: Exception) -> str:
    if isinstance(error, _RepeatedKeyError):
        return f"the key {str(error)!r} stands twice"
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON ({error.msg} at character {error.pos + 1})"
    return "no JSON that can be read (nested too deep, or a number too long)"


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


def looks_like_json(text: TextFile) -> bool:
    """Return whether a file of another name holds a JSON document or JSON lines, as training data in .txt often do."""
    with text.open() as stream:
        begins = stream.read(_BEGINNING).lstrip("\ufeff")
    if text.path.suffix.lower() in (".jsonl", ".ndjson"):
        return _LIST.match(begins) is not None
    return _OBJECT.match(begins) is not None


def open_json(text: TextFile) -> Table:
    """Open a JSON document, or a file of JSON lines that ends in .json.

    Raises:
        DataError: when it is empty, broken, or holds no rows.
    """
    if text.path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise DataError(
            f"A JSON document is read as a whole, and this one has more than {MAX_DOCUMENT_BYTES >> 20} MiB",
            where=str(text.path),
            next_step="save it as JSON lines, one object a line",
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
            document, end = _DECODER.raw_decode(content, start)
            check_depth(document, content)
            if _skip_blanks(content, end) < len(content):
                return open_json_lines(text)
            rows = _find_rows(document, text.path)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"The document cannot be read: {_describe_fault(error)}",
            where=f"{text.path}{line}",
            expected="a list of objects, each with a text and a label",
        ) from None
    header = collect_keys(rows)
    if not header:
        raise DataError("The document holds no rows", where=str(text.path), expected="a list of objects")
    return Table("json", text.encoding, header, str(text.path), False, text.sha256, partial(_pick_cells, rows, header))


def _skip_blanks(content: str, position: int) -> int:
    while position < len(content) and content[position] in _BLANKS:
        position += 1
    return position


def _iter_elements(content: str, position: int) -> Iterator[NumberedObject]:
    """Yield the elements of the list that is open at a position, each with the line on which it begins.

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
        element, end = _DECODER.raw_decode(content, position)
        check_depth(element, content[position:end])
        if isinstance(element, dict):
            yield line, element
        else:
            yield BrokenRow(line, f"the element is a JSON {type(element).__name__}, no object", content[position:end])
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
    """Return the rows of a document that is no list; they are numbered from 1.

    Raises:
        DataError: when it is not clear which they are.
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
        f"The document is a JSON {type(document).__name__} in which the rows cannot be told",
        where=str(path),
        expected="a list of objects, an object with one list of objects, or an object of equally long columns",
    )
