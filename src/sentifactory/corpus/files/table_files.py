"""Reads Parquet and Arrow files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentifactory.corpus.files.columns import Columns
from sentifactory.corpus.files.limits import MAX_RATIO, MAX_UNPACKED_BYTES, find_max_unpacked
from sentifactory.corpus.files.tables import BrokenRow, RawRow, Table, make_row
from sentifactory.errors import ConfigError, DataError
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import parse_json

BATCH_ROWS = 16_384
PARQUET_FILE, _ARROW_FILE = "a Parquet file", "an Arrow file"
# Of an unpacked batch: a file of one long text in a dictionary, and many rows that refer to it, is very small.
_BATCH_BYTES = 1 << 25


def open_parquet(path: Path) -> Table:
    """Open a Parquet file; its rows are numbered from 1.

    Raises:
        DataError: when it is broken.
        ConfigError: when pyarrow is not installed.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise _ask_for_package("pyarrow", path) from error
    with explain_broken(PARQUET_FILE, path):
        with ParquetFile(path) as file:
            header, class_names = list(file.schema_arrow.names), read_class_names(file.schema_arrow)
        batch_rows = find_batch_rows(path)

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        wanted = pick_names(header, columns)
        with explain_broken(PARQUET_FILE, path), ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=batch_rows, columns=wanted and list(dict.fromkeys(wanted)))
            yield from iter_batches(watch_unpacked(batches, path), wanted, class_names)

    return Table("parquet", None, header, str(path), True, hash_file(path), iter_rows)


def find_batch_rows(path: Path) -> int:
    """Return how many rows of a Parquet file to read at once, by the longest text in its dictionaries.

    Raises:
        DataError: when its metadata state a size beyond the limit.
        ArrowException: when it is broken.
    """
    from pyarrow import compute, types
    from pyarrow.parquet import ParquetFile

    limit = find_max_unpacked(path.stat().st_size)
    longest = 1
    with ParquetFile(path) as file:
        schema, n_groups = file.schema_arrow, file.num_row_groups
        stated = (file.metadata.row_group(group).total_byte_size for group in range(n_groups))
        if sum(stated) > limit:
            raise _describe_oversize(path, limit)
    texts = [field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)]
    with ParquetFile(path, read_dictionary=texts) as file:
        for group in range(n_groups if texts else 0):
            batch = next(file.iter_batches(batch_size=1, row_groups=[group], columns=texts), None)
            for column in batch.columns if batch is not None else ():
                if types.is_dictionary(column.type) and len(column.dictionary):
                    longest = max(longest, compute.max(compute.binary_length(column.dictionary)).as_py() or 1)
    return max(1, min(BATCH_ROWS, _BATCH_BYTES // longest))


def watch_unpacked(batches: Any, path: Path) -> Iterator[Any]:
    """Yield the batches of a file.

    Raises:
        DataError: when they are larger in total than the limit for the size of the file.
    """
    limit = find_max_unpacked(path.stat().st_size)
    n_bytes = 0
    for batch in batches:
        n_bytes += batch.nbytes
        if n_bytes > limit:
            raise _describe_oversize(path, limit)
        yield batch


def _describe_oversize(path: Path, limit: int) -> DataError:
    return DataError(
        f"The unpacked file is larger than {limit >> 20} MiB, which is too much for its size",
        where=str(path),
        expected=f"at most {MAX_RATIO} times its size, and {MAX_UNPACKED_BYTES >> 30} GiB",
        next_step="save the reviews as CSV in UTF-8",
        code="file-too-large",
    )


def open_arrow(path: Path) -> Table:
    """Open an Arrow file that `Dataset.save_to_disk` of the library datasets wrote; its rows are numbered from 1.

    Raises:
        DataError: when it is broken.
        ConfigError: when pyarrow is not installed.
    """
    try:
        from pyarrow import ipc
    except ImportError as error:
        raise _ask_for_package("pyarrow", path) from error
    with explain_broken(_ARROW_FILE, path), path.open("rb") as stream:
        schema = ipc.open_stream(stream).schema
    header, class_names = list(schema.names), read_class_names(schema)

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        wanted = pick_names(header, columns)
        with explain_broken(_ARROW_FILE, path), path.open("rb") as stream:
            yield from iter_batches(ipc.open_stream(stream), wanted, class_names)

    return Table("arrow", None, header, str(path), True, hash_file(path), iter_rows)


def pick_names(header: Sequence[str], columns: Columns) -> list[str] | None:
    """Return the names of the text, label and (if there is one) domain columns; None: all, for chats."""
    if columns.has_chats:
        return None
    return [header[at] for at in (columns.text, columns.label, columns.domain) if at is not None]


def read_class_names(schema: Any) -> dict[str, list[str]]:
    """Return the class names by column, in the order of their numbers.

    The library datasets writes them (`ClassLabel`) into the schema of its files, whose cells are numbers.
    """
    try:
        features = parse_json(schema.metadata[b"huggingface"].decode())["info"]["features"]
        stated = {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):  # no metadata, or of another kind
        return {}
    return {name: names for name, names in stated.items() if isinstance(names, list)}


def iter_batches(
    batches: Any, names: Sequence[str] | None, class_names: Mapping[str, Sequence[str]]
) -> Iterator[RawRow | BrokenRow]:
    """Yield the rows of Arrow record batches, numbered from 1.

    Args:
        batches: record batches.
        names: the text, label and (if there is one) domain columns; None: the rows hold chats, and each is passed on
            whole, as JSON.
        class_names: names of the classes by column, which replace the numbers in it.
    """
    number = 0
    for batch in batches:
        wanted = batch.schema.names if names is None else names
        cells = [_read_cells(batch.column(name), class_names.get(name)) for name in wanted]
        if names is not None and len(cells) == 2:
            cells.append([""] * len(cells[0]))
        for row in zip(*cells, strict=True):
            number += 1
            if names is None:
                whole = json.dumps(dict(zip(wanted, row, strict=True)), ensure_ascii=False, default=str)
                yield RawRow(number, whole, "", "")
            else:
                yield make_row(number, *row)


def _read_cells(column: Any, class_names: Sequence[str] | None) -> list[Any]:
    """Return the cells of a column; class numbers become names, and -1, which hides a label, becomes None."""
    cells: list[Any] = column.to_pylist()
    if class_names is None:
        return cells
    named: dict[Any, Any] = {number: str(name) for number, name in enumerate(class_names)} | {-1: None}
    return [
        # A column with gaps comes back from pandas as floats.
        named.get(cell, f"class {cell:g}")
        if isinstance(cell, int | float) and not isinstance(cell, bool) and cell == cell
        else cell
        for cell in cells
    ]


def _ask_for_package(package: str, path: Path) -> ConfigError:
    return ConfigError(
        f"The package {package} is needed to read this file, and it is not installed",
        where=str(path),
        next_step=f"pip install {package}, or save the reviews as CSV in UTF-8",
        code="package-missing",
    )


@contextmanager
def explain_broken(kind: str, path: Path) -> Iterator[None]:
    """Turn the errors of pyarrow for a broken file (truncated, a broken page, invalid UTF-8) into a DataError."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise describe_broken(kind, path, error) from error


def describe_broken(kind: str, path: Path, error: Exception) -> DataError:
    """Return the error for a file that cannot be read as the format of its name or its first bytes."""
    why = " ".join(str(error).split())
    return DataError(
        f"This is not {kind} that can be read ({why[:120]})",
        where=str(path),
        next_step="save it again, or save the reviews as CSV in UTF-8",
        code="file-broken",
    )
