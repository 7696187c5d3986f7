"""Finds test reviews among training texts: exact and near duplicates, and reviews within longer training texts.

`overlap` finds duplicates, `containment` reviews within prompts and other training texts. Not covered: paraphrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sentifactory.clean_text import clean_text
from sentifactory.corpus.cleaning.near_duplicates import MIN_CHARS
from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.dataset.dataset_files import write_reviews
from sentifactory.corpus.leakage.containment import NEARLY, find_contained, list_pieces
from sentifactory.corpus.leakage.overlap import EXACT, NEAR, find_overlaps
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.reading.review_files import read_reviews, read_seen
from sentifactory.corpus.reading.seen_texts import Passage, SeenFile, join_seen
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review
from sentifactory.system.atomic import refuse_overwriting_inputs
from sentifactory.system.command_line import write_command
from sentifactory.system.formats import cut_text
from sentifactory.task.task import BINARY_SENTIMENT, Task

_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class LeakPair:
    """A test review and the training review that it duplicates."""

    train: Review
    test: Review
    kind: str
    similarity: float


@dataclass(frozen=True, slots=True)
class LeakReport:
    """The result of `check_leaks`.

    Attributes:
        n_train: training reviews compared.
        n_test: test reviews compared.
        pairs: one for each test review and distinct training text that it duplicates; of a training text that occurs
            in several rows the first is named.
        seen_as: what the training reviews are called.
        held_as: what the reviews that they must not contain are called.
        n_unsplit: training rows in which it is unknown which words of the prompt are the review.
        n_unsplit_test: likewise of test rows.
    """

    n_train: int
    n_test: int
    pairs: list[LeakPair] = field(default_factory=list)
    seen_as: str = "training"
    held_as: str = "test"
    n_unsplit: int = 0
    n_unsplit_test: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether no test review is among the training texts."""
        return not self.pairs

    def count_leaked(self) -> dict[str, int]:
        """Return the number of test reviews with an exact, and of those with only a near duplicate in training."""
        exact = {id(pair.test) for pair in self.pairs if pair.kind == EXACT}
        return {EXACT: len(exact), NEAR: len({id(pair.test) for pair in self.pairs} - exact)}

    def summarise(self) -> str:
        """Return the finding in one sentence, and how many rows were only compared as a whole."""
        if self.is_clean:
            summary = (
                f"None of the {self.n_test} {self.held_as} reviews is among the {self.n_train} {self.seen_as} reviews."
            )
        else:
            counts = self.count_leaked()
            summary = (
                f"{sum(counts.values())} of the {self.n_test} {self.held_as} reviews are among the {self.n_train} "
                f"{self.seen_as} reviews: {counts[EXACT]} exact, {counts[NEAR]} near."
            )
        for n_unsplit, n_rows, part in (
            (self.n_unsplit, self.n_train, self.seen_as),
            (self.n_unsplit_test, self.n_test, self.held_as),
        ):
            if n_unsplit:
                summary += (
                    f" In {n_unsplit} of the {n_rows} {part} rows the review cannot be separated from the question "
                    "around it, so the whole prompt was compared."
                )
        return summary

    def describe(self, max_pairs: int) -> str:
        """Return the finding and its first pairs, one per line."""
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
        shown = [
            f"{pair.test.source} duplicates {pair.train.source} ({pair.kind}, {pair.similarity:.2f})"
            for pair in self.pairs[:max_pairs]
        ]
        n_more = len(self.pairs) - len(shown)
        return "; ".join(shown) + (f"; and {n_more} more" if n_more else "")

    def to_json(self, max_pairs: int | None = None) -> dict[str, Any]:
        """Return the finding as plain data."""
        return {
            "is_clean": self.is_clean,
            "train_reviews": self.n_train,
            "test_reviews": self.n_test,
            "unparted_rows": {"train": self.n_unsplit, "test": self.n_unsplit_test},
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
    """Compare training reviews with test reviews; blank ones and labels are ignored.

    Args:
        train: training reviews.
        test: test reviews.
        passages: other training texts, which may contain test reviews.

    Example:
        >>> check_leaks([Review("很好！")], [Review("很好"), Review("不好")]).count_leaked()
        {'exact': 1, 'near': 0}
    """
    pieces = _list_pieces(passages)
    piece_ids = {id(piece) for piece in pieces}  # parts of prompts, more often similar by chance than whole reviews
    seen, asked = _add_cleaned([*train, *pieces]), _add_cleaned(test)
    texts = {"train": [text for text, _ in seen], "test": [text for text, _ in asked]}
    found: dict[tuple[int, int], LeakPair] = {}
    for overlap in find_overlaps(texts):
        one, other = seen[overlap.row][1], asked[overlap.other_row][1]
        if id(one) in piece_ids and overlap.kind != EXACT and overlap.similarity < NEARLY:
            continue
        pair = LeakPair(one, other, overlap.kind, overlap.similarity)
        known = found.setdefault((id(one), id(other)), pair)
        if pair.similarity > known.similarity:
            found[id(one), id(other)] = pair
    pairs = list(found.values())
    if passages:
        pairs += _find_contained_reviews(passages, test, pairs)
    return LeakReport(len(train), len(test), pairs)


def _add_cleaned(reviews: Sequence[Review]) -> list[tuple[str, Review]]:
    """Return the text of each review, and after these the cleaned texts of reviews with HTML entities."""
    texts = [(review.text, review) for review in reviews]
    return texts + [(clean_text(review.text)[0], review) for review in reviews if "&" in review.text]


def _list_pieces(passages: Sequence[Passage]) -> list[Review]:
    """Return the pieces of passages that are long enough to be a review."""
    pieces: dict[str, Review] = {}
    for passage in passages:
        whole = [] if passage.is_review else [passage.text]  # a review is compared without the question anyway
        for piece in (*whole, *list_pieces(passage.text)):
            pieces.setdefault(piece, Review(piece, None, passage.source))
    keys = make_keys(list(pieces))
    return [piece for piece, key in zip(pieces.values(), keys, strict=True) if len(key) >= MIN_CHARS]


def _find_contained_reviews(
    passages: Sequence[Passage], test: Sequence[Review], known: Sequence[LeakPair]
) -> list[LeakPair]:
    """Return the test reviews that passages contain, except those with a known pair that is as similar."""
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
    """Compare training files with test files; labels are ignored.

    Args:
        train_files: in any format that `review_files.read_seen` reads.
        test_files: likewise.
        task: its prompt is recognised in training files.
        options: how to read the files.

    Raises:
        DataError: when a file cannot be used.
    """
    seen = join_seen(read_seen(file, task, options, is_trained_on=True) for file in train_files)
    test = join_seen(read_seen(file, task, options) for file in test_files)
    return check_seen(seen, test)


def check_seen(train: SeenFile, test: SeenFile) -> LeakReport:
    """Compare all texts of training files with the reviews of test files."""
    report = check_leaks(train.reviews, test.reviews, list(train.passages.values()))
    return replace(report, n_unsplit=train.n_unsplit, n_unsplit_test=test.n_unsplit)


def write_unseen(
    output_file: str | Path,
    test_files: Sequence[str],
    report: LeakReport,
    task: Task = BINARY_SENTIMENT,
    options: ReadOptions | None = None,
    train_files: Sequence[str] = (),
) -> int:
    """Write the labelled rows of a test file that training has not seen to a CSV file.

    Args:
        output_file: a new file, or one with exactly these reviews.
        test_files: the one file that `check_leaks_in_files` was given.
        report: its result.
        task: says which labels there are.
        options: how the file was read.
        train_files: the files it was compared with, which must not be overwritten either.

    Returns:
        The number of rows written; blank ones are left out.

    Raises:
        ConfigError: when there are several test files, the output is one of the files read or another file, or cannot
            be written.
        DataError: when a row has no label of the task, or no row remains. Nothing is written then.
    """
    if len(test_files) > 1:
        raise ConfigError(
            f"The unseen reviews of {len(test_files)} test files cannot be written to one file",
            where=f"--unseen {output_file}",
            next_step="run the command once for each --test",
            code="option-value",
        )
    refuse_overwriting_inputs([output_file], [*test_files, *train_files], "--unseen")
    seen = {pair.test.source for pair in report.pairs}
    kept = [
        review
        for review in read_reviews(test_files[0], task, options)
        if review.text.strip() and review.source not in seen
    ]
    if not kept:
        raise DataError(
            "Training has seen every review of this file",
            where=test_files[0],
            next_step="test on other reviews",
            code="reviews-all-seen",
        )
    write_reviews(Path(output_file), kept, task)
    return len(kept)


def suggest_unseen(
    train: Sequence[str | Path], test: Sequence[str | Path], task: str | None, options: ReadOptions
) -> str:
    """Return the command that writes the test reviews that training has not seen into a file next to the test file."""
    first = Path(test[0])
    return write_command(
        "data",
        "check",
        *(("--train", name) for name in train),
        *(("--test", name) for name in test),
        ("--unseen", first.with_name(f"{first.stem}_unseen.csv")),
        ("--task", task),
        ("--text_column", options.text_column),
        ("--encoding", options.encoding),
    )


def _place_of(review: Review) -> dict[str, Any]:
    source = review.source
    return {"file": source.file if source else None, "line": source.line if source else None, "text": review.text}


def _shorten(text: str) -> str:
    return cut_text(" ".join(text.split()), _SHOWN_CHARS)
