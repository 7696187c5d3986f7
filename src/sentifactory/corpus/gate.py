"""From loaded reviews to parts that are proven clean: cleaning, groups of near repeats, parts, proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from sentifactory.corpus import export
from sentifactory.corpus.arranging import Arrangement, arrange_folds, arrange_split, hold_out_domains
from sentifactory.corpus.balance import NONE
from sentifactory.corpus.batch_order import order_by_batch
from sentifactory.corpus.gate_options import GateOptions
from sentifactory.corpus.near_groups import NearGroups
from sentifactory.corpus.official import arrange_official, drop_leaks, refuse_leaks
from sentifactory.corpus.shared_texts import EXACT, NEAR, Overlap, find_overlaps
from sentifactory.corpus.sifting import clean_all, sift_reviews
from sentifactory.corpus.sources import LoadedSource
from sentifactory.corpus.splitting import SplitPlan, split_reviews
from sentifactory.errors import ConfigError
from sentifactory.progress import say
from sentifactory.records import Review, Split
from sentifactory.task import Task

_MANY_ROWS = 50_000


class Gate:
    """Takes loaded sources to parts that are proven to share no text.

    Attributes:
        loaded: the sources.
        task: says which labels there are.
        n_rows_in: rows of all inputs.
        rejected: reviews that were left out, each with its reason.
        unread: rows of the sources that are no reviews.
        cleaning: the manifest's chapter on what was changed.
        groups: the near repeats among the reviews that are parted here.
    """

    def __init__(self, loaded: Sequence[LoadedSource], task: Task, options: GateOptions) -> None:
        self.loaded = loaded
        self.task = task
        self.unread = [row for one in loaded for row in one.rejected]
        self.n_rows_in = sum(file.n_rows for one in loaded for file in one.inputs)
        self._options = options
        self._official = loaded[0].official
        self._plan = self._make_plan()
        reviews = self._official.train if self._official else [review for one in loaded for review in one.reviews]
        self._say(f"Cleaning {self.n_rows_in} rows")
        sifted = sift_reviews(reviews, task, options)
        self._reviews = sifted.kept
        self._kept_apart = Split()
        if self._official is not None:
            val, test = clean_all(self._official.val), clean_all(self._official.test)
            self._kept_apart = Split([], val.kept, test.kept)
            sifted.add_up(val)
            sifted.add_up(test)
        self.rejected = sifted.rejected
        self.cleaning = sifted.describe_cleaning()
        self._say(f"Looking for near repeats among {len(self._reviews)} reviews")
        self.groups = NearGroups(self._reviews, sifted.keys)

    def _say(self, step: str) -> None:
        """Tell of a step that takes long; a small file is done before anybody could read it."""
        if self.n_rows_in >= _MANY_ROWS:
            say(step)

    def _make_plan(self) -> SplitPlan:
        """Return the plan of the split.

        Raises:
            ConfigError: when an option asks to move rows of official splits.
        """
        first = self.loaded[0]
        if len(self.loaded) > 1:
            return self._options.make_plan(0.1, 0.1)
        if self._official is None:
            return self._options.make_plan(first.val_size, first.test_size, first.eval_classes)
        asked = {
            "--folds": self._options.folds,
            "--holdout_domain": self._options.holdout_domains,
            "--test_size": self._options.test_size is not None,
            "--val_size": self._official.val and self._options.val_size is not None,
        }
        for option, is_asked in asked.items():
            if is_asked:
                raise ConfigError(
                    f"{first.name} has official splits, which are kept as they are",
                    where=option,
                    next_step="leave out the option, or name one of the splits or files as the source",
                )
        return replace(self._options.make_plan(), balance=self._options.balance or NONE)

    def write_proven(
        self, folder: Path, arrangement: Arrangement, formatting: str
    ) -> tuple[Arrangement, dict[str, Any]]:
        """Write the parts, and compare what was written.

        Should the proof find near repeats in two parts that the search over all reviews had missed (it compares each
        review of a very large family of look-alikes with some of the others only), they are joined and parted again.

        Returns:
            The parts, and the manifest's chapter on the proof.

        Raises:
            LeakError: when official splits share texts and the user did not say what to do then.
        """
        while True:
            self._say("Writing the parts, and comparing what was written")
            export.write_parts(folder, arrangement.parts, self.task, formatting)
            overlaps = _prove(folder, arrangement)
            if not overlaps or (self._official is not None and self._options.on_leak == "keep"):
                return arrangement, _describe_proof(arrangement, overlaps)
            if self._official is None:
                parts = arrangement.parts
                self.groups.join(
                    [
                        (parts[one.part][one.row], parts[one.other_part][one.other_row], one.similarity)
                        for one in overlaps
                    ]
                )
                arrangement = self.arrange()
            elif self._options.on_leak == "drop":
                arrangement = drop_leaks(arrangement, overlaps)
            else:
                raise refuse_leaks(arrangement.parts, overlaps, self.loaded[0].name)

    def arrange(self) -> Arrangement:
        """Part the reviews, and order those to train on.

        Raises:
            DataError: when there are too few of them.
        """
        arrangement = self._part()
        if size := self._options.batch_size:
            for name, reviews in arrangement.parts.items():
                if name.rsplit("/", 1)[-1] == "train":
                    arrangement.parts[name] = order_by_batch(reviews, size, self._plan.seed)
        return arrangement

    def _part(self) -> Arrangement:
        labels, groups = self.task.labels, self.groups.numbers
        if self._official is not None:
            split = Split(self._reviews, self._kept_apart.val, self._kept_apart.test)
            return arrange_official(split, self.task, self._plan, groups)
        if self._options.folds:
            return arrange_folds(self._reviews, labels, self._plan, self._options.folds, groups)
        if self._options.holdout_domains:
            asked = self._options.test_size or 0  # nothing asked: the domains as a whole
            plan = replace(self._plan, test_size=asked)
            return hold_out_domains(self._reviews, labels, plan, self._options.holdout_domains, groups)
        return arrange_split(*split_reviews(self._reviews, labels, self._plan, groups))

    def describe_near(self, arrangement: Arrangement) -> tuple[list[tuple[int, str, Review]], dict[str, Any]]:
        """Return the rows of near_repeats.csv, and the manifest's chapter on them."""
        return self.groups.describe({part: arrangement.parts[part] for part in arrangement.apart})

    def describe_options(self) -> dict[str, Any]:
        """Return what was chosen, or is usual for the source, for the manifest."""
        plan, options = self._plan, self._options
        return {
            "seed": plan.seed,
            "val_size": _as_number(plan.val_size),
            "test_size": _as_number(plan.test_size),
            "eval_classes": plan.eval_classes,
            "max_train": plan.max_train,
            "balance": plan.balance,
            "folds": options.folds,
            "holdout_domains": list(options.holdout_domains),
            "has_official_splits": self._official is not None,
            "on_leak": options.on_leak,
            "on_conflict": options.on_conflict,
            "max_tokens": options.max_tokens,
            "tokenizer": options.tokenizer,
            "too_long": options.too_long,
            "batch_size": options.batch_size,
        }


def _as_number(size: float) -> float | int:
    return size if size < 1 else int(size)


def _prove(folder: Path, arrangement: Arrangement) -> list[Overlap]:
    """Read the parts back from their files and return what any two of them share.

    Raises:
        RuntimeError: when a file does not hold the rows that were written, which is a defect of ours.
    """
    texts = export.read_texts_back(folder, arrangement.apart)
    for part, found in texts.items():
        if found != [review.text for review in arrangement.parts[part]]:
            raise RuntimeError(f"{folder / part}.csv does not hold the reviews that were written")
    return find_overlaps(texts)


def _describe_proof(arrangement: Arrangement, overlaps: Sequence[Overlap]) -> dict[str, Any]:
    parts = [part for part in arrangement.apart if arrangement.parts[part]]
    rows = {kind: {(one.other_part, one.other_row) for one in overlaps if one.kind == kind} for kind in (EXACT, NEAR)}
    return {
        "compared": [list(pair) for pair in combinations(parts, 2)],
        EXACT: len(rows[EXACT]),
        NEAR: len(rows[NEAR] - rows[EXACT]),
    }
