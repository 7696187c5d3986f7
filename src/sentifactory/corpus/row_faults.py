"""Says when faulty rows are the fault of the file, and puts them into one message."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence

from sentifactory.corpus.cleaning import Reason, drop_unseen
from sentifactory.corpus.intake import Intake, RejectedRow
from sentifactory.corpus.labels import LabelReader, count_stars
from sentifactory.corpus.scales import FEW_CELLS, Scale, are_classes, suggest_line
from sentifactory.errors import DataError

MEND_ROW = "correct or remove the row"
# Nobody should be told to remove most of a file.
MEND_FILE = "export the file again, or give it in another form: most of its rows are faulty"
# A file in which more labels than this are missing has them somewhere else.
_MISSING_LABELS = 0.5
# Where the same unknown label stands more often than this it is no slip of the pen, however long the file is.
_SLIPS = 5
_LISTED = 5
# A column of more words, or of longer ones, is probably not that of the labels.
_MOST_WORDS = 8
_LONGEST_WORD = 30
_NUMBER = re.compile(r"\d+")
_PLAIN = re.compile(r"[\w=+.,:@%/-]+")
# Of two words that are unknown, the one that looks like this is bad.
_LOOKS_BAD = re.compile(
    "[不没无差坏踩否反劣输负糟烂厌👎]|非(?!常)|错误"
    r"|(?<![^\W_])(?:un(?!i)|dis(?!c)|not|non|no(?![^\W_])|n(?![^\W_])|neg|bad|fals|f(?![^\W_])|down|sad|hat|poor|-(?:\d|$))",
    re.IGNORECASE,
)
_GOOD_ALL_THE_SAME = re.compile("不错|不差|不赖|没毛病|无敌")


def describe_rejected(intake: Intake, labels: LabelReader) -> DataError:
    """Return the error that tells the first of several bad rows in full, and the others by their lines."""
    first, *more = intake.rejected
    what = first.detail[0].upper() + first.detail[1:]
    if more:
        lines = ", ".join(str(row.source.line) for row in more[:_LISTED]) + (", ..." if len(more) > _LISTED else "")
        what += f" ({len(more)} more bad row{'s' * (len(more) > 1)}: line{'s' * (len(more) > 1)} {lines})"
    if first.reason == Reason.BROKEN_ROW:
        is_few = len(intake.rejected) <= len(intake.reviews)
        return DataError(what, where=str(first.source), next_step=MEND_ROW if is_few else MEND_FILE)
    return DataError(
        what,
        where=str(first.source),
        expected=labels.describe(),
        next_step="correct the label, or name the task that has it by --task",
    )


def refuse_unsound(intake: Intake, name: str, labels: LabelReader) -> None:
    """Refuse a file whose faults are not those of a few rows.

    Raises:
        DataError: when it has no rows, none that can be used, more broken than sound ones, or other labels, or lacks
            most of its labels.
    """
    n_rows = len(intake.reviews) + len(intake.rejected)
    if n_rows == 0:
        raise DataError("The file has a header and no rows", where=name, next_step="give a file with a review")
    n_broken = sum(row.reason == Reason.BROKEN_ROW for row in intake.rejected)
    n_unknown = sum(row.reason == Reason.UNKNOWN_LABEL for row in intake.rejected)
    refuse_missing_labels(intake)
    if n_unknown > FEW_CELLS * (n_rows - n_broken) and not labels.is_mapped:
        raise _describe_other_labels(intake, n_rows, labels)
    if n_unknown and labels.is_mapped and not any(review.label is not None for review in intake.reviews):
        raise _describe_other_labels(intake, n_rows, labels)
    if intake.rejected and (n_broken > n_rows - n_broken or not intake.reviews):
        raise describe_rejected(intake, labels)


def refuse_missing_labels(intake: Intake) -> None:
    """Refuse a file that lacks most of its labels: they stand somewhere else.

    Raises:
        DataError: when it does.
    """
    # What else is said in a chat with a labelled round lacks no label.
    chats = {one.source.line for one in intake.reviews if one.source and one.source.round and one.label is not None}
    missing = [row for row in intake.rejected if row.reason == Reason.NO_LABEL and row.source.line not in chats]
    n_others = sum(row.reason not in (Reason.NO_LABEL, Reason.BROKEN_ROW) for row in intake.rejected)
    n_texts = len(missing) + n_others + sum(review.label is not None for review in intake.reviews)
    if len(missing) <= _MISSING_LABELS * n_texts:
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
            else "check which column holds the labels, or give a copy of the file with the labelled rows alone"
        ),
    )


def refuse_other_labels(intake: Intake, labels: LabelReader) -> None:
    """Refuse a file of which every row must be sound when its unknown labels are no slips of the pen.

    Raises:
        DataError: when they are many, or one of them comes again and again: these are the labels of another task.
    """
    words = _count_unknown(intake.rejected)
    n_unknown, n_rows = words.total(), len(intake.reviews) + len(intake.rejected)
    is_many = n_unknown > 1 and n_unknown > FEW_CELLS * n_rows
    if not labels.is_mapped and (is_many or max(words.values(), default=0) > _SLIPS):
        raise _describe_other_labels(intake, n_rows, labels)


def _describe_other_labels(intake: Intake, n_rows: int, labels: LabelReader) -> DataError:
    """Return the error for a file whose labels are those of another task, or words that are not known."""
    words = _count_unknown(intake.rejected)
    first = next(row for row in intake.rejected if row.reason == Reason.UNKNOWN_LABEL)
    listed = ", ".join(f"{word} ({_times(n)})" for word, n in words.most_common(_LISTED))
    known = Counter(review.label for review in intake.reviews if review.label is not None)
    its_own = ", ".join(f"{labels.names[label]} ({_times(known[label])})" for label in sorted(known))
    scales = [scale for file in intake.inputs if (scale := file.scale)]
    numbers = frozenset[float]().union(*(scale.numbers for scale in scales))
    if not labels.can_map:
        next_step = (
            "name the task that the file was labelled for by --task (a YAML file such as those in examples/tasks), or "
            "bring the file to this one with sentifactory data prepare"
        )
    elif labels.is_mapped or not all(count_stars(word.strip("'")) is not None for word in words):
        next_step = suggest_map(scales, labels)
    elif labels.has_moods and labels.threshold is None and not are_classes(numbers):
        line = suggest_line(numbers)
        next_step = f"run data prepare with --star_threshold {line:g} if these are stars, or choose another --task"
        if len(numbers) == 2:
            low, high = (f"{number:g}" for number in sorted(numbers))
            own = f"--label_map {low}=negative --label_map {high}=positive"
            next_step = next_step.replace(", or choose", f", with {own} if these are two labels, or choose")
    else:
        next_step = "choose the --task that has these labels"
    return DataError(
        f"{words.total()} of {n_rows} labels are not those of the "
        + ("map" if labels.is_mapped else f"task {labels.task.name}")
        + f": {listed}"
        + ", ..." * (len(words) > _LISTED)
        + (f"; those that are: {its_own}" if its_own else ""),
        where=str(first.source),
        expected=labels.describe(),
        next_step=next_step,
    )


def suggest_map(scales: Sequence[Scale], labels: LabelReader) -> str:
    """Return the next step where words are unknown: options that can be pasted, with the words of the file."""
    common = dict(pair for scale in scales for pair in scale.common)
    known = {word: label for word, label in common.items() if label is not None}
    others = words = [
        word for word in common if word not in known and drop_unseen(word).isprintable() and len(word) <= _LONGEST_WORD
    ]
    if not others or len(common) > _MOST_WORDS:
        return "check which column holds the labels, or choose another --task"
    free = [label for label in labels.names if label not in known.values()]
    if {"negative", "positive"} <= {*free}:
        others, free = _find_opposites(others), ["negative", "positive"]
    if free and (not others or (len(others) > 1 and len(free) > 1 and free != ["negative", "positive"])):
        # Nothing says which is which, and a pasted guess would turn the labels round.
        options = " ".join(f"--label_map {_quote(f'{_tidy(word)}=LABEL')}" for word in words[:2])
        return (
            f"say what each word means with one --label_map for each, as in {options}, where LABEL is one of "
            f"{', '.join(labels.names)}; or choose another --task"
        )
    pairs = [*known.items(), *zip(others, free, strict=False)]
    options = " ".join(f"--label_map {_quote(f'{_tidy(word)}={label}')}" for word, label in pairs)
    if not free:
        return f"choose the --task that has these labels, or run data prepare with {options} to leave the others out"
    left_out = " (other words are left out then)" if len(pairs) < len(common) else ""
    return f"run data prepare with {options} if that is what they mean{left_out}, or choose another --task"


def _find_opposites(words: list[str]) -> list[str]:
    """Return the word that seems to be the bad one and the one that seems to be the good one; [] where none does."""
    numbers = {word: int(match[0]) for word in words if (match := _NUMBER.search(word))}
    if len(words) <= 2 and len(numbers) == len(words):
        return sorted(words, key=numbers.__getitem__)
    bad = [word for word in words if _LOOKS_BAD.search(_GOOD_ALL_THE_SAME.sub("", word))]
    good = [word for word in words if word not in bad]
    return [bad[0], good[0]] if bad and good else bad if len(words) == 1 else []


def _tidy(word: str) -> str:
    return drop_unseen(word).strip()


def _quote(option: str) -> str:
    """Return an option as a shell takes it; `shlex` alone quotes all that is not ASCII."""
    return option if _PLAIN.fullmatch(option) else shlex.quote(option)


def _count_unknown(rejected: list[RejectedRow]) -> Counter[str]:
    """Return how often each unknown label stands in the rejected rows, as it is shown."""
    unknown = (row for row in rejected if row.reason == Reason.UNKNOWN_LABEL)
    return Counter(row.detail.removeprefix("the label is ") for row in unknown)


def _times(n: int) -> str:
    return f"{n} time{'s' * (n != 1)}"
