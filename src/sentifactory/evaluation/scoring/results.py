"""The third step of a comparison: what each test file says about which model is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sentifactory.evaluation.scoring.adapted_scores import compare_adapted
from sentifactory.evaluation.scoring.base_doubt import doubt_base
from sentifactory.evaluation.scoring.breakdown import WordMistakes, find_words
from sentifactory.evaluation.scoring.decomposition import Decomposition, decompose_difference
from sentifactory.evaluation.scoring.review_sets import TestSet
from sentifactory.evaluation.scoring.scored_predictions import ScoredPredictions
from sentifactory.evaluation.scoring.verdict import Verdict, compare_pairs, decide_verdict
from sentifactory.metrics.bootstrap import bootstrap_label_differences
from sentifactory.metrics.significance import Interval, PairedTest


@dataclass(frozen=True, slots=True)
class TestResult:
    """What one test file says.

    Attributes:
        test: the file and its reviews.
        scored: the scored predictions by model.
        tests: the paired test of each two models.
        verdict: which model wins.
        decomposition: how much of tuned minus base is format, and how much sentiment.
        differences: interval of tuned minus base for each label figure.
        words: by model, the words that occur more often in its mistakes.
        adapted_tests: the paired test of each two models after adapting to the labels' shares; empty where that was
            not asked for.
    """

    test: TestSet
    scored: Mapping[str, ScoredPredictions]
    tests: Mapping[tuple[str, str], PairedTest]
    verdict: Verdict
    decomposition: Decomposition
    differences: Mapping[str, Interval]
    words: Mapping[str, list[WordMistakes]]
    adapted_tests: Mapping[tuple[str, str], PairedTest]


def conclude_tests(
    tests: Sequence[TestSet], scored: Sequence[Mapping[str, ScoredPredictions]], n_labels: int, seed: int
) -> list[TestResult]:
    """Return the result of each test file; the verdict of the comparison is that of the first.

    Args:
        tests: the test files.
        scored: for each file the scored predictions by model, base and tuned among them.
        n_labels: number of labels of the task.
        seed: seed of the bootstrap.
    """
    return [_conclude(test, by_model, n_labels, seed) for test, by_model in zip(tests, scored, strict=True)]


def _conclude(test: TestSet, scored: Mapping[str, ScoredPredictions], n_labels: int, seed: int) -> TestResult:
    pairs = compare_pairs(scored, test.reviews)
    truth = [review.label for review in test.reviews if review.label is not None]
    base, tuned = scored["base"].labels, scored["tuned"].labels
    decomposition = decompose_difference(truth, base, tuned)
    return TestResult(
        test,
        scored,
        pairs,
        decide_verdict(scored, pairs, decomposition, doubt_base(scored["base"], n_labels)),
        decomposition,
        # The paired test has an interval of the accuracy already, which agrees with its p-value.
        bootstrap_label_differences(truth, base, tuned, n_labels, seed)
        | {"accuracy": pairs["base", "tuned"].interval},
        {name: find_words(test.reviews, one.predictions) for name, one in scored.items() if name != "majority"},
        compare_adapted({name: one.adapted for name, one in scored.items() if one.adapted}, test.reviews),
    )
