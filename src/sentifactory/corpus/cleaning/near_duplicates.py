"""Finds near duplicates: pairs of texts that differ in about one character in ten.

Candidates come from MinHash (rensa) over the character bigrams of each comparison key, in bands of locality-sensitive
hashing; each candidate is then verified by its edit distance (rapidfuzz). The rule, by the length of the longer key
(`clean_text.normalise_text`: without punctuation, spaces, case and width):

- under 8 characters: never; only exact duplicates count;
- 8 to 15: one character substituted, deleted or inserted;
- from 16 on: at least 0.8 similar, where similarity = 1 - edit distance / length.

Shorter texts are excluded because one in ten of 7 characters is less than one character, and because in short reviews
one character can reverse the opinion ("味道不错", "味道不好"); thousands of people write such reviews independently.
At least 95 % of synthetic near duplicates are found if both texts have 8 or more characters.

With 40 bands of 4 rows a pair that shares half of its shingles is a candidate with probability 92 %, one that shares
0.6 with 99.6 % (substituting one character in ten leaves 0.68), and one that shares a tenth with 0.4 %. Not covered:
paraphrases, and reviews quoted within longer texts (`containment` finds those in training prompts).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentifactory.corpus.cleaning.text_keys import encode_texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_CHARS = 8
LOOSE_CHARS = 16
MIN_SIMILARITY = 0.8
_CHARS_PER_EDIT = 5  # 1 / (1 - MIN_SIMILARITY)
_BANDS = 40
_ROWS = 4
_SEED = 42  # of the hash functions, independent of the seed of the split
_CHUNK = 10_000
_BITS = 21  # of a code point
# Texts with the same band hash are compared with this many neighbours in sorted order only: thousands of variants of
# one template still form one group, neighbour by neighbour, without quadratic cost.
_NEIGHBOURS = 64
_BATCH = 4_000_000
# The cost of the edit distance is quadratic in the length: only the beginning of longer texts is compared.
_COMPARED_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Pairs of near duplicates.

    Attributes:
        left: (n_pairs,) positions in the list of keys.
        right: (n_pairs,) positions of the others; left < right.
        similarity: (n_pairs,) 1 - edit distance / length of the longer key.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    similarity: NDArray[np.float64]


def find_near_pairs(keys: Sequence[str], sides: NDArray[np.int64] | None = None) -> NearPairs:
    """Return the pairs of near duplicates in a list of comparison keys, by position.

    Args:
        keys: distinct keys from `text_keys.make_keys`.
        sides: (n_keys,) numbers; only pairs with different numbers are returned. None: all pairs.
    """
    import numpy as np

    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    order = sorted(np.flatnonzero(lengths >= MIN_CHARS - 1).tolist(), key=keys.__getitem__)
    places = np.array(order, np.int64)
    texts = [keys[place] for place in order]
    bands = _sketch_all(texts)
    found = [_empty_pairs()]
    for left, right in _iter_candidates(bands, lengths[places], None if sides is None else sides[places]):
        found.append(_verify(texts, left, right, lengths[places]))
    left = places[np.concatenate([pairs.left for pairs in found])]
    right = places[np.concatenate([pairs.right for pairs in found])]
    similarity = np.concatenate([pairs.similarity for pairs in found])
    codes = np.minimum(left, right) * len(keys) + np.maximum(left, right)
    codes, first = np.unique(codes, return_index=True)
    return NearPairs(codes // max(len(keys), 1), codes % max(len(keys), 1), similarity[first])


def join_groups(n_keys: int, pairs: NearPairs) -> NDArray[np.int64]:
    """Return the group of each key: a connected component of the pairs."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(pairs.left), np.int8), (pairs.left, pairs.right)), shape=(n_keys, n_keys))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def describe_rule() -> dict[str, float | int]:
    """Return the rule for the manifest."""
    return {"min_chars": MIN_CHARS, "one_edit_below_chars": LOOSE_CHARS, "min_similarity": MIN_SIMILARITY}


