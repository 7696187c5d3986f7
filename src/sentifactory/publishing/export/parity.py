"""Compares an exported model with its checkpoint: flipped labels and probability differences, with limits.

An export is written to a new or empty folder, or replaces an earlier export.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError, EngineError
from sentifactory.metrics.significance import Interval, compute_wilson_interval
from sentifactory.publishing.model_files import is_of_model
from sentifactory.records import Prediction, Review
from sentifactory.system.json_text import read_json_object

_PARITY_KEY = "parity"  # in every export file
EXPORT_NAME = "sentifactory_export.json"


@dataclass(frozen=True, slots=True)
class ParityLimits:
    """Limits beyond which an export is refused.

    Attributes:
        flips: largest share of reviews whose label may change.
        difference: largest mean difference of the probabilities.
    """

    flips: float
    difference: float


# The same float32 computation in another form differs by rounding only: a label flips only where two are nearly tied.
FLOAT32_LIMITS = ParityLimits(flips=0.002, difference=1e-4)
# For int8 encoders. If an export was allowed more, a report on its checkpoint does not count for it.
INT8_LIMITS = ParityLimits(flips=0.01, difference=0.02)


@dataclass(frozen=True, slots=True)
class Parity:
    """How an export's answers differ from its checkpoint's on the same reviews.

    The difference of a review is the largest absolute difference among its labels' probabilities. A review that only
    one of the two answers counts as a flip; without probabilities from both it has no difference.

    Attributes:
        reviews: number of reviews compared.
        missing: reviews without probabilities from both.
        flips: reviews whose label changed.
        flip_share: share of flips among the reviews.
        flip_interval: 95 % confidence interval of that share.
        difference_mean: mean difference.
        difference_p95: 95th percentile of the differences.
        difference_max: largest difference.
        accuracy: of the export, on labelled reviews; None without labels.
        accuracy_checkpoint: of the checkpoint, likewise.
        limits: that the export had to keep.
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
        """Whether the export is close enough to its checkpoint; NaN is beyond every limit."""
        return self.flip_share <= self.limits.flips and self.difference_mean <= self.limits.difference

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return asdict(self)

    def refuse_beyond_limits(self, where: str, what: str, next_step: str) -> None:
        """Refuse an export that is beyond its limits.

        Raises:
            EngineError: with the figures and the limits.
        """
        if self.is_within_limits:
            return
        raise EngineError(
            f"{what} answers differently from the checkpoint: {self.flips} of {self.reviews} labels flip "
            f"({self.flip_share:.2%}), probabilities differ by {self.difference_mean:.4f} on average and "
            f"{self.difference_max:.4f} at most; nothing was written",
            where=where,
            expected=f"at most {self.limits.flips:.2%} flipped labels and a mean difference of at most "
            f"{self.limits.difference:g}",
            next_step=next_step,
        )


def check_limits(limits: ParityLimits) -> None:
    """Check that limits are between 0 and 1.

    Raises:
        ConfigError: naming the option.
    """
    for option, value in (("max_flips", limits.flips), ("max_difference", limits.difference)):
        if not 0 <= value <= 1:
            raise ConfigError(f"--{option} is {value:g}", expected="a number from 0 to 1, such as 0.01")


def compare_answers(
    reviews: Sequence[Review],
    checkpoint: Sequence[Prediction],
    export: Sequence[Prediction],
    limits: ParityLimits,
) -> Parity:
    """Return how an export's answers differ from its checkpoint's.

    Args:
        reviews: (n,) the reviews; those with a label give the accuracies.
        checkpoint: (n,) the checkpoint's answers, with probabilities.
        export: (n,) the export's answers, likewise.
        limits: that the export must keep.

    Raises:
        EngineError: when no review has probabilities from both.
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
            f"No review was answered by both models: of {len(reviews)} reviews the checkpoint answered {n_before} and "
            f"its export {n_after}",
            expected="probabilities from both, to compare",
            next_step="check the checkpoint's weights for NaN, and use reviews that fit into the model's input",
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


def refuse_foreign_folder(folder: Path, proof_name: str, kind: str | None = None) -> None:
    """Refuse an output folder that is neither new, nor empty, nor an earlier export of the same kind.

    Args:
        folder: of the export.
        proof_name: name of the file that marks an earlier export.
        kind: of the export, which that file states; None where it states none.

    Raises:
        ConfigError: when it is a file, a non-empty folder without that file, an export of another kind, or contains
            files that are not a model's.
    """
    if not os.path.lexists(folder):
        return
    unexpected = folder if not folder.is_dir() else _find_unexpected(folder, proof_name, kind)
    if unexpected is not None:
        raise ConfigError(
            "This was not written by an export of this kind, and would be removed",
            where=str(unexpected),
            expected="a new or empty folder, or an earlier export of the same kind",
            next_step="choose another --output_dir",
        )


def _find_unexpected(folder: Path, proof_name: str, kind: str | None) -> Path | None:
    found = sorted(folder.iterdir())
    proof = read_json_object(folder / proof_name) or {}
    if found and (_PARITY_KEY not in proof or proof.get("kind") != kind):
        return folder
    return next((path for path in found if path.is_symlink() or not path.is_file() or not is_of_model(path)), None)
