"""Says what a file is by its first bytes: people rename workbooks to .csv, and programs write text as .xls."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from sentifactory.errors import DataError

EXCEL, PARQUET, TEXT = "excel", "parquet", "text"
_HEAD_BYTES = 1024
_ZIP = b"PK"
_PARQUET = b"PAR1"
_COMPOUND = b"\xd0\xcf\x11\xe0"
_GZIP = b"\x1f\x8b"
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARKUP = re.compile(rb"\s*<(?:!|\?xml|(?:html|head|meta|body|table|div|style|script)\b)", re.IGNORECASE)


def find_kind(path: Path) -> str:
    """Return what a file is: a workbook, Parquet, or text of some kind.

    Raises:
        DataError: when it is none of these, or cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"The file cannot be read ({error.strerror})", where=str(path)) from error
    if head.startswith(_ZIP) and head[2:3] in (b"\x03", b"\x05"):
        return EXCEL
    if head.startswith(_PARQUET):
        return PARQUET
    if head.startswith(_COMPOUND):
        raise DataError(
            "This is a workbook of the old kind (.xls), or one with a password",
            where=str(path),
            next_step="open it in Excel or WPS and save it as .xlsx without a password",
        )
    if head.startswith(_GZIP):
        raise DataError("The file is compressed with gzip", where=str(path), next_step="unpack it")
    for mark in _MARKS:
        head = head.removeprefix(mark)
    if _MARKUP.match(head.replace(b"\0", b"")):
        raise DataError(
            "This is a web page or another file of markup, whatever its name",
            where=str(path),
            next_step="open it in Excel or WPS and save it as .xlsx, or as CSV in UTF-8",
        )
    return TEXT
