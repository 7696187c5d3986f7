"""Opens a file of any format as a table.

The first bytes decide on the format: people rename workbooks to .csv, and programs write text as .xls.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from pathlib import Path

from sentifactory.corpus.files.delimited import open_delimited
from sentifactory.corpus.files.encodings import TextFile, inspect_text
from sentifactory.corpus.files.json_files import open_json, open_json_lines
from sentifactory.corpus.files.table_files import describe_broken, open_arrow, open_parquet
from sentifactory.corpus.files.tables import Table
from sentifactory.corpus.files.workbooks import open_excel
from sentifactory.errors import DataError

EXCEL, PARQUET, TEXT = "excel", "parquet", "text"
DELIMITED_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")
_HEAD_BYTES = 1024
_ZIP = b"PK"
_PARQUET = b"PAR1"
_COMPOUND = b"\xd0\xcf\x11\xe0"
_GZIP = b"\x1f\x8b"
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARKUP = re.compile(rb"\s*<(?:!|\?xml|(?:html|head|meta|body|table|div|style|script)\b)", re.IGNORECASE)
_TEXT_OPENERS: dict[str, Callable[..., Table]] = {
    **dict.fromkeys(DELIMITED_SUFFIXES, open_delimited),
    **dict.fromkeys(JSON_LINES_SUFFIXES, open_json_lines),
    ".json": open_json,
}
_BINARY_OPENERS: dict[str, Callable[[Path], Table]] = {PARQUET: open_parquet, EXCEL: open_excel}
_EXCEL_SUFFIXES = (".xlsx", ".xlsm", ".xls")
_ARROW_SUFFIX = ".arrow"
FILE_SUFFIXES = frozenset({*_TEXT_OPENERS, *PARQUET_SUFFIXES, *_EXCEL_SUFFIXES, _ARROW_SUFFIX})
_BEGINNING = 4096
_LIST = re.compile(r"\s*\[\s*\{")
_OBJECT = re.compile(r'\s*(\[\s*)?\{\s*"[^"\n]*"\s*:')


def open_file(path: Path, encoding: str | None = None) -> Table:
    """Open a file as a table.

    Args:
        path: the file.
        encoding: that of a text file; None: it is detected.

    Raises:
        DataError: when the file is missing, empty, broken or of another kind.
        ConfigError: when there is no such encoding, or a package is missing.
    """
    suffix = path.suffix.lower()
    kinds = ".csv, .tsv, .jsonl, .json, .parquet or .xlsx"
    if not path.exists():
        raise DataError("The file does not exist", where=str(path), next_step="check the path", code="file-gone")
    if not path.is_file():
        raise DataError("This is not a file", where=str(path), expected=f"a {kinds} file", code="file-unreadable")
    if suffix not in FILE_SUFFIXES:
        raise DataError(
            f"Files of the kind {path.suffix or 'without an ending'!r} are not read",
            where=str(path),
            expected=f"a {kinds} file",
            next_step="export the reviews as CSV in UTF-8",
            code="file-kind",
        )
    if path.stat().st_size == 0:
        raise DataError(
            "The file is empty",
            where=str(path),
            expected="a header and reviews, as in label,review",
            code="file-empty",
        )
    if suffix == _ARROW_SUFFIX:
        return open_arrow(path)
    kind = find_kind(path)
    if kind == TEXT and suffix in _EXCEL_SUFFIXES:
        return _open_text_of_workbook(path, encoding)
    kind = PARQUET if suffix in PARQUET_SUFFIXES else kind
    if kind in _BINARY_OPENERS:
        return _BINARY_OPENERS[kind](path)
    text = inspect_text(path, encoding)
    return open_json(text) if looks_like_json(text) else _TEXT_OPENERS[suffix](text)


def find_kind(path: Path) -> str:
    """Return the kind of a file by its first bytes: a workbook, Parquet, or text.

    Raises:
        DataError: when it is none of these, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(
            f"The file cannot be read ({error.strerror})", where=str(path), code="file-unreadable"
        ) from error
    if head.startswith(_ZIP) and head[2:3] in (b"\x03", b"\x05"):
        return EXCEL
    if head.startswith(_PARQUET):
        return PARQUET
    if head.startswith(_COMPOUND):
        raise DataError(
            "This is a workbook in the old format (.xls), or one with a password",
            where=str(path),
            next_step="open it in Excel or WPS and save it as .xlsx without a password",
            code="workbook-old",
        )
    if head.startswith(_GZIP):
        raise DataError(
            "The file is compressed with gzip", where=str(path), next_step="unpack it", code="file-compressed"
        )
    for mark in _MARKS:
        head = head.removeprefix(mark)
    if _MARKUP.match(head.replace(b"\0", b"")):
        raise DataError(
            "This is a web page or another markup file, whatever its name",
            where=str(path),
            next_step="open it in Excel or WPS and save it as .xlsx, or as CSV in UTF-8",
            code="file-markup",
        )
    return TEXT


def looks_like_json(text: TextFile) -> bool:
    """Whether a file holds a JSON document or JSON lines although its suffix says otherwise, such as .txt."""
    with text.open() as stream:
        begins = stream.read(_BEGINNING).lstrip("\ufeff")
    if text.path.suffix.lower() in JSON_LINES_SUFFIXES:
        return _LIST.match(begins) is not None
    return _OBJECT.match(begins) is not None


def _open_text_of_workbook(path: Path, encoding: str | None) -> Table:
    """Open a delimited text file that a program named like a workbook so that Excel opens it.

    Raises:
        DataError: when it is not a table.
    """
    try:
        table = open_delimited(inspect_text(path, encoding))
    except DataError:
        table = None
    if table is None or len(table.header) == 1:
        raise describe_broken("an Excel workbook", path, ValueError("nor is it a CSV or TSV file"))
    return table
