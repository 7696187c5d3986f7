"""Says when faulty rows are the fault of the file, and puts them into one message."""

from __future__ import annotations

from collections import Counter

from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.intake import Intake, RejectedRow
from sentifactory.corpus.labels import LabelReader, count_stars
from sentifactory.errors import DataError
from sentifactory.records import Review

# A file in which more labels than this are unknown is not badly typed: it is labelled in another way.
_UNKNOWN_LABELS = 0.05
# Nor is one in which the same unknown label stands more often than this, however long it is.
_SLIPS = 5
_LISTED = 5


def describe_rejected(rejected: list[RejectedRow], labels: LabelReader) -> DataError:
    """Return the error that tells the first of several bad rows in full, and the others by their lines."""
    first, more = rejected[0], rejected[1:]
    what = first.detail[0].upper() + first.detail[1:]
    if more:
        lines = ", ".join(str(row.source.line) for row in more[:_LISTED]) + (", ..." if len(more) > _LISTED else "")
        what += f" ({len(more)} more bad row{'s' * (len(more) > 1)}: line{'s' * (len(more) > 1)} {lines})"
    if first.reason == Reason.BROKEN_ROW:
        return DataError(what, where=str(first.source), next_step="correct or remove the row")
    return DataError(
        what,
        where=str(first.source),
        expected=labels.describe(),
        next_step="correct the label, or name the task that has it by --task",
    )


def refuse_unsound(intake: Intake, name: str, labels: LabelReader) -> None:
    """Refuse a file whose faults are not those of a few rows.

    Raises:
        DataError: when it has no rows, none that can be used, more broken than sound ones, or other labels.
    """
    n_rows = len(intake.reviews) + len(intake.rejected)
    if n_rows == 0:
        raise DataError("The file has a header and no rows", where=name, next_step="give a file with a review")
    n_broken = sum(row.reason == Reason.BROKEN_ROW for row in intake.rejected)
    n_unknown = sum(row.reason == Reason.UNKNOWN_LABEL for row in intake.rejected)
    if n_unknown > _UNKNOWN_LABELS * (n_rows - n_broken) and not labels.is_mapped:
        raise describe_other_labels(intake.reviews, intake.rejected, labels)
    if intake.rejected and (n_broken > n_rows - n_broken or not intake.reviews):
        raise describe_rejected(intake.rejected, labels)


def refuse_other_labels(intake: Intake, labels: LabelReader) -> None:
    """Refuse a file of which every row must be sound when its unknown labels are no slips of the pen.

    Raises:
        DataError: when they are many, or one of them comes again and again: these are the labels of another task.
    """
    words = _count_unknown(intake.rejected)
    n_unknown, n_rows = words.total(), len(intake.reviews) + len(intake.rejected)
    is_many = n_unknown > 1 and n_unknown > _UNKNOWN_LABELS * n_rows
    if not labels.is_mapped and (is_many or max(words.values(), default=0) > _SLIPS):
        raise describe_other_labels(intake.reviews, intake.rejected, labels)


def describe_other_labels(reviews: list[Review], rejected: list[RejectedRow], labels: LabelReader) -> DataError:
    """Return the error for a file whose labels are those of another task, or stars.

    Args:
        reviews: the sound rows.
        rejected: the rejected rows, of which some have unknown labels.
        labels: says what is accepted.
    """
    unknown, task = _count_unknown(rejected), labels.task
    listed = ", ".join(f"{word} ({_times(n)})" for word, n in unknown.most_common(_LISTED))
    known = Counter(review.label for review in reviews if review.label is not None)
    its_own = ", ".join(f"{task.labels[label]} ({_times(known[label])})" for label in sorted(known))
    is_stars = all(count_stars(word.strip("'")) is not None for word in unknown)
    first = next(row for row in rejected if row.reason == Reason.UNKNOWN_LABEL)
    return DataError(
        f"{unknown.total()} of {len(reviews) + len(rejected)} labels are not those of the task {task.name}: {listed}"
        + ", ..." * (len(unknown) > _LISTED)
        + (f"; those that are: {its_own}" if its_own else ""),
        where=str(first.source),
        expected=labels.describe(),
        next_step=_advise(labels, is_stars=is_stars),
    )


def _advise(labels: LabelReader, *, is_stars: bool) -> str:
    if not labels.can_map:
        return (
            "name the task that the file was labelled for by --task (a YAML file such as those in examples/tasks), or "
            "bring the file to this one with sentifactory data prepare"
        )
    if is_stars:
        return "say where the line between bad and good is, as in --star_threshold 3, or choose another --task"
    return "say what they mean, as in --label_map 满意=positive,不满意=negative, or choose another --task"


def _count_unknown(rejected: list[RejectedRow]) -> Counter[str]:
    """Return how often each unknown label stands in the rejected rows, as it is shown."""
    unknown = (row for row in rejected if row.reason == Reason.UNKNOWN_LABEL)
    return Counter(row.detail.removeprefix("the label is ") for row in unknown)


def _times(n: int) -> str:
    return f"{n} time{'s' * (n != 1)}"
