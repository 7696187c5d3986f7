"""Decides for each file what the numbers in its label column are: labels of the task, or stars.

1 is the label positive in one file and the worst of five stars in the next. The name of the column, all its values and
the user's threshold decide together; ambiguous columns are refused with a question, never guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sentifactory.corpus.reading.label_column import LISTED, SCALE_TOPS, Column, LabelCells, find_scale_top
from sentifactory.corpus.reading.label_reader import MAX_STARS, LabelReader, count_stars
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Reason

# The threshold to suggest between bad and good, by the top of the scale.
_USUAL_THRESHOLDS: dict[int, float] = {1: 0.5, 5: 3, 10: 5, MAX_STARS: 60}


@dataclass(frozen=True, slots=True)
class Scale:
    """What the label column of a file holds.

    Attributes:
        said: in words, for people: "labels 0/1", "stars 1-5, above 3 positive".
        is_stars: whether its numbers are stars.
        top: top of the scale: 1 (shares), 5, 10 or 100; None where the file does not show it.
        numbers: the numbers that occur.
        common: the most common cells, and the name of the label of the task that each states, if any.
    """

    said: str
    is_stars: bool
    top: float | None
    numbers: frozenset[float]
    common: tuple[tuple[str, str | None], ...]


def read_cells(cells: Mapping[str, int], column: Column, labels: LabelReader) -> tuple[dict[str, int | Reason], Scale]:
    """Return what each cell of a label column states, and the scale of the column.

    Args:
        cells: how often each cell occurs next to a text.
        column: the column of the cells.
        labels: what the user said about labels.

    Raises:
        DataError: when the numbers could be labels as well as stars, or are stars and no threshold is given.
        ConfigError: when the threshold does not lie on the scale of the column.
    """
    found = LabelCells(cells, column, labels)
    top = None
    is_stars = is_read_as_stars = False
    if labels.is_mapped and labels.has_moods and column.name is not None:
        is_stars = bool(found.stars) or (bool(found.both) and 0 not in found.both and column.names_stars)
    elif labels.has_moods and column.name is not None:
        is_stars = is_read_as_stars = _are_stars(found)
        if not is_stars:
            _refuse_minus_one(found)
    if is_read_as_stars:
        top = _find_known_top(found)
        most = top or SCALE_TOPS[0]
        meanings = {
            cell: labels.find_word(cell) if count_stars(cell) is None else labels.find_stars(cell, most)
            for cell in cells
        }
    else:
        meanings = {cell: labels.find_word(cell) for cell in cells}
    said = found.describe(is_stars=is_read_as_stars)
    return meanings, Scale(said, is_stars, top, frozenset(found.numbers), found.list_common())


def _are_stars(found: LabelCells) -> bool:
    """Return whether the numbers are stars.

    Raises:
        DataError: when the column does not show it, or no threshold is given.
    """
    threshold, names_stars = found.labels.threshold, found.column.names_stars
    has_labels = 0 in found.both or found.n_words > 0
    n_stars = found.stars.total()
    if not found.numbers:
        return False
    if found.is_share and threshold is None:
        raise _ask_for_threshold(found, "shares between 0 and 1, not labels")
    if found.is_share:
        return True
    if not n_stars:
        if has_labels:
            return False
        if names_stars == (threshold is None):
            raise _ask_whether_stars(found)
        return names_stars
    if threshold is None:
        if names_stars or (n_stars <= found.n_few and not has_labels):
            raise _ask_for_threshold(found, "stars")
        return False
    is_few = n_stars <= found.n_few and has_labels
    if not names_stars and not is_few and not are_classes(found.numbers):
        highest = found.find_range()[1]
        if highest <= threshold < find_scale_top(highest):  # 1 and 2 are the two labels of many data sets
            raise _ask_about_low_numbers(found, threshold)
    return names_stars or not (is_few or are_classes(found.numbers))


def _find_known_top(found: LabelCells) -> float | None:
    """Return the top of the scale, None where the column does not show it.

    Raises:
        ConfigError: when no stars are below, or none above, the threshold.
    """
    lowest, highest = found.find_range()
    top = found.find_scale_top()
    is_known = highest == top or top != SCALE_TOPS[0]
    threshold = found.labels.threshold or 0
    # A threshold of 3 on a scale to 100 was meant for another file.
    least = SCALE_TOPS[1] if top == MAX_STARS else min(1, lowest)
    if threshold <= least or (is_known and threshold >= top):
        raise ConfigError(
            f"The threshold is {threshold:g}, and the column {found.column.name!r} holds {found.describe_range()}",
            where=found.column.where,
            expected="a threshold with stars below and above it",
            next_step=f"run data prepare with --star_threshold {_USUAL_THRESHOLDS[top]:g}, or your own threshold",
            code="stars-threshold",
        )
    return top if is_known else None


def _refuse_minus_one(found: LabelCells) -> None:
    """Raise a DataError where -1 occurs next to 0 and 1: it changes what 0 means, however rare it is."""
    if not found.n_minus_one or not found.both:
        return
    has_zero = 0 in found.both
    raise DataError(
        f"The column {found.column.name!r} holds -1 ({found.n_minus_one} of {found.n_all} labels) and "
        + found.list_numbers()
        + (": either 0 is negative and -1 unlabelled, or -1 is negative and 0 neutral" if has_zero else ""),
        where=found.column.where,
        expected="labels with one meaning",
        next_step=f"run data prepare with {_suggest_map_for_minus_one(found)}",
        code="labels-minus-one",
    )


def _suggest_map_for_minus_one(found: LabelCells) -> str:
    shifted = "--label_map -1=negative --label_map 1=positive"
    if 0 not in found.both:
        return f"{shifted}, if that is what they mean"
    own = "--label_map 0=negative --label_map 1=positive"
    if isinstance(found.labels.find_own("neutral"), int):
        shifted += " --label_map 0=neutral"
        own = "--label_map 0=negative --label_map 1=neutral --label_map 2=positive"
    return f"{own} if -1 is unlabelled, or {shifted} if 0 is neutral; all other cells are left out"


def _ask_for_threshold(found: LabelCells, kind: str) -> DataError:
    return DataError(
        f"The column {found.column.name!r} holds {kind}: {found.list_numbers()}",
        where=found.column.where,
        expected="labels of the task, or a threshold between bad and good",
        next_step=f"run data prepare with --star_threshold {_USUAL_THRESHOLDS[found.find_scale_top()]:g}, or your own "
        "threshold, or with --label_column and the name of another column",
        code="stars-threshold-missing",
    )


def _ask_about_low_numbers(found: LabelCells, threshold: float) -> DataError:
    return DataError(
        f"The column {found.column.name!r} holds only {found.list_numbers()}, none above the threshold "
        f"{threshold:g}: low star ratings, or labels with other numbers than the task's",
        where=found.column.where,
        expected="numbers below and above the threshold",
        next_step="call the column stars if they are stars, and write the labels as words, such as "
        f"{found.labels.names[0]}, if they are labels",
        code="stars-or-labels",
    )


def _ask_whether_stars(found: LabelCells) -> DataError:
    names = [found.labels.find_own(f"{number:g}") for number in sorted(found.both)]
    labels = ", ".join(found.labels.names[label] for label in names if isinstance(label, int))
    return DataError(
        f"The column {found.column.name!r} holds only {found.list_numbers()}, which can be low star ratings or the "
        f"label{'s' * (len(found.both) > 1)} {labels}",
        where=found.column.where,
        expected="numbers that show which they are, such as 0 and 1, or 1 to 5",
        next_step=(
            "run data prepare with --star_threshold 3 if they are stars, and call the column label if they are labels"
            if found.labels.threshold is None
            else "call the column stars if they are stars, and write the labels as words, such as "
            f"{labels.split(', ')[0]}, if they are labels"
        ),
        code="stars-or-labels",
    )


def are_classes(numbers: Collection[float]) -> bool:
    """Whether numbers are three classes, which are numbered from 0, rather than stars."""
    return 0 in numbers and max(numbers) <= 2


def suggest_threshold(numbers: Collection[float]) -> float:
    """Return the usual threshold on the scale of some stars; 0 to 4 are five stars as well."""
    if 0 in numbers and max(numbers) == 4:
        return 2
    return _USUAL_THRESHOLDS[find_scale_top(max(numbers))]


def refuse_mixed(
    scales: Sequence[tuple[str, Scale]], threshold: float | None, label_map: Mapping[str, str] | None
) -> None:
    """Refuse a threshold or a map that means different things in different files.

    Args:
        scales: name and scale of each file.
        threshold: of stars, or None.
        label_map: label by word, or None.

    Raises:
        ConfigError: when no file holds stars, files hold stars of different scales, or the map names a number that is
            a label in one file and stars in another.
    """
    as_words = "write the labels of one of them as words, such as positive and negative"
    with_stars = [(name, scale) for name, scale in scales if scale.is_stars]
    if threshold is not None and not with_stars:
        raise ConfigError(
            "No file holds stars" + "".join(f"; {name}: {scale.said}" for name, scale in scales[:LISTED]),
            where="--star_threshold",
            next_step="leave out --star_threshold, or name the column of stars with --label_column",
            code="stars-none",
        )
    tops = {scale.top: name for name, scale in with_stars if scale.top is not None}
    if threshold is not None and len(tops) > 1:
        (low, name), *_, (high, other) = sorted(tops.items())
        raise ConfigError(
            f"The threshold is {threshold:g}, but {name} holds up to {low:g} stars and {other} up to {high:g}",
            where="--star_threshold",
            expected="stars of one scale",
            next_step=as_words,
            code="stars-scales",
        )
    for name, scale in with_stars:
        for other, labels in scales:
            shared = scale.numbers & labels.numbers & {count_stars(word) for word in label_map or ()}
            if shared and not labels.is_stars:
                raise ConfigError(
                    f"The map gives {min(shared):g} a label, but the number is stars in {name} and a label in {other}",
                    where="--label_map",
                    next_step=f"give --star_threshold instead, or {as_words}",
                    code="stars-and-map",
                )
