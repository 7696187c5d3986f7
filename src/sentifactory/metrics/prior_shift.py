"""Estimates the labels' shares among reviews without labels, and adapts a model's probabilities to them.

A model's probabilities assume the shares of the labels among its validation reviews. Where other reviews have other
shares (label shift: every label's own reviews stay alike), the shares are estimated by maximum likelihood with the EM
algorithm of Saerens, Latinne and Decaestecker 2002 (Adjusting the outputs of a classifier to new a priori
probabilities), from bias-corrected probabilities (Alexandari, Kundaje and Shrikumar 2020). The probability of each
label is then multiplied by its estimated share over its share among the validation reviews, and normalised.

The interval of a share is by the delta method, for both samples together: the reviews at hand, and the validation
reviews that the correction was fitted on. Not covered by it: reviews of the same label that differ between the two,
as those of another domain do.

The p-value tests whether the shares are those of this validation file, taken as exact numbers: the probabilities are
adapted from these, whatever the shares are where the file came from. It does not test whether the two populations
have the same shares. Where the validation reviews were drawn at random, neither balanced nor stratified, their own
shares differ from the population's by chance, and a shift from them is shown in more than 5 % of the comparisons of
identical populations, the more often the more reviews are at hand and the fewer mistakes the model makes: in 10 to
20 % with 300 validation reviews, as simulated with 600 reviews and more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sentifactory.bilingual import Sentence
from sentifactory.metrics.bias_correction import MIN_REVIEWS_OF_A_LABEL
from sentifactory.metrics.calibration import MIN_PROBABILITY, BiasCorrection, Calibration
from sentifactory.metrics.calibration_fit import apply_temperature
from sentifactory.metrics.significance import CONFIDENCE, SIGNIFICANCE_LEVEL, Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHOD = "prior-shift"
MIN_REVIEWS = 100
# A share that is known less exactly than this would move the threshold by chance.
MAX_INTERVAL_WIDTH = 0.2
_MAX_STEPS = 2000
_TOLERANCE = 1e-9

NO_CORRECTION = Sentence(
    "the model has no bias-corrected calibration: none was fitted on validation reviews, these have fewer than "
    f"{MIN_REVIEWS_OF_A_LABEL} reviews of some label, or its probabilities do not tell their labels apart",
    f"该模型没有偏差校正的校准：未在验证评论上拟合，验证评论中某个标签不足 {MIN_REVIEWS_OF_A_LABEL} 条，"
    "或其概率不能区分这些评论的标签",
)


@dataclass(frozen=True, slots=True)
class PriorShift:
    """The estimated shares of the labels among some reviews.

    Attributes:
        shares: (n_labels,) the estimate.
        intervals: (n_labels,) of each share.
        source_shares: (n_labels,) among the validation reviews.
        reviews: number of reviews that the estimate is of.
        information: what is known about the shares without the true labels, as a part of what would be known with
            them, for the least known direction: 1 for a model without mistakes, 0 for one that guesses, and where a
            share is below one review. The rate at which EM converges is 1 minus this (Dempster, Laird and Rubin 1977).
        p_value: of the Wald test that the shares are `source_shares`, which count as exact.
        has_converged: whether EM did.
    """

    shares: tuple[float, ...]
    intervals: tuple[Interval, ...]
    source_shares: tuple[float, ...]
    reviews: int
    information: float
    p_value: float
    has_converged: bool

    @property
    def is_shown(self) -> bool:
        """Whether the shares are shown to differ from those of this validation file."""
        return self.p_value < SIGNIFICANCE_LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as plain JSON values."""
        return {**asdict(self), "is_shown": self.is_shown}


def estimate_shares(probabilities: NDArray, correction: BiasCorrection) -> PriorShift:
    """Return the estimated shares of the labels; `explain_thin` says whether the evidence for them is too thin.

    Args:
        probabilities: (n, n_labels) of reviews without labels, uncorrected; n is at least 1.
        correction: of the model.

    Example:
        >>> import numpy as np
        >>> exact = BiasCorrection(1.0, (0.0, 0.0), (0.5, 0.5), ((0.0,) * 3,) * 3)
        >>> sure = np.array([[0.001, 0.999]] * 800 + [[0.999, 0.001]] * 200)
        >>> found = estimate_shares(sure, exact)
        >>> [round(share, 2) for share in found.shares], round(found.intervals[1].low, 2), found.is_shown
        ([0.2, 0.8], 0.77, True)
    """
    import numpy as np
    from scipy.stats import chi2, norm

    source = np.array(correction.shares)
    logs = np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
    ratios = apply_temperature(logs - np.array(correction.bias), correction.temperature) / source
    shares, posterior, has_converged = _run_em(ratios, source)
    n, n_labels = posterior.shape
    # With log-odds eta as parameters, the estimating equation of a review is posterior - shares. `complete` is the
    # information with labels, `lost` what their absence takes away (Louis 1982); the first label is the reference.
    complete = np.diag(shares) - np.outer(shares, shares)
    lost = np.diag(posterior.mean(axis=0)) - posterior.T @ posterior / n
    kept = (complete - lost)[1:, 1:]
    gaps = posterior - shares
    spread = (gaps.T @ gaps / n)[1:, 1:]
    # How the mean posterior changes with 1 / temperature, and with the offset of each label.
    of_slope = (posterior * (logs - (posterior * logs).sum(axis=1, keepdims=True))).mean(axis=0)
    of_calibration = np.column_stack([of_slope, lost])[1:]
    noise = spread / n + of_calibration @ np.array(correction.covariance) @ of_calibration.T
    information = 0.0
    if shares.min() * n >= 1:  # a share below one review is at the edge, where the likelihood has no inner maximum
        information = float(np.linalg.eigvals(np.linalg.solve(complete[1:, 1:], kept)).real.min())
    if information <= _TOLERANCE:
        whole = Interval(0.0, 1.0)
        return PriorShift(
            tuple(map(float, shares)), (whole,) * n_labels, correction.shares, n, 0.0, 1.0, has_converged
        )
    inverse = np.linalg.inv(kept)
    jacobian = complete[:, 1:] @ inverse
    covariance = jacobian @ noise @ jacobian.T  # of the shares, (n_labels, n_labels)
    reach = float(norm.ppf((1 + CONFIDENCE) / 2))
    difference = (shares - source)[1:]
    distance = float(difference @ np.linalg.pinv(covariance[1:, 1:]) @ difference)
    return PriorShift(
        tuple(map(float, shares)),
        tuple(
            _find_interval(float(share), reach * math.sqrt(max(variance, 0.0)))
            for share, variance in zip(shares, np.diag(covariance), strict=True)
        ),
        correction.shares,
        n,
        min(1.0, information),
        float(chi2.sf(distance, n_labels - 1)),
        has_converged,
    )


