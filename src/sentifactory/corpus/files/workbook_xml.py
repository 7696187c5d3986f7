"""Streams the XML parts of a workbook, with limits on what is unpacked and held in memory."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element, ParseError, iterparse

from sentifactory.corpus.files.limits import MAX_RATIO, find_max_unpacked
from sentifactory.system.json_text import MAX_DEPTH

READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    ParseError,
    OSError,
    LookupError,
    ValueError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
)
CHUNK_BYTES = 1 << 20
# Limits on what is in memory of a part at once, such as a row: 16,384 cells at most, of some elements each.
_MAX_ELEMENTS = 250_000
_MAX_OPEN_BYTES = 1 << 25
_DOCTYPE = b"<!DOCTYPE"
# ECMA-376, 22.4.2.4: characters that XML cannot hold are escaped as UTF-16 code units; _x005F_ is a literal underscore
# in a text that looks like an escape.
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")


class WorkbookArchive(zipfile.ZipFile):
    """A zip archive with a limit on the bytes that are unpacked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._left = find_max_unpacked(path.stat().st_size)

    def take(self, n_bytes: int) -> None:
        """Count unpacked bytes of any part.

        Raises:
            ValueError: when the total exceeds the limit for the size of the file.
        """
        self._left -= n_bytes
        if self._left < 0:
            raise ValueError(f"unpacked, it is more than {MAX_RATIO} times as large, or too large in total")


class _PartReader:
    """Reads a part of a workbook for a parser, with a limit on the bytes of one row."""

    def __init__(self, archive: WorkbookArchive, stream: IO[bytes]) -> None:
        self._archive = archive
        self._stream = stream
        self._n_open = 0
        self._before_root: bytes | None = b""

    def read(self, n_bytes: int = -1, /) -> bytes:
        """Return the next bytes.

        Raises:
            ValueError: when they are too many, or declare a document type, whose entities could expand to many more.
        """
        chunk = self._stream.read(n_bytes)
        self._archive.take(len(chunk))
        self._n_open += len(chunk)
        if self._n_open > _MAX_OPEN_BYTES:
            raise ValueError(f"one of its rows takes more than {_MAX_OPEN_BYTES >> 20} MiB")
        if self._before_root is not None:
            self._before_root += chunk.replace(b"\0", b"")
            if _DOCTYPE in self._before_root:
                raise ValueError("it holds a document type, which workbooks do not have")
        return chunk

    def begin(self) -> None:
        """Note that the root element was reached, after which there is no document type."""
        self._before_root = None

    def close_row(self) -> None:
        """Note that a row was processed, and reset the limit."""
        self._n_open = 0


def iter_elements(archive: WorkbookArchive, part: str | None, *names: str) -> Iterator[Element]:
    """Yield the elements of a part that have one of the names, in any namespace; none if there is no such part."""
    if part is None or part not in archive.NameToInfo:
        return
    parents: list[Element] = []
    n_wanted = n_elements = 0
    with archive.open(part) as stream:
        source = _PartReader(archive, stream)
        for event, element in iterparse(source, ("start", "end")):  # noqa: S314  # no document type, no entities
            is_wanted = get_name(element) in names
            if event == "start":
                source.begin()
                parents.append(element)
                n_wanted += is_wanted
                n_elements += 1
                if n_elements > _MAX_ELEMENTS or len(parents) > MAX_DEPTH:
                    raise ValueError("one of its rows has too many elements")
                continue
            parents.pop()
            n_wanted -= is_wanted
            if is_wanted:
                yield element
            if parents and not n_wanted:
                parents[-1].clear()  # frees the memory of processed elements
                n_elements = 0
                source.close_row()


def get_name(element: Element) -> str:
    """Return the tag of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def find_child(element: Element, name: str) -> Element | None:
    """Return the first child with a name, in any namespace."""
    return next((child for child in element if get_name(child) == name), None)


def read_text(element: Element) -> str:
    """Return the text of a string in all its runs, without phonetic runs."""
    if get_name(element) == "t":
        return element.text or ""
    return "".join(read_text(child) for child in element if get_name(child) in ("t", "r"))


def unescape(text: str) -> str:
    r"""Return a text of a workbook as Excel shows it, with line ends normalised.

    Example:
        >>> unescape("很好_x000D_\n真的_x005F_x000D_")
        '很好\n真的_x000D_'
    """
    if "_x" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
        if any("\ud800" <= char <= "\udfff" for char in text):  # two code units may be one character
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text.replace("\r\n", "\n").replace("\r", "\n")
