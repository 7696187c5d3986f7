"""Reads Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sentifactory.corpus.columns import Columns
from sentifactory.corpus.manifest import hash_file
from sentifactory.corpus.tables import BrokenRow, RawRow, Table, make_row
from sentifactory.errors import ConfigError, DataError

BATCH_ROWS = 16_384


def open_parquet(path: Path) -> Table:
    """Open a Parquet file; its rows are numbered from 1.

    Raises:
        DataError: when it is broken.
        ConfigError: when pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise _ask_for_package("pyarrow", path) from error
    try:
        with ParquetFile(path) as file:
            header = list(file.schema_arrow.names)
    except (ArrowException, OSError) as error:
        raise describe_broken("a Parquet file", path, error) from error

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        names = [header[at] for at in (columns.text, columns.label, columns.domain) if at is not None]
        try:
            with ParquetFile(path) as file:
                batches = file.iter_batches(batch_size=BATCH_ROWS, columns=list(dict.fromkeys(names)))
                yield from iter_batches(batches, names, has_chats=columns.has_chats)
        except (ArrowException, OSError) as error:
            raise describe_broken("a Parquet file", path, error) from error

    return Table("parquet", None, header, str(path), True, hash_file(path), iter_rows)


def iter_batches(batches: Any, names: Sequence[str], *, has_chats: bool = False) -> Iterator[RawRow | BrokenRow]:
    """Yield the rows of Arrow record batches, numbered from 1.

    Args:
        batches: record batches.
        names: the columns of text and label, and of the domain if there is one.
        has_chats: whether the texts are chats.
    """
    number = 0
    for batch in batches:
        cells = [batch.column(name).to_pylist() for name in names]
        if len(cells) == 2:
            cells.append([""] * len(cells[0]))
        for text, label, domain in zip(*cells, strict=True):
            number += 1
            if has_chats:
                yield RawRow(number, json.dumps(text, ensure_ascii=False, default=str), "", "")
                continue
            yield make_row(number, text, label, domain)


def _ask_for_package(package: str, path: Path) -> ConfigError:
    return ConfigError(
        f"The package {package} is needed to read this file, and it is not installed",
        where=str(path),
        next_step=f"pip install {package}, or save the reviews as CSV in UTF-8",
    )


def describe_broken(kind: str, path: Path, error: Exception) -> DataError:
    """Return the error for a file that is not of the kind that its name or its first bytes promise."""
    why = " ".join(str(error).split())
    return DataError(
        f"This is not {kind} that can be read ({why[:120]})",
        where=str(path),
        next_step="save it again, or save the reviews as CSV in UTF-8",
    )
