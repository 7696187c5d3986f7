"""Adapts the answers of a labelling to the labels' shares among its rows, which are known only after the last row.

Until then the growing output holds the uncorrected probabilities of every row instead of its answer (`n_labels` 64-bit
numbers a row, NaN where it has none). The output is written from them and from the input, with the answer before the
adaptation next to the one after it. Where the evidence is too thin, the probabilities stay: the same command without
--adapt_prior writes the answers as they are, and asks the model nothing.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sentifactory.errors import ConfigError
from sentifactory.metrics.number_formats import format_p_value, format_percent
from sentifactory.metrics.prior_shift import (
    NO_CORRECTION,
    adapt_calibration,
    estimate_shares,
    explain_few,
    explain_thin,
)
from sentifactory.records import Prediction
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.labelling.resumable_output import ResumableOutput, name_journal, read_journal
from sentifactory.serving.labelling.row_files import BAD, UNSURE, Answer, RowFile, WholeRow
from sentifactory.system.progress import show_progress
from sentifactory.task.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

# In the settings of a labelling whose growing output holds probabilities: one that was begun with this option.
KEPT_PROBABILITIES = {"--adapt_prior": True}
_CHUNK_ROWS = 2048
_FIT = "`sentifactory eval compare --mode score --val_path VAL.csv` fits one and saves it with the model"


@dataclass(frozen=True, slots=True)
class Adaptation:
    """How the rows of a finished labelling are answered.

    Attributes:
        before: decides as without adaptation.
        after: decides for the estimated shares; `before` where no shift is shown, or none was asked for.
        is_asked: whether answers before and after are written.
        counts: of the answers, by label.
        counts_before: of the answers without adaptation.
        shift: `PriorShift.to_dict` of the estimate; None where none was asked for.
    """

    before: AnswerFormatter
    after: AnswerFormatter
    is_asked: bool
    counts: dict[str, int]
    counts_before: dict[str, int]
    shift: dict[str, Any] | None

    def describe(self, task: Task) -> dict[str, Any] | None:
        """Return the estimate by label, for the summary; None where none was asked for."""
        if self.shift is None:
            return None
        columns = (self.shift[key] for key in ("shares", "intervals", "source_shares"))
        return {
            "adapted": self.after is not self.before,
            "p_value": self.shift["p_value"],
            "reviews": self.shift["reviews"],
            "shares": {
                label: {"share": share, "low": interval["low"], "high": interval["high"], "validation": source}
                for label, share, interval, source in zip(task.labels, *columns, strict=True)
            },
            "counts_before": self.counts_before,
        }


def refuse_early(formatter: AnswerFormatter, n_rows: int) -> None:
    """Refuse, before the model is asked, what cannot be adapted.

    Raises:
        ConfigError: when the model has no bias correction, or there are too few rows.
    """
    calibration = formatter.calibration
    if calibration is None or calibration.bias_correction is None:
        raise ConfigError(
            f"Answers cannot be adapted: {NO_CORRECTION.en}",
            where="--adapt_prior",
            next_step=f"{_FIT}; TF-IDF has one as a part of a stack (`sentifactory model stack`)",
            code="prior-no-correction",
        )
    if (few := explain_few(n_rows)) is not None:
        raise ConfigError(
            f"Answers cannot be adapted: {few.en}",
            where="--adapt_prior",
            next_step="label without it",
            code="prior-thin",
        )


def keeps_probabilities(out: Path) -> bool:
    """Return whether an unfinished labelling keeps probabilities; raises what `read_journal` raises."""
    found = read_journal(name_journal(out))
    return found is not None and KEPT_PROBABILITIES.items() <= found["settings"].items()


def encode_probabilities(predictions: Sequence[Prediction | None], n_labels: int) -> bytes:
    """Return the bytes that are kept of some rows; NaN for one without an answer."""
    import numpy as np

    missing = (float("nan"),) * n_labels
    kept = [(one.probabilities if one and one.label is not None else None) or missing for one in predictions]
    return np.array(kept, dtype="<f8").tobytes()


def decode_probabilities(kept: bytes, n_labels: int) -> NDArray:
    """Return the kept probabilities (n_rows, n_labels)."""
    import numpy as np

    return np.frombuffer(kept, dtype="<f8").reshape(-1, n_labels)


def decide_adaptation(output: ResumableOutput, formatter: AnswerFormatter, *, adapt_prior: bool) -> Adaptation:
    """Return how the rows are answered, and note it in the journal for a run that is killed while it writes them.

    Raises:
        ConfigError: when the evidence for the shares is too thin; or when a killed run wrote the output otherwise.
    """
    task = formatter.task
    note = output.note
    if note is None or note["adapt_prior"] != adapt_prior:
        if not output.has_rows:
            raise ConfigError(
                "This output is written already, with" + ("out" if adapt_prior else "") + " --adapt_prior",
                where=str(output.journal),
                next_step="run the command as it was before, or choose another output",
                code="prior-written-otherwise",
            )
        probabilities = decode_probabilities(output.read_rows(), len(task.labels))
        shift = _estimate(probabilities, formatter) if adapt_prior else None
        after = _adapt(formatter, shift)
        counts = output.counts if after is formatter else _count(probabilities, after, output.counts.get(BAD, 0))
        note = {"adapt_prior": adapt_prior, "shift": shift, "counts": counts}
        output.keep_note(note)
    return Adaptation(
        formatter, _adapt(formatter, note["shift"]), adapt_prior, note["counts"], output.counts, note["shift"]
    )


def _estimate(probabilities: NDArray, formatter: AnswerFormatter) -> dict[str, Any]:
    """Return the estimated shares as JSON values.

    Raises:
        ConfigError: when the evidence is too thin.
    """
    import numpy as np

    known = probabilities[~np.isnan(probabilities).any(axis=1)]
    thin = explain_few(len(known))
    correction = formatter.calibration.bias_correction if formatter.calibration else None
    if thin is None and correction is not None:
        shift = estimate_shares(known, correction)
        thin = explain_thin(shift)
        if thin is None:
            return shift.to_dict()
    raise ConfigError(
        f"Answers cannot be adapted: {(thin or NO_CORRECTION).en}",
        where="--adapt_prior",
        next_step="run the same command without --adapt_prior: the rows are answered already, and are written at once",
        code="prior-thin",
    )


def _adapt(formatter: AnswerFormatter, shift: dict[str, Any] | None) -> AnswerFormatter:
    """Return a formatter that decides for the estimated shares; the same one where no shift is shown."""
    if shift is None or not shift["is_shown"] or formatter.calibration is None:
        return formatter
    adapted = adapt_calibration(formatter.calibration, shift["shares"])
    return AnswerFormatter(formatter.task, formatter.model, adapted, formatter.threshold)


def _count(probabilities: NDArray, formatter: AnswerFormatter, n_bad: int) -> dict[str, int]:
    """Return how many rows get each label, none, or are bad."""
    counts = Counter({BAD: n_bad} if n_bad else {})
    for prediction in _read_predictions(probabilities):
        if prediction is not None:
            counts[_answer(formatter, prediction)[0] or UNSURE] += 1
    return dict(counts)


def _read_predictions(probabilities: NDArray) -> Iterator[Prediction | None]:
    """Yield the prediction of each row; None for one without an answer."""
    for row in probabilities.tolist():
        # A NaN is not equal to itself.
        yield None if row[0] != row[0] else Prediction(row.index(max(row)), tuple(row))


def _answer(formatter: AnswerFormatter, prediction: Prediction) -> tuple[str | None, float | None]:
    """Return label and probability; no label below the threshold."""
    decision = formatter.decide(prediction)
    assert decision is not None  # noqa: S101 - every kept prediction has a label
    return formatter.name_label(decision), decision.score


def write_adapted(kept: IO[bytes], whole: IO[bytes], rows: RowFile, adaptation: Adaptation, folder: Path) -> None:
    """Write the output from the kept probabilities and the input.

    Args:
        kept: the kept probabilities.
        whole: the output.
        rows: the input.
        adaptation: how its rows are answered.
        folder: for a temporary file, which has no name.
    """
    before, after = adaptation.before, adaptation.after
    probabilities = decode_probabilities(kept.read(), len(before.task.labels))
    pairs = zip(rows.iter_rows(), _read_predictions(probabilities), strict=True)
    is_direct = rows.complete is None
    with (
        nullcontext(whole) if is_direct else tempfile.TemporaryFile(dir=folder) as target,
        show_progress(f"Writing {rows.path.name}", total=len(probabilities), unit="rows") as progress,
    ):
        if is_direct:
            target.write(rows.head)
        while chunk := list(islice(pairs, _CHUNK_ROWS)):
            good: list[WholeRow] = []
            answers: list[Answer] = []
            for row, prediction in chunk:
                if prediction is not None and isinstance(row, WholeRow):
                    good.append(row)
                    label, score = _answer(after, prediction)
                    answers.append(Answer(label, score, after.model, *_answer(before, prediction)))
            if good:
                target.write(rows.encode(good, answers))
            progress.advance(len(chunk))
        if rows.complete is not None:
            target.seek(0)
            rows.complete(target, whole)


def describe_shift(shift: dict[str, Any] | None) -> list[str]:
    """Return a few lines about the estimated shares for the terminal; none where no estimate was asked for."""
    if shift is None:
        return []
    lines = [
        f"  {label}: {format_percent(own['share'])} of the reviews "
        f"({format_percent(own['low'])}–{format_percent(own['high'])}), "
        f"{format_percent(own['validation'])} of the validation reviews"
        for label, own in shift["shares"].items()
    ]
    if not shift["adapted"]:
        p_value = format_p_value(shift["p_value"])
        same = f"No other shares of the labels than in the validation file are shown ({p_value})"
        return [f"{same}; the answers are unchanged:", *lines]
    before = ", ".join(f"{number} {what}" for what, number in sorted(shift["counts_before"].items()))
    return ["The answers are adapted to the estimated shares of the labels:", *lines, f"  before: {before}"]