def _run_em(ratios: NDArray, start: NDArray) -> tuple[NDArray, NDArray, bool]:
    """Return shares (n_labels,), posterior probabilities (n, n_labels), and whether EM converged.

    Args:
        ratios: (n, n_labels) likelihood of each label up to a constant a row.
        start: (n_labels,) the shares to begin with.
    """
    import numpy as np

    shares, has_converged = start, False
    for _ in range(_MAX_STEPS):
        posterior = ratios * shares
        posterior /= posterior.sum(axis=1, keepdims=True)
        former, shares = shares, posterior.mean(axis=0)
        if np.abs(shares - former).max() < _TOLERANCE:
            has_converged = True
            break
    return shares, posterior, has_converged


def _find_interval(share: float, reach: float) -> Interval:
    """Return the interval of a share that is symmetric in its log-odds, and so within 0 and 1."""
    odds, half = math.log(share / (1 - share)), reach / (share * (1 - share))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, odds + way)))) for way in (-half, half))
    return Interval(low, high)


def explain_thin(shift: PriorShift) -> Sentence | None:
    """Return why the evidence for the shares is too thin to adapt to them; None where it suffices."""
    if shift.reviews < MIN_REVIEWS:
        return explain_few(shift.reviews)
    if not shift.has_converged or shift.information <= 0:
        return Sentence.write(
            "the estimate of the shares has no inner maximum: the model tells the labels apart too badly, or one of "
            "them hardly occurs",
            "标签占比的估计没有内部极大值：模型区分标签的能力太弱，或某个标签几乎不出现",
        )
    widest = max(interval.high - interval.low for interval in shift.intervals)
    if widest > MAX_INTERVAL_WIDTH:
        return Sentence.write(
            f"the interval of an estimated share is {100 * widest:.0f} points wide, and more than "
            f"{100 * MAX_INTERVAL_WIDTH:.0f} is too uncertain: more reviews, or more validation reviews, are needed",
            f"占比估计的区间宽达 {100 * widest:.0f} 个百分点，超过 {100 * MAX_INTERVAL_WIDTH:.0f} "
            "即过于不确定：需要更多评论或更多验证评论",
        )
    return None


def explain_few(n_reviews: int) -> Sentence | None:
    """Return why so few reviews do not show the shares of their labels; None where they are enough."""
    if n_reviews >= MIN_REVIEWS:
        return None
    return Sentence.write(
        f"{n_reviews} reviews are too few to estimate the shares of the labels: at least {MIN_REVIEWS} are needed",
        f"{n_reviews} 条评论不足以估计标签占比：至少需要 {MIN_REVIEWS} 条",
    )


def adapt_calibration(calibration: Calibration, shares: Sequence[float]) -> Calibration:
    """Return a calibration that turns uncorrected probabilities into ones for other shares (n_labels,) of the labels.

    Raises:
        ValueError: when the calibration has no bias correction.

    Example:
        >>> exact = BiasCorrection(1.0, (0.0, 0.0), (0.5, 0.5), ())
        >>> before = Calibration("temperature", 1.0, (0.0, 0.0), "t", "", None, 0.95, {}, {}, exact)
        >>> [round(share, 3) for share in adapt_calibration(before, (0.2, 0.8)).apply((0.5, 0.5))]
        [0.2, 0.8]
    """
    correction = calibration.bias_correction
    if correction is None:
        raise ValueError("the calibration has no bias correction")
    bias = tuple(
        own - correction.temperature * math.log(target / source)
        for own, target, source in zip(correction.bias, shares, correction.shares, strict=True)
    )
    return replace(calibration, method=METHOD, temperature=correction.temperature, bias=bias)
