"""Metrics of label probabilities: ranking, calibration, and answering only when sure.

Engines that generate text only have none of these. A review without an answer has no probabilities either: the metrics
leave it out and count it in `n_missing`. Coverage is always a share of all reviews, including those without an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sentifactory.metrics import ranking, reliability
from sentifactory.metrics.bootstrap import bootstrap_weighted
from sentifactory.metrics.reliability import ReliabilityBin
from sentifactory.metrics.significance import Interval, compute_wilson_interval
from sentifactory.records import Prediction

if TYPE_CHECKING:
    from numpy.typing import NDArray

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
CURVE_POINTS = 200
EXACT_REVIEWS = 2000


@dataclass(frozen=True, slots=True)
class ClassRanking:
    """Ranking metrics of one label's probability; None where all reviews have this label, or none has."""

    name: str
    roc_auc: float | None
    average_precision: float | None


@dataclass(frozen=True, slots=True)
class Abstention:
    """The result of giving only the most confident answers.

    Attributes:
        threshold: answers with at least this confidence are given.
        coverage: share of all reviews that are answered.
        answered: number of answered reviews.
        accuracy: share of right answers among the answered reviews.
        interval: Wilson interval of the accuracy.
    """

    threshold: float
    coverage: float
    answered: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class ProbabilityMetrics:
    """The probability metrics of one model on one set of reviews.

    Attributes:
        reviews: number of reviews with probabilities, which the metrics cover.
        n_missing: number of reviews without an answer.
        roc_auc: with two labels that of the last label's probability, else the mean over labels (one versus rest).
        average_precision: likewise.
        classes: both for every label.
        brier: mean Brier score; with two labels from 0 to 1.
        nll: mean negative log-likelihood, in nats.
        ece_equal_width: expected calibration error over 15 bins of equal width.
        ece_equal_mass: the same over 15 bins with equally many reviews.
        ece_by_chance: the expected equal-mass ECE on this many reviews if every probability were exactly right.
        mean_confidence: mean probability of the answered label.
        aurc: area under the risk-coverage curve.
        intervals: bootstrap interval of each metric by name. ECE has none: resampling adds the chance gaps a second
            time, so that the interval would lie above the ECE itself; see `ece_by_chance` instead.
        bins_equal_width: the reliability diagram.
        bins_equal_mass: likewise.
        curve: (coverage, error rate) by descending confidence, at most `CURVE_POINTS` points; coverage as in
            `Abstention`.
        abstentions: the accuracy at each of `COVERAGES`.
    """

    reviews: int
    n_missing: int
    roc_auc: float | None
    average_precision: float | None
    classes: tuple[ClassRanking, ...]
    brier: float
    nll: float
    ece_equal_width: float
    ece_equal_mass: float
    ece_by_chance: float
    mean_confidence: float
    aurc: float
    intervals: dict[str, Interval]
    bins_equal_width: tuple[ReliabilityBin, ...]
    bins_equal_mass: tuple[ReliabilityBin, ...]
    curve: tuple[tuple[float, float], ...]
    abstentions: tuple[Abstention, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain JSON values."""
        return asdict(self)


def find_known(predictions: Sequence[Prediction]) -> NDArray:
    """Return (n_reviews,) whether each prediction has probabilities."""
    import numpy as np

    return np.array([prediction.probabilities is not None for prediction in predictions], dtype=bool)


def stack_probabilities(predictions: Sequence[Prediction]) -> NDArray | None:
    """Return the probabilities (n_known, n_labels) of the predictions that have any; None if none has."""
    import numpy as np

    rows = [prediction.probabilities for prediction in predictions if prediction.probabilities is not None]
    return np.array(rows, dtype=float) if rows else None


def score_probabilities(
    truth: Sequence[int], predictions: Sequence[Prediction], labels: Sequence[str], *, seed: int = 0
) -> ProbabilityMetrics | None:
    """Return the metrics of the predictions that have probabilities, given all true labels; None if none has any."""
    import numpy as np

    shares = stack_probabilities(predictions)
    if shares is None:
        return None
    known = find_known(predictions)
    n_missing = int((~known).sum())
    return compute_probability_metrics(np.asarray(truth)[known], shares, labels, n_missing=n_missing, seed=seed)


def compute_probability_metrics(
    truth: Sequence[int] | NDArray, probabilities: NDArray, labels: Sequence[str], *, n_missing: int = 0, seed: int = 0
) -> ProbabilityMetrics:
    """Return the probability metrics.

    Args:
        truth: (n_known,) true labels.
        probabilities: (n_known, n_labels); each row sums to 1.
        labels: label names in index order.
        n_missing: number of further reviews without an answer.
        seed: seed of the bootstrap.

    Raises:
        ValueError: when the shapes do not match, or a row is not a distribution.
    """
    import numpy as np

    true = np.asarray(truth)
    if probabilities.shape != (len(true), len(labels)) or not len(true):
        raise ValueError(f"probabilities {probabilities.shape} for {len(true)} reviews and {len(labels)} labels")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3) or (probabilities < 0).any():
        raise ValueError("every row of probabilities must be 0 or more and sum to 1")
    answers, confidence = reliability.find_confidence(probabilities)
    is_right = answers == true
    mass_edges = reliability.make_mass_edges(confidence)
    measures = list_measures(true, probabilities, mass_edges)
    values = {name: _value_of(measure, len(true)) for name, measure in measures.items()}
    cells, counts = group_reviews(true, probabilities)
    of_cells = list_measures(true[cells], probabilities[cells], mass_edges)
    known = {
        name: measure for name, measure in of_cells.items() if values[name] is not None and not name.startswith("ece_")
    }
    n_reviews = len(true) + n_missing
    return ProbabilityMetrics(
        reviews=len(true),
        n_missing=n_missing,
        **values,  # type: ignore[arg-type]
        classes=_rank_classes(true, probabilities, labels),
        ece_by_chance=reliability.expect_chance_ece(confidence, mass_edges, seed),
        intervals=bootstrap_weighted(known, counts, seed),
        bins_equal_width=tuple(reliability.list_bins(confidence, is_right, reliability.make_width_edges())),
        bins_equal_mass=tuple(reliability.list_bins(confidence, is_right, mass_edges)),
        curve=_thin_curve(confidence, is_right, n_reviews),
        abstentions=tuple(abstain_to(confidence, is_right, coverage, n_reviews) for coverage in COVERAGES),
    )


def group_reviews(truth: NDArray, probabilities: NDArray) -> tuple[NDArray, NDArray]:
    """Return one row for each group of reviews that the bootstrap treats as equal, and the size of each group.

    Up to `EXACT_REVIEWS` every review is a group of its own. Above, reviews with the same true label whose
    log-probabilities agree within 0.05 are one group: 100 times faster, and the bounds change less than with another
    seed.
    """
    import numpy as np

    if len(truth) <= EXACT_REVIEWS:
        return np.arange(len(truth)), np.ones(len(truth), dtype=int)
    grid = np.round(np.log(np.clip(probabilities, reliability.MIN_PROBABILITY, 1)) * 20)
    _, rows, counts = np.unique(np.column_stack([truth, grid]), axis=0, return_index=True, return_counts=True)
    return rows, counts


def list_measures(
    truth: NDArray, probabilities: NDArray, mass_edges: NDArray
) -> dict[str, Callable[[NDArray], NDArray]]:
    """Return the metrics as functions from weights (rows, n_reviews) to values (rows,)."""
    import numpy as np

    answers, confidence = reliability.find_confidence(probabilities)
    is_right = answers == truth
    n_labels = probabilities.shape[1]
    ranked = [1] if n_labels == 2 else list(range(n_labels))

    def average(weigh: Callable[[NDArray, NDArray, NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
        return lambda weights: np.mean([weigh(truth == one, probabilities[:, one], weights) for one in ranked], axis=0)

    def mean(values: NDArray) -> Callable[[NDArray], NDArray]:
        return lambda weights: weights @ values / weights.sum(axis=1)

    def ece(edges: NDArray) -> Callable[[NDArray], NDArray]:
        return lambda weights: reliability.weigh_ece(confidence, is_right, edges, weights)

    return {
        "roc_auc": average(ranking.weigh_roc_auc),
        "average_precision": average(ranking.weigh_average_precision),
        "brier": mean(reliability.list_brier(truth, probabilities)),
        "nll": mean(reliability.list_nll(truth, probabilities)),
        "ece_equal_width": ece(reliability.make_width_edges()),
        "ece_equal_mass": ece(mass_edges),
        "mean_confidence": mean(confidence),
        "aurc": lambda weights: ranking.weigh_aurc(confidence, is_right, weights),
    }


def abstain_to(confidence: NDArray, is_right: NDArray, coverage: float, n_reviews: int) -> Abstention:
    """Return the result of answering a share of all reviews, the most confident first; ties are given together.

    If fewer reviews have an answer, all of these answers are given.
    """
    import numpy as np

    rank = min(len(confidence), max(1, round(coverage * n_reviews)))
    return abstain_below(confidence, is_right, float(np.sort(confidence)[::-1][rank - 1]), n_reviews)


def abstain_below(confidence: NDArray, is_right: NDArray, threshold: float, n_reviews: int) -> Abstention:
    """Return the result of withholding answers below a confidence.

    Args:
        confidence: (n_known,) of the reviews that have an answer.
        is_right: (n_known,) whether the answer is right.
        threshold: answers with at least this confidence are given.
        n_reviews: number of all reviews, including those without an answer.

    Raises:
        ValueError: when no answer reaches the threshold.
    """
    given = confidence >= threshold
    answered, correct = int(given.sum()), int(is_right[given].sum())
    return Abstention(
        threshold,
        answered / n_reviews,
        answered,
        correct / answered if answered else 0.0,
        compute_wilson_interval(correct, answered),
    )


def _value_of(measure: Callable[[NDArray], NDArray], n_reviews: int) -> float | None:
    import numpy as np

    value = float(measure(np.ones((1, n_reviews)))[0])
    return None if np.isnan(value) else value


def _rank_classes(truth: NDArray, probabilities: NDArray, labels: Sequence[str]) -> tuple[ClassRanking, ...]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = []
    for index, name in enumerate(labels):
        is_one = truth == index
        if is_one.all() or not is_one.any():
            found.append(ClassRanking(name, None, None))
            continue
        scores = probabilities[:, index]
        found.append(
            ClassRanking(name, float(roc_auc_score(is_one, scores)), float(average_precision_score(is_one, scores)))
        )
    return tuple(found)


def _thin_curve(confidence: NDArray, is_right: NDArray, n_reviews: int) -> tuple[tuple[float, float], ...]:
    import numpy as np

    coverage, risk, _ = ranking.trace_risk_coverage(confidence, is_right)
    coverage = coverage * len(confidence) / n_reviews
    chosen = np.unique(np.linspace(0, len(coverage) - 1, min(CURVE_POINTS, len(coverage))).round().astype(int))
    return tuple((round(float(coverage[i]), 5), round(float(risk[i]), 5)) for i in chosen)
