"""Finds labels that are probably wrong, for a person to check. It changes nothing.

A TF-IDF model that was trained on the other folds predicts the label of each review; every label that it contradicts
is listed, ranked by cleanlab's label quality, and cleanlab estimates how many of them are wrong. These are suspects,
not errors: sarcasm, mixed reviews and rare words are among them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentifactory.clean_text import normalise_text
from sentifactory.corpus.inspection.tfidf_pipeline import build_tfidf_pipeline
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review

if TYPE_CHECKING:
    import numpy as np

DEFAULT_FOLDS = 5
DEFAULT_SEED = 42
# Scores are rounded before sorting, because their last bits differ between machines and the order must not.
SCORE_DIGITS = 4
# A model that contradicts more than a quarter of all labels is no evidence against any of them.
WEAK_AGREEMENT = 0.75


@dataclass(frozen=True, slots=True)
class Doubt:
    """A label that the other reviews contradict.

    Attributes:
        review: the review as it was given.
        position: its position among the given reviews.
        suggested: index of the predicted label.
        quality: cleanlab's label quality, 0 to 1: the probability of the given label.
        probability: that of the predicted label.
        is_probable: whether cleanlab considers the label wrong. In small sets its estimate is low: check the first
            others as well.
    """

    review: Review
    position: int
    suggested: int
    quality: float
    probability: float
    is_probable: bool

    def describe(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return both labels by name and the figures, as plain data."""
        return {
            "label": labels[self.review.label or 0],
            "suggested_label": labels[self.suggested],
            "quality": self.quality,
            "probability": self.probability,
            "is_probable": self.is_probable,
        }


@dataclass(frozen=True, slots=True)
class DoubtSearch:
    """The result of a search for wrong labels.

    Attributes:
        doubts: most doubtful first.
        n_searched: reviews with a text and a label.
        n_passed_over: the others.
        agreement: share of the labels that the out-of-fold model predicts.
    """

    doubts: list[Doubt]
    n_searched: int
    n_passed_over: int
    agreement: float

    @property
    def is_weak(self) -> bool:
        """Whether the model agrees with so few labels that the list means little."""
        return self.agreement < WEAK_AGREEMENT

    @property
    def n_probable(self) -> int:
        """Cleanlab's estimate of how many labels are wrong."""
        return sum(doubt.is_probable for doubt in self.doubts)


def find_doubtful(
    reviews: Sequence[Review],
    labels: Sequence[str],
    *,
    n_folds: int = DEFAULT_FOLDS,
    seed: int = DEFAULT_SEED,
    groups: Sequence[Hashable] | None = None,
) -> DoubtSearch:
    """Return the reviews whose label the others contradict, most doubtful first.

    Args:
        reviews: the reviews; those without a text or a label are skipped.
        labels: the task's label names.
        n_folds: folds of the cross-validation.
        seed: of the folds.
        groups: of each review, what it shares with its duplicates. A group stays in one fold, or a wrong label would
            confirm that of its duplicate. None: exact duplicates after normalisation.

    Raises:
        ConfigError: when there are fewer than two folds.
        DataError: when fewer than two labels occur, or a label has fewer different texts than there are folds.
    """
    import numpy as np

    _check_folds(n_folds)
    if groups is None:
        groups = [normalise_text(review.text) for review in reviews]
    positions = [n for n, review in enumerate(reviews) if review.label is not None and review.text.strip()]
    known = [reviews[position] for position in positions]
    classes = sorted({review.label for review in known if review.label is not None})
    given = np.array([classes.index(review.label) for review in known if review.label is not None], dtype=int)
    folds = _assign_folds([groups[position] for position in positions], given, known, labels, n_folds, seed)
    probabilities = _predict_out_of_fold([review.text for review in known], given, folds, seed)
    is_probable, quality = _find_issues(given, probabilities)
    suggested = probabilities.argmax(axis=1)
    doubts = [
        Doubt(
            known[row],
            positions[row],
            classes[suggested[row]],
            round(float(quality[row]), SCORE_DIGITS),
            round(float(probabilities[row, suggested[row]]), SCORE_DIGITS),
            bool(is_probable[row]),
        )
        for row in np.flatnonzero(suggested != given)
    ]
    doubts.sort(key=lambda doubt: (doubt.quality, doubt.position))
    agreement = round(float((suggested == given).mean()), SCORE_DIGITS)
    return DoubtSearch(doubts, len(known), len(reviews) - len(known), agreement)


