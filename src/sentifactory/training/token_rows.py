"""Goes through tokenised data row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_ROWS_AT_A_TIME = 1000


def iter_token_rows(dataset: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the numbers (T,) of the columns of each row, as arrays."""
    # Arrow's own arrays: the numpy format of datasets imports what this torchvision no longer has.
    for table in dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME):
        for cells in zip(*(table[column] for column in columns), strict=True):
            yield tuple(cell.values.to_numpy() for cell in cells)
