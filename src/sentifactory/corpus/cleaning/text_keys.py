"""Comparison keys of many texts at once: equal to `clean_text.normalise_text` of each, and several times as fast.

Characters that normalise to one character whatever their neighbours are looked up in a table, for all texts in one
array. A text with any other character (combining marks, ligatures, rare scripts) is normalised on its own, and so is
one of punctuation alone, which is compared by its punctuation.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sentifactory.clean_text import normalise_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK = 20_000
_TABLE_SIZE = 0x20000
_DROPPED = 0
_RARE = _TABLE_SIZE  # not a character: marks those that cannot be looked up
# All ideographs of these blocks normalise to themselves.
_IDEOGRAPHS = ((0x3400, 0x4DC0), (0x4E00, 0xA000))
# Latin with its punctuation, symbols, kana, full-width forms, emoji.
_LOOKED_UP = (
    (0x20, 0x300),
    (0x2000, 0x2100),
    (0x2190, 0x2800),
    (0x3000, 0x3100),
    (0xFF00, 0xFF66),
    (0x1F000, 0x1FB00),
)


def make_keys(texts: Sequence[str]) -> list[str]:
    """Return `normalise_text` of each text.

    Example:
        >>> make_keys(["ＯＫ， 很好！！", ":)"])
        ['ok很好', ':)']
    """
    keys: list[str] = []
    for start in range(0, len(texts), _CHUNK):
        keys += _make_chunk(texts[start : start + _CHUNK])
    return keys


def _make_chunk(texts: Sequence[str]) -> list[str]:
    import numpy as np

    codes, lengths = encode_texts(texts)
    ends = np.cumsum(lengths)
    mapped = _build_table()[np.minimum(codes, _TABLE_SIZE)]
    n_rare = np.concatenate(([0], np.cumsum(mapped == _RARE)))
    is_kept = mapped != _DROPPED
    n_kept = np.concatenate(([0], np.cumsum(is_kept)))
    joined = mapped[is_kept].astype("<u4").tobytes()
    is_slow = (n_rare[ends] != n_rare[ends - lengths]) | (n_kept[ends] == n_kept[ends - lengths])
    cuts = [4 * int(cut) for cut in (0, *n_kept[ends])]
    return [
        normalise_text(text) if slow else joined[start:end].decode("utf-32-le")
        for text, slow, start, end in zip(texts, is_slow.tolist(), cuts[:-1], cuts[1:], strict=True)
    ]


def encode_texts(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the code points of all texts in one array, and the length of each text."""
    import numpy as np

    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32), lengths


@cache
def _build_table() -> NDArray[np.uint32]:
    """Return for each code point its normalised code point, _DROPPED or _RARE; the last entry is for all above."""
    import numpy as np

    table: Any = np.full(_TABLE_SIZE + 1, _RARE, np.uint32)
    for first, end in _IDEOGRAPHS:
        table[first:end] = np.arange(first, end)
    for first, end in _LOOKED_UP:
        for code in range(first, end):
            table[code] = _look_up(chr(code))
    return table


def _look_up(char: str) -> int:
    """Return the code point that a character normalises to; _RARE if that depends on its neighbours."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", char).casefold())
    if len(folded) != 1 or unicodedata.category(char)[0] in "MC" or unicodedata.category(folded)[0] in "MC":
        return _RARE
    # After a word, punctuation is dropped.
    return ord(normalise_text(f"a{char}")[1:] or "\0")
