"""The steps of `data prepare` between reading and registering: clean and deduplicate, split, write, prove.

`prepare.prepare_reviews` calls them in this order. Each is a plain function of the result of the step before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from sentifactory.corpus.cleaning.deduplicate import clean_and_deduplicate, clean_reviews
from sentifactory.corpus.cleaning.duplicate_groups import NearGroups
from sentifactory.corpus.dataset import dataset_files
from sentifactory.corpus.leakage.overlap import EXACT, NEAR, Overlap, find_overlaps
from sentifactory.corpus.prepare_options import PipelineOptions
from sentifactory.corpus.reading.sources import LoadedSource
from sentifactory.corpus.splitting.balance import DOWN, NONE
from sentifactory.corpus.splitting.folds import Partition, hold_out_domains, make_folds, make_partition
from sentifactory.corpus.splitting.official_splits import (
    describe_leaks_as_error,
    drop_leaks,
    partition_official_splits,
)
from sentifactory.corpus.splitting.order import order_by_batch
from sentifactory.corpus.splitting.splits import split_reviews
from sentifactory.errors import ConfigError
from sentifactory.records import STRATIFIED, Rejected, Review, Split
from sentifactory.system.progress import say
from sentifactory.task.task import Task

_MANY_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class DistinctReviews:
    """Clean reviews without duplicates, ready to be split.

    Attributes:
        reviews: the reviews to split; of official splits the training part.
        groups: the groups of near duplicates among them.
        held_out: val and test of official splits, cleaned; None where there are none.
        rejected: the reviews that were left out, each with its reason.
        cleaning: the manifest's chapter on what was changed.
        n_rows_in: rows of all input files.
    """

    reviews: list[Review]
    groups: NearGroups
    held_out: Split | None
    rejected: list[Rejected]
    cleaning: dict[str, Any]
    n_rows_in: int

    def announce(self, step: str) -> None:
        """Report a step; a small data set is done before anybody could read it."""
        _announce(step, self.n_rows_in)


def _announce(step: str, n_rows: int) -> None:
    if n_rows >= _MANY_ROWS:
        say(step)


def resolve_options(loaded: Sequence[LoadedSource], options: PipelineOptions) -> PipelineOptions:
    """Return the options with the defaults of the source in place of None.

    Raises:
        ConfigError: when an option asks to move rows of official splits.
    """
    source = loaded[0]
    if source.official is not None:
        _check_official_options(source, options)
        defaults: dict[str, Any] = {"val_size": 0, "test_size": 0, "eval_classes": STRATIFIED, "balance": NONE}
    elif len(loaded) == 1:
        defaults = {"val_size": source.val_size, "test_size": source.test_size, "eval_classes": source.eval_classes}
    else:
        defaults = {"val_size": 0.1, "test_size": 0.1, "eval_classes": STRATIFIED}
    defaults = {"balance": DOWN} | defaults
    return replace(options, **{name: value for name, value in defaults.items() if getattr(options, name) is None})


def _check_official_options(source: LoadedSource, options: PipelineOptions) -> None:
    is_given = {
        "--folds": options.folds,
        "--holdout_domain": options.holdout_domains,
        "--test_size": options.test_size is not None,
        "--val_size": source.official and source.official.val and options.val_size is not None,
    }
    for option, is_option_given in is_given.items():
        if is_option_given:
            raise ConfigError(
                f"{source.name} has official splits, which are kept as they are",
                where=option,
                next_step="leave out the option, or name one of the splits or files as the source",
                code="option-value",
            )


def clean_sources(loaded: Sequence[LoadedSource], task: Task, options: PipelineOptions) -> DistinctReviews:
    """Clean all reviews, drop duplicates and contradictions, and group near duplicates.

    Of official splits only the training part is deduplicated: val and test stay row by row as they are.
    """
    n_rows_in = sum(file.n_rows for one in loaded for file in one.inputs)
    official = loaded[0].official
    _announce(f"Cleaning {n_rows_in} rows", n_rows_in)
    cleaned = clean_and_deduplicate(
        official.train if official else [review for one in loaded for review in one.reviews],
        task,
        on_conflict=options.on_conflict,
        max_tokens=options.max_tokens,
        tokenizer=options.tokenizer,
        too_long=options.too_long,
    )
    held_out = None
    if official is not None:
        val, test = clean_reviews(official.val), clean_reviews(official.test)
        held_out = Split([], val.kept, test.kept)
        cleaned.add_counts(val)
        cleaned.add_counts(test)
    _announce(f"Looking for near duplicates among {len(cleaned.kept)} reviews", n_rows_in)
    groups = NearGroups(cleaned.kept, cleaned.keys)
    return DistinctReviews(cleaned.kept, groups, held_out, cleaned.rejected, cleaned.describe_cleaning(), n_rows_in)


def split_distinct(distinct: DistinctReviews, task: Task, options: PipelineOptions) -> Partition:
    """Split reviews into parts, each group of near duplicates within one part, and order the training parts.

    Args:
        distinct: the reviews.
        task: says which labels there are.
        options: from `resolve_options`.

    Raises:
        DataError: when there are too few reviews.
    """
    partition = _partition(distinct, task, options)
    if options.batch_size:
        for name, reviews in partition.parts.items():
            if name.rsplit("/", 1)[-1] == "train":
                partition.parts[name] = order_by_batch(reviews, options.batch_size, options.seed)
    return partition


def _partition(distinct: DistinctReviews, task: Task, options: PipelineOptions) -> Partition:
    reviews, groups, plan = distinct.reviews, distinct.groups.numbers, options.make_plan()
    if distinct.held_out is not None:
        split = replace(distinct.held_out, train=reviews)
        return partition_official_splits(split, task, plan, groups)
    if options.folds:
        return make_folds(reviews, task.labels, plan, options.folds, groups)
    if options.holdout_domains:
        return hold_out_domains(reviews, task.labels, plan, options.holdout_domains, groups)
    return make_partition(*split_reviews(reviews, task.labels, plan, groups))


def write_and_prove(
    folder: Path,
    partition: Partition,
    distinct: DistinctReviews,
    task: Task,
    options: PipelineOptions,
    *,
    formatting: str,
    source: str,
) -> tuple[Partition, dict[str, Any]]:
    """Write the parts, read them back, and make sure that no two of them share a text.

    The search for near duplicates compares each review of a very large family of similar texts with some of the others
    only. Where the proof finds a pair that the search missed, its reviews join one group and all are split again.

    Args:
        folder: the parts are written here.
        partition: from `split_distinct`.
        distinct: what that was given.
        task: renders the training rows.
        options: likewise.
        formatting: form of the JSONL.
        source: name of the source, for errors.

    Returns:
        The parts as they were written, and the manifest's chapter on the proof.

    Raises:
        LeakError: when official splits share texts and `on_leak` is `refuse`.
    """
    is_official = distinct.held_out is not None
    while True:
        distinct.announce("Writing the parts and comparing what was written")
        dataset_files.write_parts(folder, partition.parts, task, formatting)
        overlaps = _find_written_overlaps(folder, partition)
        if not overlaps or (is_official and options.on_leak == "keep"):
            return partition, _describe_proof(partition, overlaps)
        if not is_official:
            parts = partition.parts
            distinct.groups.join(
                [(parts[one.part][one.row], parts[one.other_part][one.other_row], one.similarity) for one in overlaps]
            )
            partition = split_distinct(distinct, task, options)
        elif options.on_leak == "drop":
            partition = drop_leaks(partition, overlaps)
        else:
            raise describe_leaks_as_error(partition.parts, overlaps, source)


def _find_written_overlaps(folder: Path, partition: Partition) -> list[Overlap]:
    """Read the parts back from their files and return the texts that any two of them share.

    Raises:
        RuntimeError: when a file does not hold the rows that were written, which is a bug.
    """
    texts = dataset_files.read_texts_back(folder, partition.disjoint)
    for part, found in texts.items():
        if found != [review.text for review in partition.parts[part]]:
            raise RuntimeError(f"{folder / part}.csv does not hold the reviews that were written")
    return find_overlaps(texts)


def _describe_proof(partition: Partition, overlaps: Sequence[Overlap]) -> dict[str, Any]:
    parts = [part for part in partition.disjoint if partition.parts[part]]
    rows = {kind: {(one.other_part, one.other_row) for one in overlaps if one.kind == kind} for kind in (EXACT, NEAR)}
    return {
        "compared": [list(pair) for pair in combinations(parts, 2)],
        EXACT: len(rows[EXACT]),
        NEAR: len(rows[NEAR] - rows[EXACT]),
    }