def _empty_pairs() -> NearPairs:
    import numpy as np

    return NearPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def _sketch_all(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return (n_texts, _BANDS) band hashes: two texts that agree in one of them are candidates."""
    import numpy as np

    bands = np.empty((_BANDS, len(texts)), np.uint32)
    for start in range(0, len(texts), _CHUNK):
        bands[:, start : start + _CHUNK] = _sketch(texts[start : start + _CHUNK])
    return bands.T


def _sketch(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return the (_BANDS, n_texts) band hashes of a chunk."""
    import numpy as np
    from rensa import RMinHash

    codes, lengths = encode_texts(texts)
    ends = np.cumsum(lengths)
    shingles = codes.astype(np.uint64)
    shingles[1:] |= shingles[:-1] << np.uint64(_BITS)
    # The first character of a text is a shingle by itself, not with the last one of the previous text.
    starts = ends - lengths
    shingles[starts] = codes[starts]
    offsets = np.concatenate(([0], ends)).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(_mix(shingles), offsets, _BANDS * _ROWS, _SEED)
    digests = np.array(matrix.to_rows(), np.uint32).reshape(len(texts), _BANDS, _ROWS)
    hashes = np.zeros((len(texts), _BANDS), np.uint64)
    for row in range(_ROWS):
        hashes = _mix((hashes << np.uint64(1)) + hashes + digests[:, :, row] + np.uint64(row + 1))
    return (hashes >> np.uint64(32)).astype(np.uint32).T


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64 well-mixed bits of each value (the finaliser of SplitMix64)."""
    import numpy as np

    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _iter_candidates(
    bands: NDArray[np.uint32], lengths: NDArray[np.int64], sides: NDArray[np.int64] | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield candidates in batches; a pair may occur in several batches."""
    import numpy as np

    n_texts = len(lengths)
    pending: list[NDArray[np.int64]] = []
    n_pending = 0
    for band in range(_BANDS):
        for one, other in _iter_collisions(bands[:, band]):
            longer = np.maximum(lengths[one], lengths[other])
            is_possible = np.abs(lengths[one] - lengths[other]) <= _count_allowed(longer)
            if sides is not None:
                is_possible &= sides[one] != sides[other]
            one, other = one[is_possible], other[is_possible]
            pending.append(np.minimum(one, other) * n_texts + np.maximum(one, other))
            n_pending += len(one)
        if n_pending and (n_pending >= _BATCH or band == _BANDS - 1):
            codes = np.unique(np.concatenate(pending))
            pending, n_pending = [], 0
            for start in range(0, len(codes), _BATCH):
                yield codes[start : start + _BATCH] // n_texts, codes[start : start + _BATCH] % n_texts


def _iter_collisions(hashes: NDArray[np.uint32]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs of positions with the same hash, by their distance in the order of the texts."""
    import numpy as np

    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    is_same = ordered[1:] == ordered[:-1]
    for distance in range(1, _NEIGHBOURS + 1):
        if not is_same.any():
            return
        first = np.flatnonzero(is_same)
        yield order[first], order[first + distance]
        # The same hash at this distance, for this text and the next, means the same hash at the next distance.
        is_same = is_same[:-1] & (ordered[distance + 1 :] == ordered[distance:-1])


def _verify(
    texts: Sequence[str], left: NDArray[np.int64], right: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NearPairs:
    """Return the candidates that are near duplicates."""
    import numpy as np
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    longer = np.minimum(np.maximum(lengths[left], lengths[right]), _COMPARED_CHARS)
    distances = np.empty(len(left), np.int64)
    for start in range(0, len(left), _CHUNK * 10):
        chunk = slice(start, start + _CHUNK * 10)
        ones = [texts[place][:_COMPARED_CHARS] for place in left[chunk].tolist()]
        others = [texts[place][:_COMPARED_CHARS] for place in right[chunk].tolist()]
        distances[chunk] = cpdist(ones, others, scorer=Levenshtein.distance, dtype=np.int32)
    is_near = distances <= _count_allowed(longer)
    return NearPairs(left[is_near], right[is_near], 1 - distances[is_near] / longer[is_near])


def _count_allowed(longer: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the maximum edit distance of near duplicates of each length; -1: none are near duplicates."""
    import numpy as np

    return np.where(longer < LOOSE_CHARS, np.where(longer < MIN_CHARS, -1, 1), longer // _CHARS_PER_EDIT)
