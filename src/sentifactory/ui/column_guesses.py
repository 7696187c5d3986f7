"""Guesses which columns of an uploaded file hold the reviews and the labels, by their cells and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from sentifactory.corpus.files.columns import (
    LABEL_COLUMNS,
    STAR_COLUMNS,
    TEXT_COLUMNS,
    find_predictions,
    names_stars,
    normalise_name,
)
from sentifactory.corpus.reading.label_column import FEW_CELLS
from sentifactory.corpus.reading.label_reader import count_stars
from sentifactory.task.label_names import normalise_label
from sentifactory.task.task import Task
from sentifactory.ui.sentiment_words import SENTIMENT_WORDS, list_label_words

# Columns with more different cells than this hold no labels, unless they are stars.
MAX_LABELS = 20
_LABEL_NAMES = frozenset(LABEL_COLUMNS) - frozenset(STAR_COLUMNS)
# Numbers that many files use as labels: two or three classes, or classes around 0.
_CLASSES = ({"0", "1"}, {"0", "1", "2"}, {"-1", "0", "1"}, {"-1", "1"})
_FIVE_STARS = {"1", "2", "3", "4", "5"}


class Recognised(IntEnum):
    """As what the cells of a column are recognised, the most certain last."""

    NOTHING = 0
    NUMBERS = 1  # of classes, or from 1 to 5
    STARS = 2  # by the name of the column, or spelled: 5星, ★★★
    TASK = 3  # labels of an offered task
    SENTIMENT = 4  # words for good, neutral and bad
    CHOSEN_TASK = 5  # labels of the task of the chosen model


@dataclass(frozen=True, slots=True)
class LabelWords:
    """The words by which a column of labels is recognised.

    Attributes:
        chosen: of the task that is chosen already.
        offered: of all tasks.
    """

    chosen: frozenset[str] = frozenset()
    offered: frozenset[str] = frozenset()

    @classmethod
    def collect(cls, offered: Iterable[Task], chosen: Task | None = None) -> LabelWords:
        """Return the words of some tasks."""
        return cls(list_label_words([chosen] if chosen is not None else []), list_label_words(offered))


def recognise_cells(name: str, cells: Sequence[str], words: LabelWords) -> Recognised:
    """Return as what the cells of a column are recognised; a few of them may be anything.

    Example:
        >>> recognise_cells("结论", ["好评", "差评"], LabelWords()).name
        'SENTIMENT'
        >>> recognise_cells("平台", ["京东", "淘宝"], LabelWords()).name
        'NOTHING'
    """
    counts = Counter(word for cell in cells if (word := normalise_label(cell)))
    n_enough = (1 - FEW_CELLS) * counts.total()
    if not counts:
        return Recognised.NOTHING
    levels = (
        (Recognised.CHOSEN_TASK, words.chosen),
        (Recognised.SENTIMENT, SENTIMENT_WORDS),
        (Recognised.TASK, words.offered),
    )
    for level, known in levels:
        if sum(n for word, n in counts.items() if word in known) >= n_enough:
            return level
    n_stars = sum(n for word, n in counts.items() if count_stars(word) is not None)
    n_spelled = sum(n for word, n in counts.items() if count_stars(word) is not None and not _is_number(word))
    if n_spelled >= n_enough or (n_stars >= n_enough and names_stars(name)):
        return Recognised.STARS
    usual = {word for word, n in counts.items() if n > FEW_CELLS * counts.total()}
    are_labels = len(usual) > 1 and (usual in _CLASSES or usual <= _FIVE_STARS)
    is_named = normalise_name(name) in _LABEL_NAMES and usual <= {"-1", "0", "1", "2"}
    return Recognised.NUMBERS if are_labels or (is_named and usual) else Recognised.NOTHING


def guess_text(
    names: Sequence[str], rows: Sequence[Sequence[str]], words: LabelWords, taken: str | None
) -> str | None:
    """Return the column of the reviews: with a well-known name if there is one, then that of the longest texts.

    A column called 评价 may hold the labels 好评 and 差评: what is recognised as labels is no text.

    Args:
        names: of the columns.
        rows: the first ones, with a cell for each column.
        words: by which labels are recognised.
        taken: the column of the labels, where it is chosen already.
    """
    ranks: dict[str, tuple[bool, bool, int]] = {}
    for at, name in enumerate(names):
        cells = [row[at] for row in rows]
        if name != taken and names.count(name) == 1:
            is_text = not rows or recognise_cells(name, cells, words) == Recognised.NOTHING
            ranks[name] = (is_text, normalise_name(name) in TEXT_COLUMNS, sum(map(len, cells)))
    return max(ranks, key=lambda name: ranks[name]) if ranks else None


def guess_label(
    names: Sequence[str], rows: Sequence[Sequence[str]], words: LabelWords, taken: str | None
) -> str | None:
    """Return the column of the labels; None where no column can be one.

    Columns whose cells are recognised come before all others: a file of reviews has many columns of few different
    cells, such as shops and towns, and a model of these would be of no use.

    Args:
        names: of the columns.
        rows: the first ones, with a cell for each column.
        words: by which labels are recognised.
        taken: the column of the reviews.
    """
    predicted = find_predictions(names)
    ranks: dict[str, tuple[int, int, int, int]] = {}
    for at, name in enumerate(names):
        if name == taken or names.count(name) > 1 or name in predicted:
            continue
        cells = [row[at] for row in rows if row[at].strip()]
        n_words = len({normalise_name(cell) for cell in cells})
        recognised = recognise_cells(name, cells, words)
        has_few = 2 <= n_words <= MAX_LABELS and 2 * n_words <= len(cells)
        rank = _rank_label(normalise_name(name), recognised, has_few=has_few)
        if rank:
            # The same number of different words: the later column, since the first ones often hold sources and groups.
            ranks[name] = (rank, recognised, -n_words, at)
    return max(ranks, key=lambda name: ranks[name]) if ranks else None


def _rank_label(name: str, recognised: Recognised, *, has_few: bool) -> int:
    """Return how likely a column is that of the labels, by its name and its cells; 0: not at all."""
    is_named = name in _LABEL_NAMES
    if is_named and recognised:
        return 5
    if recognised >= Recognised.TASK:
        return 4
    if is_named or recognised == Recognised.STARS:
        return 3
    return 2 if recognised else int(has_few or name in STAR_COLUMNS)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
