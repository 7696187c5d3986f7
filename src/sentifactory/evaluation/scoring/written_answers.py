"""The tuned model writes its answer: does it keep the form, and is the written label the scored one?

A comparison by `score` does not depend on the form of an answer. Whoever serves the model by plain generation does, so
that a sample of the test reviews is asked both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.metrics.number_formats import format_percent
from sentifactory.metrics.significance import compute_wilson_interval
from sentifactory.records import Prediction, Review


@dataclass(frozen=True, slots=True)
class WrittenAnswers:
    """What the tuned model wrote about some of the reviews of the first test file.

    Attributes:
        rows: (n,) places of these reviews in the test file's sample.
        predictions: (n,) parsed from the replies; the label is None where a reply states none.
        correct: how many state the true label.
        agreeing: how many state the label that scoring gives.
        scored_correct: for how many of these reviews scoring gives the true label.
    """

    rows: tuple[int, ...]
    predictions: tuple[Prediction, ...]
    correct: int
    agreeing: int
    scored_correct: int

    @property
    def unparsed(self) -> int:
        """How many replies state no label."""
        return sum(one.label is None for one in self.predictions)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, and every reply with the row of its review, as plain JSON values."""
        n = len(self.rows)
        return {
            "reviews": n,
            "unparsed": self.unparsed,
            "correct": self.correct,
            "accuracy": self.correct / n,
            "accuracy_interval": asdict(compute_wilson_interval(self.correct, n)),
            "agreeing": self.agreeing,
            "scored_correct": self.scored_correct,
            "replies": [
                {"row": row, "label": one.label, "raw": one.raw}
                for row, one in zip(self.rows, self.predictions, strict=True)
            ],
        }

    def describe(self) -> Sentence:
        """Return the figures as a sentence of the verdict."""
        n = len(self.rows)
        readable = n - self.unparsed
        share, agreement = format_percent(self.correct / n), format_percent(self.agreeing / n)
        return Sentence.write(
            f"Asked to write its answer to {n} of these reviews, the tuned model wrote a readable one to {readable}; "
            f"{share} are right, and {agreement} state the label that scoring gives.",
            f"让微调模型为其中 {n} 条评论写出回答：{readable} 条可识别，准确率 {share}，"
            f"{agreement} 与打分得到的标签一致。",
        )


def judge_written(
    rows: Sequence[int],
    reviews: Sequence[Review],
    written: Sequence[Prediction],
    scored: Sequence[Prediction],
) -> WrittenAnswers:
    """Return what written answers are worth.

    Args:
        rows: (n,) places of the asked reviews in the test file's sample.
        reviews: (n_reviews,) of the sample.
        written: (n,) the parsed replies.
        scored: (n_reviews,) of the same model, by probability.
    """
    return WrittenAnswers(
        tuple(rows),
        tuple(written),
        sum(one.label == reviews[row].label for row, one in zip(rows, written, strict=True)),
        sum(one.label is not None and one.label == scored[row].label for row, one in zip(rows, written, strict=True)),
        sum(scored[row].label == reviews[row].label for row in rows),
    )
