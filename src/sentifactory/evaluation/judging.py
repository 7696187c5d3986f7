"""From answers to results: the calibrations, and what each test file says about who is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.manifest import hash_file
from sentifactory.engines.calibration import Calibration, find_calibration, save_calibration
from sentifactory.evaluation.bootstrap import bootstrap_label_differences
from sentifactory.evaluation.calibration import (
    MIN_VALIDATION_REVIEWS,
    fit_calibration,
    make_content_free_reviews,
)
from sentifactory.evaluation.decomposition import Decomposition, decompose_difference
from sentifactory.evaluation.mistake_words import WordMistakes, find_words
from sentifactory.evaluation.outcomes import Contender, Outcome, judge_answers
from sentifactory.evaluation.predicting import Answers
from sentifactory.evaluation.probabilities import find_known, stack_probabilities
from sentifactory.evaluation.review_sets import ReviewSets, TestSet
from sentifactory.evaluation.significance import Interval, PairedTest
from sentifactory.evaluation.verdict import Verdict, compare_pairs, decide_verdict
from sentifactory.progress import say
from sentifactory.records import Review
from sentifactory.task import Task


class AskingPlan:
    """All that every contender is asked, in one list: the test files, validation reviews, texts without content.

    Attributes:
        everything: the list.
        test_rows: the place of each test file's reviews in it.
        val_rows: the place of the validation reviews.
        content_free_rows: the place of the texts without content, which are asked where there are validation reviews.
    """

    def __init__(self, sets: ReviewSets) -> None:
        self.val = sets.val
        self.everything: list[Review] = []
        self.test_rows = [self._add(test.reviews) for test in sets.tests]
        self.val_rows = self._add(sets.val)
        self.content_free_rows = self._add(make_content_free_reviews() if sets.val else [])

    def _add(self, reviews: Sequence[Review]) -> slice:
        start = len(self.everything)
        self.everything += reviews
        return slice(start, len(self.everything))


@dataclass(frozen=True, slots=True)
class TestResult:
    """What one test file says.

    Attributes:
        test: the file and its reviews.
        outcomes: what each contender answered, by name.
        tests: the paired test of each two contenders.
        verdict: who wins.
        decomposition: how much of tuned minus base is format, and how much sentiment.
        differences: interval of tuned minus base for each figure of the labels.
        words: by contender, the words that go with its mistakes.
    """

    test: TestSet
    outcomes: Mapping[str, Outcome]
    tests: Mapping[tuple[str, str], PairedTest]
    verdict: Verdict
    decomposition: Decomposition
    differences: Mapping[str, Interval]
    words: Mapping[str, list[WordMistakes]]


def choose_calibration(
    contender: Contender,
    answers: Answers,
    plan: AskingPlan,
    task: Task,
    val_path: str | None,
    target_accuracy: float,
) -> Calibration | None:
    """Return the calibration of a contender: fitted where there are validation reviews, else the one saved beside it.

    An untuned model may lean to one label: its bias is looked for as well. None for one without probabilities.

    Args:
        contender: whose probabilities are corrected.
        answers: all that it answered.
        plan: where in them the validation reviews stand.
        task: what was asked.
        val_path: the file of the validation reviews; None where there are none.
        target_accuracy: for the threshold.

    Raises:
        ConfigError: when the validation reviews are too few, or a saved calibration cannot be used.
    """
    if contender.name == "majority":
        return None
    if val_path is None:
        return find_calibration(contender.model, task, contender.facts.get("weights", {}))
    predictions = answers.predictions[plan.val_rows]
    shares, known = stack_probabilities(predictions), find_known(predictions)
    if shares is None:
        why = (
            "it answered none of the validation reviews: there is nothing to calibrate on"
            if all(prediction.label is None for prediction in predictions)
            else "no probabilities to calibrate in this mode; the mode score gives them"
        )
        say(f"{contender.name}: {why}")
        return None
    truth = [review.label for review, is_known in zip(plan.val, known, strict=True) if is_known]
    n_missing = len(predictions) - len(truth)
    if n_missing and (len(truth) < MIN_VALIDATION_REVIEWS or len(set(truth)) < 2):
        say(f"{contender.name}: it answered only {len(truth)} validation reviews, too few to calibrate on")
        return None
    content_free = stack_probabilities(answers.predictions[plan.content_free_rows])
    return fit_calibration(
        [label for label in truth if label is not None],
        shares,
        task,
        content_free=content_free if contender.name == "base" else None,
        target_accuracy=target_accuracy,
        fitted_on={"file": val_path, "sha256": hash_file(Path(val_path)), "missing": n_missing},
        weights=contender.facts.get("weights", {}),
    )


def save_calibrations(contenders: Sequence[Contender], calibrations: Mapping[str, Calibration | None]) -> None:
    """Write calibration.json beside each model that is a folder here, for engines and serving.

    Raises:
        ConfigError: when a folder may not be written.
    """
    for contender in contenders:
        calibration = calibrations[contender.name]
        if calibration is not None and Path(contender.model).is_dir():
            say(f"{contender.name}: calibration in {save_calibration(calibration, contender.model)}")


def judge_test_set(
    test: TestSet,
    rows: slice,
    contenders: Sequence[Contender],
    answers: Mapping[str, Answers],
    calibrations: Mapping[str, Calibration | None],
    task: Task,
    seed: int,
) -> TestResult:
    """Return what one test file says.

    Args:
        test: the file and its reviews.
        rows: the place of its reviews among all that was asked.
        contenders: who was asked; among them base and tuned.
        answers: what they answered, by name, in the order of the report.
        calibrations: by name.
        task: what was asked.
        seed: seed of the bootstrap.
    """
    by_name = {contender.name: contender for contender in contenders}
    outcomes = {
        name: judge_answers(by_name[name], found, rows, test.reviews, task, calibrations[name], seed)
        for name, found in answers.items()
    }
    tests = compare_pairs(outcomes, test.reviews, seed)
    truth = [review.label for review in test.reviews if review.label is not None]
    base, tuned = (list_labels(outcomes[side]) for side in ("base", "tuned"))
    decomposition = decompose_difference(truth, base, tuned, seed=seed)
    return TestResult(
        test,
        outcomes,
        tests,
        decide_verdict(outcomes, tests, decomposition),
        decomposition,
        # The accuracy has its interval in the paired test already: two of them would differ in the last digit.
        bootstrap_label_differences(truth, base, tuned, len(task.labels), seed)
        | {"accuracy": tests["base", "tuned"].interval},
        {
            name: find_words(test.reviews, outcome.predictions)
            for name, outcome in outcomes.items()
            if name != "majority"
        },
    )


def list_labels(outcome: Outcome) -> list[Any]:
    """Return the answered labels (n_reviews,), None where unparsed."""
    return [prediction.label for prediction in outcome.predictions]
