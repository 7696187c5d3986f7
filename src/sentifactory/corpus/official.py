"""Splits that the makers of a data set drew: val and test stay row by row, and leaks are not passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sentifactory.corpus.arranging import Arrangement
from sentifactory.corpus.shared_texts import Overlap
from sentifactory.corpus.splitting import Deck, SplitPlan, count_by_label
from sentifactory.errors import LeakError
from sentifactory.records import Review, Split
from sentifactory.task import Task

_SHOWN = 3


def arrange_official(split: Split, task: Task, plan: SplitPlan, groups: Sequence[int]) -> Arrangement:
    """Return official splits as named parts.

    Args:
        split: its training part without repeats; val and test as their makers have them.
        task: says which labels there are.
        plan: how the training part is balanced, and how large a val part is taken from it where there is none.
        groups: the group of near repeats of each training review.
    """
    deck = Deck(split.train, task.labels, plan.seed, groups)
    sizes = deck.count_left()
    val = split.val
    if not val:
        counts = count_by_label(plan.val_size, sizes, plan.eval_classes, "--val_size")
        val = deck.spread(deck.sort_by_label(deck.deal(counts, "--val_size")))
    train, surplus = deck.deal_train(plan, sizes, "the others are in val")
    return Arrangement({"train": train, "val": val, "test": split.test}, ("train", "val", "test"), surplus)


def refuse_leaks(parts: Mapping[str, Sequence[Review]], overlaps: Sequence[Overlap], source: str) -> LeakError:
    """Return the error that tells of leaks between official splits, with the first of them."""
    counts = count_leaks(overlaps)
    between = ", ".join(f"{n} of {other} in {part}" for (part, other), n in counts.items())
    shown = []
    for overlap in overlaps[:_SHOWN]:
        one, other = parts[overlap.part][overlap.row], parts[overlap.other_part][overlap.other_row]
        shown.append(f"{other.source} repeats {one.source} ({overlap.kind}, {overlap.similarity:.2f})")
    more = f", and {len(overlaps) - _SHOWN} more" if len(overlaps) > _SHOWN else ""
    return LeakError(
        f"The splits share reviews: {between}; {'; '.join(shown)}{more}",
        where=source,
        expected="splits of which no two share a text",
        next_step="--on_leak drop leaves out the rows of the earlier split, --on_leak keep keeps them and says so",
    )


def count_leaks(overlaps: Sequence[Overlap]) -> dict[tuple[str, str], int]:
    """Return, for every two parts that share texts, how many rows of the later one stand in the earlier one."""
    rows: dict[tuple[str, str], set[int]] = {}
    for overlap in overlaps:
        rows.setdefault((overlap.part, overlap.other_part), set()).add(overlap.other_row)
    return {parts: len(found) for parts, found in rows.items()}


def drop_leaks(arrangement: Arrangement, overlaps: Sequence[Overlap]) -> Arrangement:
    """Return an arrangement whose earlier parts lack the rows that later parts repeat."""
    repeats: dict[str, dict[int, Review]] = {part: {} for part in arrangement.parts}  # by id: copies go as well
    for overlap in overlaps:
        review = arrangement.parts[overlap.part][overlap.row]
        repeats[overlap.part].setdefault(id(review), arrangement.parts[overlap.other_part][overlap.other_row])
    parts: dict[str, list[Review]] = {}
    leaked = {id(review): (review, by) for review, by in arrangement.leaked}
    for part, reviews in arrangement.parts.items():
        gone = repeats[part]
        parts[part] = [review for review in reviews if id(review) not in gone]
        leaked |= {id(review): (review, gone[id(review)]) for review in reviews if id(review) in gone}
    return replace(arrangement, parts=parts, leaked=list(leaked.values()))
