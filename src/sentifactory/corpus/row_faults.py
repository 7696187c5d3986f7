"""Says when faulty rows are the fault of the file, and puts them into one message."""

from __future__ import annotations

from collections import Counter

from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.intake import Intake, RejectedRow
from sentifactory.corpus.labels import LabelReader, count_stars
from sentifactory.errors import DataError

# A file in which more labels than this are unknown is not badly typed: it is labelled in another way.
_UNKNOWN_LABELS = 0.05
# A file in which more labels than this are missing has them somewhere else.
_MISSING_LABELS = 0.5
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
    return DataError(what, where=str(first.source), expected=labels.describe(), next_step="correct or remove the row")


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
    n_missing = sum(row.reason == Reason.NO_LABEL for row in intake.rejected)
    n_texts = n_rows - n_broken - sum(review.label is None for review in intake.reviews)
    if n_missing > _MISSING_LABELS * n_texts:
        raise _describe_missing_labels(intake.rejected, n_texts)
    if n_unknown > _UNKNOWN_LABELS * (n_rows - n_broken) and not labels.is_mapped:
        raise describe_other_labels(intake.rejected, n_rows, labels)
    if intake.rejected and (n_broken > n_rows - n_broken or not intake.reviews):
        raise describe_rejected(intake.rejected, labels)


def _describe_missing_labels(rejected: list[RejectedRow], n_texts: int) -> DataError:
    missing = [row for row in rejected if row.reason == Reason.NO_LABEL]
    why = Counter(row.detail for row in missing).most_common(1)[0][0]
    is_formula = "formula" in why
    return DataError(
        f"{len(missing)} of {n_texts} reviews have no label: {why}",
        where=str(missing[0].source),
        expected="a label in each row",
        next_step=(
            "open the workbook in Excel or WPS and save it, or paste the labels as values"
            if is_formula
            else "check which column holds the labels, or give a copy of the file with the labelled rows alone"
        ),
    )


def describe_other_labels(rejected: list[RejectedRow], n_rows: int, labels: LabelReader) -> DataError:
    """Return the error for a file whose labels are those of another task, or stars.

    Args:
        rejected: the rejected rows, of which some have unknown labels.
        n_rows: rows in all.
        labels: says what is accepted.
    """
    unknown = [row for row in rejected if row.reason == Reason.UNKNOWN_LABEL]
    words = Counter(row.detail.removeprefix("the label is ") for row in unknown)
    listed = ", ".join(f"{word} ({n} times)" for word, n in words.most_common(_LISTED))
    is_stars = all(count_stars(word.strip("'")) is not None for word in words)
    return DataError(
        f"{len(unknown)} of {n_rows} labels are not those of the task: {listed}" + ", ..." * (len(words) > _LISTED),
        where=str(unknown[0].source),
        expected=labels.describe(),
        next_step=(
            "say where the line between bad and good is, as in --star_threshold 3"
            if is_stars
            else "say what they mean, as in --label_map 满意=positive,不满意=negative, or choose another --task"
        ),
    )
