"""Does an exported model answer as its checkpoint does? Label flips and differences of probability, with limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.errors import ConfigError, EngineError
from sentifactory.evaluation.significance import Interval, compute_wilson_interval
from sentifactory.records import Prediction, Review


@dataclass(frozen=True, slots=True)
class ParityLimits:
    """Beyond which an export is refused.

    Attributes:
        flips: share of reviews whose label may be another one.
        difference: how far the probabilities may differ, on the mean over the reviews.
    """

    flips: float
    difference: float


# Writing the same float32 computation in another form changes roundings and nothing else: a label flips only where two
# are all but equal.
FLOAT32_LIMITS = ParityLimits(flips=0.002, difference=1e-4)
# What int8 may cost an encoder; an export that was allowed more is no proof of what its checkpoint is worth.
INT8_LIMITS = ParityLimits(flips=0.01, difference=0.02)


@dataclass(frozen=True, slots=True)
class Parity:
    """How an export's answers compare with its checkpoint's, on the same reviews.

    The difference of a review is the largest one among its labels' probabilities, without sign. A review that just one
    of the two gives no answer to is a flip; where there are no probabilities of both there is no difference either.

    Attributes:
        reviews: how many were asked.
        missing: how many have no probabilities of both.
        flips: how many get another label.
        flip_share: of the reviews.
        flip_interval: 95 % interval of that share.
        difference_mean: over the reviews.
        difference_p95: which 95 of 100 reviews do not exceed.
        difference_max: of the review that differs most.
        accuracy: of the export, on the reviews whose label is known; None where none is.
        accuracy_checkpoint: of the checkpoint, likewise.
        limits: beyond which it would have been refused.
    """

    reviews: int
    missing: int
    flips: int
    flip_share: float
    flip_interval: Interval
    difference_mean: float
    difference_p95: float
    difference_max: float
    accuracy: float | None
    accuracy_checkpoint: float | None
    limits: ParityLimits

    @property
    def is_within_limits(self) -> bool:
        """Whether the export may stand for the checkpoint; figures that are no numbers are beyond every limit."""
        return self.flip_share <= self.limits.flips and self.difference_mean <= self.limits.difference

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return asdict(self)

    def refuse_beyond_limits(self, where: str, what: str, next_step: str) -> None:
        """Stop an export that does not answer as its checkpoint does.

        Raises:
            EngineError: with the figures and the limits.
        """
        if self.is_within_limits:
            return
        raise EngineError(
            f"{what} answers otherwise than the checkpoint: {self.flips} of {self.reviews} labels flip "
            f"({self.flip_share:.2%}), probabilities differ by {self.difference_mean:.4f} on the mean and "
            f"{self.difference_max:.4f} at most; nothing was written",
            where=where,
            expected=f"at most {self.limits.flips:.2%} flipped labels and a mean difference of at most "
            f"{self.limits.difference:g}",
            next_step=next_step,
        )


def check_limits(limits: ParityLimits) -> None:
    """Refuse limits that are no shares.

    Raises:
        ConfigError: naming the option.
    """
    for option, value in (("max_flips", limits.flips), ("max_difference", limits.difference)):
        if not 0 <= value <= 1:
            raise ConfigError(f"--{option} is {value:g}", expected="a share from 0 to 1, such as 0.01")


def compare_answers(
    reviews: Sequence[Review],
    checkpoint: Sequence[Prediction],
    export: Sequence[Prediction],
    limits: ParityLimits,
) -> Parity:
    """Return how the answers of an export compare with those of its checkpoint.

    Args:
        reviews: (n,) what was asked; the labels that are known give the accuracies.
        checkpoint: (n,) its answers, with probabilities.
        export: (n,) likewise.
        limits: beyond which the export is refused.

    Raises:
        EngineError: when no review was answered by both with probabilities.
    """
    import numpy as np

    pairs = [
        (one.probabilities, other.probabilities)
        for one, other in zip(checkpoint, export, strict=True)
        if one.probabilities is not None and other.probabilities is not None
    ]
    if not pairs:
        n_before, n_after = (sum(one.label is not None for one in answers) for answers in (checkpoint, export))
        raise EngineError(
            f"No review was answered by both: of {len(reviews)} the checkpoint answered {n_before} and its export "
            f"{n_after}",
            expected="probabilities from both, to compare",
            next_step="see whether the checkpoint's weights are numbers, and give reviews that fit into its input",
        )
    before, after = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))  # (n_known, n_labels)
    differences = np.abs(before - after).max(axis=1)  # (n_known,)
    flips = sum(one.label != other.label for one, other in zip(checkpoint, export, strict=True))
    return Parity(
        reviews=len(reviews),
        missing=len(reviews) - len(pairs),
        flips=flips,
        flip_share=flips / len(reviews),
        flip_interval=compute_wilson_interval(flips, len(reviews)),
        difference_mean=float(differences.mean()),
        difference_p95=float(np.quantile(differences, 0.95)),
        difference_max=float(differences.max()),
        accuracy=_compute_accuracy(reviews, export),
        accuracy_checkpoint=_compute_accuracy(reviews, checkpoint),
        limits=limits,
    )


def _compute_accuracy(reviews: Sequence[Review], answers: Sequence[Prediction]) -> float | None:
    known = [
        answer.label == review.label
        for review, answer in zip(reviews, answers, strict=True)
        if review.label is not None
    ]
    return sum(known) / len(known) if known else None