def _check_folds(n_folds: int) -> None:
    if n_folds < 2:
        raise ConfigError(
            f"The number of folds is {n_folds}", where="--folds", expected="2 or more", code="option-value"
        )


def _assign_folds(
    groups: Sequence[Hashable],
    given: np.ndarray,
    known: Sequence[Review],
    labels: Sequence[str],
    n_folds: int,
    seed: int,
) -> np.ndarray:
    """Return the fold of each review: stratified by label, and the same for a whole group.

    The first review of a group determines its label.

    Raises:
        DataError: when a label is too rare.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    first_of: dict[Hashable, int] = {}
    for row, group in enumerate(groups):
        first_of.setdefault(group, row)
    firsts = np.fromiter(first_of.values(), dtype=int, count=len(first_of))
    where = known[0].source.file if known and known[0].source else "The reviews"
    counts = np.bincount(given[firsts], minlength=len(np.unique(given)))
    if len(counts) < 2:
        found = f"only the label {labels[known[0].label or 0]!r}" if known else "no label"
        raise DataError(
            f"The {len(known)} reviews with a text have {found}",
            where=where,
            expected="reviews of at least two labels",
            next_step="give a file in which every label occurs",
            code="labels-too-few",
        )
    if counts.min() < n_folds:
        rare = next(review.label or 0 for review, code in zip(known, given, strict=True) if code == counts.argmin())
        raise DataError(
            f"The label {labels[rare]!r} has {counts.min()} different texts, fewer than the {n_folds} folds",
            where=where,
            expected=f"at least {n_folds} of each label",
            next_step=f"give more reviews of this label, or --folds {max(counts.min(), 2)}"
            if counts.min() > 1
            else "give more reviews of this label",
            code="labels-too-few",
        )
    fold_of_group = np.empty(len(firsts), dtype=int)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(firsts, given[firsts])):
        fold_of_group[held_out] = fold
    number_of = {group: number for number, group in enumerate(first_of)}
    return np.array([fold_of_group[number_of[group]] for group in groups])


def _predict_out_of_fold(texts: Sequence[str], given: np.ndarray, folds: np.ndarray, seed: int) -> np.ndarray:
    """Return the out-of-fold probabilities, (n_reviews, n_classes), each row summing to 1.

    The vectoriser is fitted once on all texts, which is five times as fast; it never sees labels, which could leak.
    """
    import numpy as np
    from sklearn.base import clone

    n_classes = int(given.max()) + 1
    vectoriser, regression = (
        step for _, step in build_tfidf_pipeline(n_reviews=len(texts), n_labels=n_classes, seed=seed).steps
    )
    features = vectoriser.fit_transform(texts)
    probabilities = np.zeros((len(texts), n_classes))
    for fold in range(int(folds.max()) + 1):
        held_out = folds == fold
        model: Any = clone(regression).fit(features[~held_out], given[~held_out])
        probabilities[np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return probabilities


def _find_issues(given: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which labels are probably wrong, and the quality of every label.

    Confident learning estimates how many labels of each class are wrong; the least probable ones are chosen. On
    synthetic errors this finds more of them in as many rows than the other filters do. Scores are not adjusted by
    class, which is far worse for imbalanced classes.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(given, probabilities, method="self_confidence")
    return find_label_issues(given, probabilities, filter_by="low_self_confidence", n_jobs=1), quality
