"""Official splits of a data set: val and test stay row by row, and leaks between the splits are not ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sentifactory.corpus.leakage.overlap import Overlap
from sentifactory.corpus.splitting.folds import Partition
from sentifactory.corpus.splitting.splits import ReviewPool, SplitPlan, count_by_label
from sentifactory.errors import LeakError
from sentifactory.records import Review, Split
from sentifactory.task.task import Task

_SHOWN = 3


def partition_official_splits(split: Split, task: Task, plan: SplitPlan, groups: Sequence[int]) -> Partition:
    """Return official splits as a partition.

    Args:
        split: train without duplicates; val and test as published.
        task: says which labels there are.
        plan: how train is balanced, and the size of the val part that is taken from train where there is none.
        groups: the group of near duplicates of each training review.
    """
    pool = ReviewPool(split.train, task.labels, plan.seed, groups)
    sizes = pool.count_remaining()
    val = split.val
    if not val:
        counts = count_by_label(plan.val_size, sizes, plan.eval_classes, "--val_size")
        val = pool.interleave(pool.sort_by_label(pool.take(counts, "--val_size")))
    train, surplus = pool.take_train(plan, sizes, "the others are in val")
    return Partition({"train": train, "val": val, "test": split.test}, ("train", "val", "test"), surplus)


def describe_leaks_as_error(
    parts: Mapping[str, Sequence[Review]], overlaps: Sequence[Overlap], source: str
) -> LeakError:
    """Return the error for leaks between official splits, with the first ones as examples."""
    counts = count_leaks(overlaps)
    between = ", ".join(f"{n} of {other} in {part}" for (part, other), n in counts.items())
    shown = []
    for overlap in overlaps[:_SHOWN]:
        one, other = parts[overlap.part][overlap.row], parts[overlap.other_part][overlap.other_row]
        shown.append(f"{other.source} duplicates {one.source} ({overlap.kind}, {overlap.similarity:.2f})")
    more = f", and {len(overlaps) - _SHOWN} more" if len(overlaps) > _SHOWN else ""
    return LeakError(
        f"The splits share reviews: {between}; {'; '.join(shown)}{more}",
        where=source,
        expected="splits that share no text",
        next_step="--on_leak drop leaves out the rows of the earlier split, --on_leak keep keeps and reports them",
    )


def count_leaks(overlaps: Sequence[Overlap]) -> dict[tuple[str, str], int]:
    """Return, for each pair of parts that share texts, how many rows of the later one are in the earlier one."""
    rows: dict[tuple[str, str], set[int]] = {}
    for overlap in overlaps:
        rows.setdefault((overlap.part, overlap.other_part), set()).add(overlap.other_row)
    return {parts: len(found) for parts, found in rows.items()}


def drop_leaks(partition: Partition, overlaps: Sequence[Overlap]) -> Partition:
    """Return a partition without the rows of earlier parts that later parts duplicate."""
    duplicates: dict[str, dict[int, Review]] = {part: {} for part in partition.parts}  # by id: copies go as well
    for overlap in overlaps:
        review = partition.parts[overlap.part][overlap.row]
        duplicates[overlap.part].setdefault(id(review), partition.parts[overlap.other_part][overlap.other_row])
    parts: dict[str, list[Review]] = {}
    leaked = {id(review): (review, by) for review, by in partition.leaked}
    for part, reviews in partition.parts.items():
        gone = duplicates[part]
        parts[part] = [review for review in reviews if id(review) not in gone]
        leaked |= {id(review): (review, gone[id(review)]) for review in reviews if id(review) in gone}
    return replace(partition, parts=parts, leaked=list(leaked.values()))
