"""The first step of a comparison: every model is asked every review, one engine after the other.

Each engine is started once. It answers all test files, and the validation reviews where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.bilingual import MODEL_NAMES
from sentifactory.engines.ask import Answers, collect_answers
from sentifactory.evaluation.scoring.review_sets import ReviewSets
from sentifactory.metrics.calibration_fit import make_content_free_reviews
from sentifactory.records import Review
from sentifactory.system.progress import say

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """A model or baseline that is compared.

    Attributes:
        name: `base`, `few_shot` (the base model with examples in its prompt), `tuned`, `tfidf` or `majority`.
        name_or_path: the model's folder, its name at an address, or a description of a baseline.
        engine: the kind of engine that runs it, such as `vllm`.
        open_engine: starts its engine; the context manager ends it.
        facts: what else the report says about it (its run card, its weights).
        journal: the file that its answers are appended to as they come; None for a model that answers in no time.
        fingerprint: of everything that decides its answers except the reviews.
        has_own_prompt: whether it is asked with another prompt than that of the task, such as one with examples.
    """

    name: str
    name_or_path: str
    engine: str
    open_engine: Callable[[], AbstractContextManager[Engine]]
    facts: dict[str, Any] = field(default_factory=dict)
    journal: Path | None = None
    fingerprint: str = ""
    has_own_prompt: bool = False


class Questions:
    """Everything that each model is asked, in one list: test files, validation reviews, content-free texts.

    Attributes:
        everything: the list.
        test_rows: the rows of each test file in it.
        val: the validation reviews.
        val_rows: the rows of the validation reviews.
        content_free_rows: the rows of the content-free texts, which are asked only with validation reviews.
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
class AskedModels:
    """The models with all their answers.

    Attributes:
        models: in the order in which they were asked.
        questions: what they were asked.
        answers: of each model by name, in the order of `MODEL_NAMES`, which is that of the report.
    """

    models: Sequence[ComparedModel]
    questions: Questions
    answers: Mapping[str, Answers]


def ask_models(models: Sequence[ComparedModel], questions: Questions) -> AskedModels:
    """Ask each model in turn: start its engine, ask everything, end the engine.

    Raises:
        ConfigError: when a journal cannot be written, or another process writes it.
        EngineError: when a model fails; the comparison then has no result at all.
    """
    answers = {}
    for model in models:
        say(f"{model.name}: {model.name_or_path}")
        answers[model.name] = collect_answers(
            model.open_engine, questions.everything, model.journal, model.fingerprint
        )
    return AskedModels(models, questions, {name: answers[name] for name in MODEL_NAMES if name in answers})
