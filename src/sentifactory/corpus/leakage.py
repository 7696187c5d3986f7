"""Finds the reviews of a test part that training has seen: word for word after normalisation, or nearly so.

`shared_texts` says what is the same text, and what nearly the same; `containment` what stands within a prompt or
another text that is trained on. Not covered: reviews that only mean the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sentifactory.atomic import refuse_endangered
from sentifactory.corpus.cleaning import clean_text
from sentifactory.corpus.containment import NEARLY, Passage, find_contained, list_pieces
from sentifactory.corpus.export import write_reviews
from sentifactory.corpus.intake import ReadOptions
from sentifactory.corpus.keys import make_keys
from sentifactory.corpus.near import MIN_CHARS
from sentifactory.corpus.readers import read_reviews, read_seen
from sentifactory.corpus.seen import SeenFile, join_seen
from sentifactory.corpus.shared_texts import EXACT, NEAR, find_overlaps
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review
from sentifactory.task import BINARY_SENTIMENT, Task

_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class LeakPair:
    """A test review and the training review that it repeats."""

    train: Review
    test: Review
    kind: str
    similarity: float


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What `check_leaks` found.

    Attributes:
        n_train: training reviews compared.
        n_test: test reviews compared.
        pairs: one for each test review and distinct training text that it repeats; of a training text that stands
            in several rows the first is named.
        seen_as: what the training reviews are called.
        n_unparted: in how many training rows it is not known which words of the prompt are the review.
        n_unparted_test: in how many test rows.
    """

    n_train: int
    n_test: int
    pairs: list[LeakPair] = field(default_factory=list)
    seen_as: str = "training"
    n_unparted: int = 0
    n_unparted_test: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether no test review repeats a training review."""
        return not self.pairs

    def count_leaked(self) -> dict[str, int]:
        """Return the number of test reviews that training has seen exactly, and of those it has seen nearly."""
        exact = {id(pair.test) for pair in self.pairs if pair.kind == EXACT}
        return {EXACT: len(exact), NEAR: len({id(pair.test) for pair in self.pairs} - exact)}

    def summarise(self) -> str:
        """Return the finding in one sentence, and in others how many rows were compared as a whole only."""
        if self.is_clean:
            told = f"None of the {self.n_test} test reviews stands among the {self.n_train} {self.seen_as} reviews."
        else:
            counts = self.count_leaked()
            told = (
                f"{sum(counts.values())} of the {self.n_test} test reviews stand among the {self.n_train} "
                f"{self.seen_as} reviews: {counts[EXACT]} exact, {counts[NEAR]} near."
            )
        for n_unparted, n_rows, part in (
            (self.n_unparted, self.n_train, self.seen_as),
            (self.n_unparted_test, self.n_test, "test"),
        ):
            if n_unparted:
                told += (
                    f" In {n_unparted} of the {n_rows} {part} rows the review cannot be told from the question around "
                    "it, so the prompt was compared as a whole."
                )
        return told

    def describe(self, max_pairs: int) -> str:
        """Return the finding and its first pairs, a line each."""
        lines = [self.summarise()]
        for pair in self.pairs[:max_pairs]:
            lines.append(
                f"  {pair.kind} {pair.similarity:.2f}: {pair.train.source} = {pair.test.source}: "
                f"{_shorten(pair.train.text)} = {_shorten(pair.test.text)}"
            )
        if len(self.pairs) > max_pairs:
            lines.append(f"  ... and {len(self.pairs) - max_pairs} more pairs")
        return "\n".join(lines)

    def list_pairs(self, max_pairs: int) -> str:
        """Return the first pairs in one line, for an error."""
        told = [
            f"{pair.test.source} repeats {pair.train.source} ({pair.kind}, {pair.similarity:.2f})"
            for pair in self.pairs[:max_pairs]
        ]
        n_more = len(self.pairs) - len(told)
        return "; ".join(told) + (f"; and {n_more} more" if n_more else "")

    def to_json(self, max_pairs: int | None = None) -> dict[str, Any]:
        """Return the finding as plain data."""
        return {
            "is_clean": self.is_clean,
            "train_reviews": self.n_train,
            "test_reviews": self.n_test,
            "unparted_rows": {"train": self.n_unparted, "test": self.n_unparted_test},
            "leaked_test_reviews": self.count_leaked(),
            "n_pairs": len(self.pairs),
            "pairs": [
                {
                    "kind": pair.kind,
                    "similarity": round(pair.similarity, 4),
                    "train": _place_of(pair.train),
                    "test": _place_of(pair.test),
                }
                for pair in self.pairs[:max_pairs]
            ],
        }


def check_leaks(train: Sequence[Review], test: Sequence[Review], passages: Sequence[Passage] = ()) -> LeakReport:
    """Compare training reviews with test reviews; blank ones and labels are passed over.

    Args:
        train: trained on.
        test: tested on.
        passages: the other texts that are trained on, in which test reviews may stand.

    Example:
        >>> check_leaks([Review("很好！")], [Review("很好"), Review("不好")]).count_leaked()
        {'exact': 1, 'near': 0}
    """
    pieces = _list_pieces(passages)
    loose = {id(piece) for piece in pieces}  # cut out of a prompt: alike by chance sooner than a whole review
    seen, asked = _add_cleaned([*train, *pieces]), _add_cleaned(test)
    texts = {"train": [text for text, _ in seen], "test": [text for text, _ in asked]}
    found: dict[tuple[int, int], LeakPair] = {}
    for overlap in find_overlaps(texts):
        one, other = seen[overlap.row][1], asked[overlap.other_row][1]
        if id(one) in loose and overlap.kind != EXACT and overlap.similarity < NEARLY:
            continue
        pair = LeakPair(one, other, overlap.kind, overlap.similarity)
        known = found.setdefault((id(one), id(other)), pair)
        if pair.similarity > known.similarity:
            found[id(one), id(other)] = pair
    pairs = list(found.values())
    if passages:
        pairs += _find_within(passages, test, pairs)
    return LeakReport(len(train), len(test), pairs)


def _add_cleaned(reviews: Sequence[Review]) -> list[tuple[str, Review]]:
    """Return the text of each review, and behind all of them what those with HTML entities say to who sees them."""
    texts = [(review.text, review) for review in reviews]
    return texts + [(clean_text(review.text)[0], review) for review in reviews if "&" in review.text]


def _list_pieces(passages: Sequence[Passage]) -> list[Review]:
    """Return the pieces of passages that are long enough to be a review and no words that people use."""
    pieces: dict[str, Review] = {}
    for passage in passages:
        whole = [] if passage.is_review else [passage.text]  # else it is compared without the question
        for piece in (*whole, *list_pieces(passage.text)):
            pieces.setdefault(piece, Review(piece, None, passage.source))
    keys = make_keys(list(pieces))
    return [piece for piece, key in zip(pieces.values(), keys, strict=True) if len(key) >= MIN_CHARS]


def _find_within(passages: Sequence[Passage], test: Sequence[Review], known: Sequence[LeakPair]) -> list[LeakPair]:
    """Return the test reviews that stand within passages, but for those that are known to be seen as clearly."""
    seen_exactly, seen = (
        {id(pair.test) for pair in known if pair.kind in kinds} for kinds in ((EXACT,), (EXACT, NEAR))
    )
    others = [review for review in test if id(review) not in seen_exactly]
    needles = make_keys([review.text for review in others])
    pairs = []
    for is_review in (False, True):
        chosen = [passage for passage in passages if passage.is_review == is_review]
        for one in find_contained(needles, make_keys([passage.text for passage in chosen]), are_reviews=is_review):
            review, passage = others[one.needle], chosen[one.text]
            if one.similarity == 1 or id(review) not in seen:
                kind = EXACT if one.similarity == 1 else NEAR
                pairs.append(LeakPair(Review(passage.text, None, passage.source), review, kind, one.similarity))
    return pairs


def check_leaks_in_files(
    train_files: Sequence[str | Path],
    test_files: Sequence[str | Path],
    task: Task = BINARY_SENTIMENT,
    options: ReadOptions | None = None,
) -> LeakReport:
    """Compare training files with test files, in any format that `readers.read_texts` reads; labels do not matter.

    Args:
        train_files: CSV, JSONL in sharegpt or alpaca form, and all others that can be read.
        test_files: the same.
        task: its prompt is looked for in training files.
        options: how to read the files.

    Raises:
        DataError: when a file cannot be used.
    """
    seen = join_seen(read_seen(file, task, options, is_trained_on=True) for file in train_files)
    test = join_seen(read_seen(file, task, options) for file in test_files)
    return check_seen(seen, test)


def check_seen(train: SeenFile, test: SeenFile) -> LeakReport:
    """Compare all that training files show with the reviews of test files."""
    report = check_leaks(train.reviews, test.reviews, list(train.passages.values()))
    return replace(report, n_unparted=train.n_unparted, n_unparted_test=test.n_unparted)


def write_unseen(
    output_file: str | Path,
    test_files: Sequence[str],
    report: LeakReport,
    task: Task = BINARY_SENTIMENT,
    options: ReadOptions | None = None,
    train_files: Sequence[str] = (),
) -> int:
    """Write the labelled rows of a test file that training has not seen into a CSV file of their own.

    Args:
        output_file: is replaced where it exists.
        test_files: the one file that `check_leaks_in_files` was given.
        report: what that found.
        task: says which labels there are.
        options: how the file was read.
        train_files: what it was compared with; not to be overwritten either.

    Returns:
        How many rows were written; blank ones are left out.

    Raises:
        ConfigError: when there are several test files, the output is one of the files read, or cannot be written.
        DataError: when a row carries no label of the task, or no row is left. Nothing is written then.
    """
    if len(test_files) > 1:
        raise ConfigError(
            f"The unseen reviews of {len(test_files)} test files do not go into one",
            where=f"--unseen {output_file}",
            next_step="call the command once for each --test",
        )
    refuse_endangered([output_file], [*test_files, *train_files], "--unseen")
    seen = {pair.test.source for pair in report.pairs}
    kept = [
        review
        for review in read_reviews(test_files[0], task, options)
        if review.text.strip() and review.source not in seen
    ]
    if not kept:
        raise DataError(
            "Training has seen every review of this file", where=test_files[0], next_step="test on other reviews"
        )
    write_reviews(Path(output_file), kept, task)
    return len(kept)


def _place_of(review: Review) -> dict[str, Any]:
    source = review.source
    return {"file": source.file if source else None, "line": source.line if source else None, "text": review.text}


def _shorten(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SHOWN_CHARS else words[:_SHOWN_CHARS] + "…"
