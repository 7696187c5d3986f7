"""Decides when invalid rows are a fault of the whole file, and describes them in one message."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from sentifactory.clean_text import drop_unseen
from sentifactory.corpus.reading.label_column import FEW_CELLS
from sentifactory.corpus.reading.label_reader import LabelReader, count_stars
from sentifactory.corpus.reading.label_scales import Scale, are_classes, suggest_threshold
from sentifactory.corpus.reading.read_result import ReadResult, RejectedRow
from sentifactory.errors import DataError
from sentifactory.records import Reason
from sentifactory.system.command_line import describe_command, quote_word
from sentifactory.task.fitting_task import describe_answers, find_fitting_tasks

FIX_ROW = "correct the row; sentifactory data prepare puts such rows aside, into rejected.csv"
# The advice where most rows of a file are invalid.
FIX_FILE = "export the file again, or give it in another form: most of its rows are faulty"
# Where a larger share of the labels is missing, they are in another column or file.
_MAX_MISSING_SHARE = 0.5
# An unknown label that occurs more often than this is not a typing error, however long the file is.
_MAX_TYPING_ERRORS = 5
_LISTED = 5
_DESCRIBE_TASK = (
    "describe all of its labels in a task file, as examples/tasks/three_classes.yaml does, and name it with --task"
)
# A column with more different words, or longer ones, is probably not the label column.
_MAX_WORDS = 8
_MAX_WORD_CHARS = 30
_NUMBER = re.compile(r"\d+")
# Of two unknown words, the one that matches this is the negative one.
_LOOKS_BAD = re.compile(
    "[不没无差坏踩否反劣输负糟烂厌👎]|非(?!常)|错误"
    r"|(?<![^\W_])(?:un(?!i)|dis(?!c)|not|non|no(?![^\W_])|n(?![^\W_])|neg|bad|fals|f(?![^\W_])|down|sad|hat|poor|-(?:\d|$))",
    re.IGNORECASE,
)
_GOOD_ALL_THE_SAME = re.compile("不错|不差|不赖|没毛病|无敌")


def describe_rejected(result: ReadResult, labels: LabelReader) -> DataError:
    """Return the error that describes the first invalid row in full, and the others by their lines."""
    first, *more = result.rejected
    what = first.detail[0].upper() + first.detail[1:]
    if more:
        lines = ", ".join(str(row.source.line) for row in more[:_LISTED]) + (", ..." if len(more) > _LISTED else "")
        what += f" ({len(more)} more invalid row{'s' * (len(more) > 1)}: line{'s' * (len(more) > 1)} {lines})"
    if first.reason == Reason.BROKEN_ROW:
        is_few = len(result.rejected) <= len(result.reviews)
        return DataError(what, where=str(first.source), next_step=FIX_ROW if is_few else FIX_FILE, code="rows-broken")
    return DataError(
        what,
        where=str(first.source),
        expected=labels.describe(),
        next_step="correct the label, or name the task that has it with --task",
        code="label-unknown",
    )


def refuse_unsound(result: ReadResult, name: str, labels: LabelReader) -> None:
    """Refuse a file in which more than a few rows are invalid.

    Raises:
        DataError: when it has no rows, no usable ones, more broken than valid ones, labels of another task, or lacks
            most of its labels.
    """
    n_rows = len(result.reviews) + len(result.rejected)
    if n_rows == 0:
        raise DataError(
            "The file has a header and no rows", where=name, next_step="give a file with a review", code="file-empty"
        )
    n_broken = sum(row.reason == Reason.BROKEN_ROW for row in result.rejected)
    n_unknown = sum(row.reason == Reason.UNKNOWN_LABEL for row in result.rejected)
    refuse_missing_labels(result)
    if n_unknown > FEW_CELLS * (n_rows - n_broken) and not labels.is_mapped:
        raise _describe_other_labels(result, n_rows, labels)
    if n_unknown and labels.is_mapped and not any(review.label is not None for review in result.reviews):
        raise _describe_other_labels(result, n_rows, labels)
    if result.rejected and (n_broken > n_rows - n_broken or not result.reviews):
        raise describe_rejected(result, labels)


def refuse_missing_labels(result: ReadResult) -> None:
    """Raise a DataError for a file that lacks most of its labels: they are in another column or file."""
    # In a chat with a labelled round the other rounds need no label.
    chats = {one.source.line for one in result.reviews if one.source and one.source.round and one.label is not None}
    missing = [row for row in result.rejected if row.reason == Reason.NO_LABEL and row.source.line not in chats]
    n_others = sum(row.reason not in (Reason.NO_LABEL, Reason.BROKEN_ROW) for row in result.rejected)
    n_texts = len(missing) + n_others + sum(review.label is not None for review in result.reviews)
    if len(missing) <= _MAX_MISSING_SHARE * n_texts:
        return
    why = Counter(row.detail for row in missing).most_common(1)[0][0]
    is_formula = "formula" in why
    raise DataError(
        f"{len(missing)} of {n_texts} reviews have no label: {why}",
        where=str(missing[0].source),
        expected="a label in each row",
        next_step=(
            "open the workbook in Excel or WPS and save it, or paste the labels as values"
            if is_formula
            else "check which column holds the labels, or give a copy of the file with only the labelled rows"
        ),
        code="labels-missing",
    )


def refuse_other_labels(result: ReadResult, labels: LabelReader) -> None:
    """Refuse a file of which every row must be valid if its unknown labels are not typing errors.

    Raises:
        DataError: when they are many, or one of them occurs often: these are the labels of another task.
    """
    words = _count_unknown(result.rejected)
    n_unknown, n_rows = words.total(), len(result.reviews) + len(result.rejected)
    is_many = n_unknown > 1 and n_unknown > FEW_CELLS * n_rows
    if not labels.is_mapped and (is_many or max(words.values(), default=0) > _MAX_TYPING_ERRORS):
        raise _describe_other_labels(result, n_rows, labels)


def describe_other_class(result: ReadResult, name: str, labels: LabelReader) -> str | None:
    """Return a warning that a frequent unknown label, whose rows are put aside, is a class; None where there is none.

    Args:
        result: of a file in which most labels are known.
        name: of the file.
        labels: read them.
    """
    words = _count_unknown(result.rejected)
    frequent = {word: n for word, n in words.items() if n > _MAX_TYPING_ERRORS}
    if labels.is_mapped or not frequent:
        return None
    scales = [scale for file in result.inputs if (scale := file.scale)]
    listed = ", ".join(f"{word} ({_times(n)})" for word, n in frequent.items())
    return (
        f"Warning: {name}: {listed} is not in the task {labels.task.name}, and the rows are put aside. Where it is a "
        f"class of its own, {suggest_task(words, scales) or _DESCRIBE_TASK}."
    )


def _describe_other_labels(result: ReadResult, n_rows: int, labels: LabelReader) -> DataError:
    """Return the error for a file with labels of another task, or unknown words."""
    words = _count_unknown(result.rejected)
    first = next(row for row in result.rejected if row.reason == Reason.UNKNOWN_LABEL)
    listed = ", ".join(f"{word} ({_times(n)})" for word, n in words.most_common(_LISTED))
    known = Counter(review.label for review in result.reviews if review.label is not None)
    its_own = ", ".join(f"{labels.names[label]} ({_times(known[label])})" for label in sorted(known))
    scales = [scale for file in result.inputs if (scale := file.scale)]
    numbers = frozenset[float]().union(*(scale.numbers for scale in scales))
    if fitting := suggest_task(words, scales):
        next_step = fitting
    elif not labels.can_map:
        next_step = (
            "name the task that the file was labelled for with --task (a YAML file such as those in examples/tasks), "
            "or convert the file to this task with sentifactory data prepare"
        )
    elif labels.is_mapped or not all(count_stars(word.strip("'")) is not None for word in words):
        next_step = suggest_map(scales, labels)
    elif labels.has_moods and labels.threshold is None and not are_classes(numbers):
        threshold = f"--star_threshold {suggest_threshold(numbers):g}"
        next_step = f"run data prepare with {threshold} if these are stars, or choose another --task"
        if len(numbers) == 2:
            low, high = (f"{number:g}" for number in sorted(numbers))
            own = f"--label_map {low}=negative --label_map {high}=positive"
            next_step = next_step.replace(", or choose", f", with {own} if these are two labels, or choose")
    else:
        next_step = "choose the --task that has these labels"
    return DataError(
        f"{words.total()} of {n_rows} labels are not in the "
        + ("map" if labels.is_mapped else f"task {labels.task.name}")
        + f": {listed}"
        + ", ..." * (len(words) > _LISTED)
        + (f"; those that are: {its_own}" if its_own else ""),
        where=str(first.source),
        expected=labels.describe(),
        next_step=next_step,
        code="labels-unknown",
    )


def suggest_task(unknown: Counter[str], scales: Sequence[Scale]) -> str:
    """Return the next step for a file with the labels of a task that we have; "" where there is none.

    Args:
        unknown: how often each label occurs that the present task lacks, as displayed; rare ones may be typing errors.
        scales: of the files.
    """
    common = dict(pair for scale in scales for pair in scale.common)
    frequent = {word for word, n in unknown.items() if n > _MAX_TYPING_ERRORS} or {*unknown}
    cells = [cell for cell, label in common.items() if label is not None or repr(cell) in frequent]
    if not frequent <= {repr(cell) for cell in cells}:
        return ""
    found = find_fitting_tasks(cells)
    tasks = [f"{describe_answers(task)}: {describe_command()} --task {quote_word(name)}" for name, task in found]
    return f"use the task that has these labels, {'; or '.join(tasks)}" if tasks else ""


def suggest_map(scales: Sequence[Scale], labels: LabelReader) -> str:
    """Return the next step for unknown words: options to paste, with the words of the file."""
    common = dict(pair for scale in scales for pair in scale.common)
    known = {word: label for word, label in common.items() if label is not None}
    others = words = [
        word
        for word in common
        if word not in known and drop_unseen(word).isprintable() and len(word) <= _MAX_WORD_CHARS
    ]
    if not others or len(common) > _MAX_WORDS:
        return "check which column holds the labels, or choose another --task"
    free = [label for label in labels.names if label not in known.values()]
    if {"negative", "positive"} <= {*free}:
        others, free = _find_opposites(others), ["negative", "positive"]
    if free and (not others or (len(others) > 1 and len(free) > 1 and free != ["negative", "positive"])):
        # It is unknown which word means which label, and a pasted wrong guess would swap the labels.
        options = " ".join(f"--label_map {quote_word(f'{_tidy(word)}=LABEL')}" for word in words[:2])
        return (
            f"map each word to its label with one --label_map each, as in {options}, where LABEL is one of "
            f"{', '.join(labels.names)}; or choose another --task"
        )
    pairs = [*known.items(), *zip(others, free, strict=False)]
    options = " ".join(f"--label_map {quote_word(f'{_tidy(word)}={label}')}" for word, label in pairs)
    if len(pairs) < len(common):  # a map would leave out the reviews with the other labels
        return _DESCRIBE_TASK
    return f"run data prepare with {options} if that is what they mean, or choose another --task"


def _find_opposites(words: list[str]) -> list[str]:
    """Return the word that seems negative and the one that seems positive; [] where none does."""
    numbers = {word: int(match[0]) for word in words if (match := _NUMBER.search(word))}
    if len(words) <= 2 and len(numbers) == len(words):
        return sorted(words, key=numbers.__getitem__)
    bad = [word for word in words if _LOOKS_BAD.search(_GOOD_ALL_THE_SAME.sub("", word))]
    good = [word for word in words if word not in bad]
    return [bad[0], good[0]] if bad and good else bad if len(words) == 1 else []


def _tidy(word: str) -> str:
    return drop_unseen(word).strip()


def _count_unknown(rejected: list[RejectedRow]) -> Counter[str]:
    """Return how often each unknown label, as displayed, occurs in the rejected rows."""
    unknown = (row for row in rejected if row.reason == Reason.UNKNOWN_LABEL)
    return Counter(row.detail.removeprefix("the label is ") for row in unknown)


def _times(n: int) -> str:
    return f"{n} time{'s' * (n != 1)}"
