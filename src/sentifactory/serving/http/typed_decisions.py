"""Answers typed decisions (`/v1/systemone`, `/v1/decisions`) for the one question that the model was taught.

The options of a question say whether it is that one: a choice among exactly the labels of the task, or a score on
exactly its stars. Everything else is refused. The probabilities are those of `/predict`, in the order of the options.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn, Protocol

from sentifactory.corpus.files.columns import names_stars
from sentifactory.corpus.files.encodings import show_undecodable
from sentifactory.serving.answer_format import PROBABILITY_DIGITS, AnswerFormatter, Decision
from sentifactory.serving.http.decision_forms import build_forms
from sentifactory.serving.http.problems import Problem
from sentifactory.task.task import Task

SYSTEM_ONE_ROUTE = "/v1/systemone"
DECISIONS_ROUTE = "/v1/decisions"
_MAX_MESSAGE_CHARS = 300
# They would change the prompt, and the model was taught one.
_PROMPT_FIELDS = ("instructions", "images", "audio", "videos")
_WITHOUT_EFFECT = {"enable_thinking": False}  # the only chat template option that asks for what is done anyway


@dataclass(frozen=True, slots=True)
class Question:
    """A question that the model was taught.

    Attributes:
        name: given by the client; None for none.
        is_score: whether the options are levels of a score.
        options: in the client's words and order.
        labels: (n_options,) index of the task's label that each option is.
    """

    name: str | None
    is_score: bool
    options: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """A text and the questions about it.

    Attributes:
        text: not checked yet.
        questions: in the order of the request.
        request_id: given by the client; "" for none.
    """

    text: str
    questions: tuple[Question, ...]
    request_id: str = ""


class DecisionProtocol(Protocol):
    """Reads the requests of a route and writes its answers."""

    def read(self, body: Any) -> DecisionRequest:
        """Return the request in a body.

        Raises:
            Problem: when the form is wrong, the model is another one, or it was not taught a question.
        """
        ...

    def write(self, request: DecisionRequest, decision: Decision) -> dict[str, Any]:
        """Return the answer as plain JSON values.

        Raises:
            Problem: when the decision has no probabilities, or no label and the protocol cannot say so.
        """
        ...


class TaughtQuestions:
    """Recognises the questions that a model was taught.

    Args:
        task: its labels and answers.
    """

    def __init__(self, task: Task) -> None:
        self._wordings = (task.labels, tuple(map(str, task.answer_values)))
        self._has_stars = has_stars(task)
        kinds = "a choice" + (" or, in this order, a score" if self._has_stars else "")
        self._offer = f"{kinds} of exactly {', '.join(task.labels)}"

    def match_choice(self, name: str | None, options: Sequence[Any]) -> Question:
        """Return the question with these options, which must be all labels, or all answers, in any order.

        Raises:
            Problem: not_taught.
        """
        for wording in self._wordings:
            if len(options) == len(wording) and set(options) == set(wording):
                return Question(name, False, tuple(options), tuple(map(wording.index, options)))
        self.refuse()

    def match_score(self, name: str | None, levels: Sequence[str]) -> Question:
        """Return the question with these levels, which must be the stars in ascending order.

        Raises:
            Problem: not_taught.
        """
        if self._has_stars and tuple(levels) in self._wordings:
            return Question(name, True, tuple(levels), tuple(range(len(levels))))
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise a Problem (not_taught) that names the questions that can be asked."""
        raise Problem("not_taught", f"the model was not taught to answer this question; ask {self._offer}")


def has_stars(task: Task) -> bool:
    """Return whether the answers of a task are stars: ascending numbers under a name that says so.

    Example:
        >>> from sentifactory.task.task import THREE_CLASSES
        >>> has_stars(THREE_CLASSES)
        False
    """
    numbers = [value for value in task.answer_values if isinstance(value, int)]
    is_scale = len(numbers) == len(task.labels) and all(low < high for low, high in pairwise(numbers))
    return is_scale and any(map(names_stars, (task.answer_key, task.name)))


class _OneModel:
    """What both protocols know of the service: one model, and what it was taught."""

    def __init__(self, formatter: AnswerFormatter) -> None:
        self._model = formatter.model
        self._taught = TaughtQuestions(formatter.task)

    def _read_form(self, form: type[Any], body: Any) -> Any:
        """Return a body as a form; raises a Problem when the form is wrong or the model is another one."""
        found = check_form(form, body)
        check_model(found.model, self._model)
        return found


class SystemOne(_OneModel):
    """The protocol of `/v1/systemone`, as of vLLM 0.32.

    Args:
        formatter: names of model and labels.
    """

    def read(self, body: Any) -> DecisionRequest:
        """See `DecisionProtocol`."""
        form = self._read_form(build_forms().system_one, body)
        given = [field for field in _PROMPT_FIELDS if getattr(form, field)]
        if form.chat_template_kwargs and form.chat_template_kwargs != _WITHOUT_EFFECT:
            given.append("chat_template_kwargs")
        if given:
            raise Problem(
                "not_taught", f"the model reads a text in the prompt of its training; omit {', '.join(given)}"
            )
        questions = tuple(self._match(name, question) for name, question in form.questions.items())
        return DecisionRequest(form.state, questions, form.request_id)

    def _match(self, name: str, question: Any) -> Question:
        criteria = question.criteria
        if question.type == "choice" and isinstance(criteria, dict):
            return self._taught.match_choice(name, list(criteria))
        if question.type == "score" and isinstance(criteria, list):
            return self._taught.match_score(name, list(map(str, criteria)))
        self._taught.refuse()

    def write(self, request: DecisionRequest, decision: Decision) -> dict[str, Any]:
        """See `DecisionProtocol`."""
        shares = read_shares(decision)
        if decision.is_unsure:
            raise Problem("no_label", "no label reaches the threshold of this service for this text")
        return {
            "id": f"decision-{request.request_id or uuid.uuid4().hex}",
            "object": "structured_decision",
            "created": int(time.time()),
            "model": self._model,
            "answers": {one.name: self._answer(one, shares, decision.label) for one in request.questions},
            "usage": {"input_tokens": 0, "output_tokens": 0},
            # The probabilities are shares among the labels, which are all that the model is allowed to answer.
            "diagnostics": {one.name: {"label_mass": 1.0, "argmax_is_label": True} for one in request.questions},
        }

    def _answer(self, question: Question, shares: Sequence[float], label: int) -> dict[str, Any]:
        ordered = [shares[each] for each in question.labels]
        confidence = shares[label]
        if question.is_score:
            return {
                "type": "score",
                "score": find_expected_level(ordered),
                "legend": {str(level): name for level, name in enumerate(question.options)},
                "probabilities": {str(level): share for level, share in enumerate(ordered)},
                "confidence": confidence,
            }
        return {
            "type": "choice",
            "choice": question.options[question.labels.index(label)],
            "probabilities": dict(zip(question.options, ordered, strict=True)),
            "confidence": confidence,
        }


class OpenAiDecisions(_OneModel):
    """The protocol of `/v1/decisions`: OpenAI's, for texts, as in vLLM 0.33.

    Args:
        formatter: names of model and labels.
    """

    def read(self, body: Any) -> DecisionRequest:
        """See `DecisionProtocol`."""
        form = self._read_form(build_forms().decisions, body)
        return DecisionRequest(join_input(form.input), tuple(map(self._match, form.questions)))

    def _match(self, question: Any) -> Question:
        if question.type == "choice":
            return self._taught.match_choice(question.name, [option.value for option in question.choices])
        if question.type == "score":
            return self._taught.match_score(question.name, [level.label for level in question.levels])
        self._taught.refuse()

    def write(self, request: DecisionRequest, decision: Decision) -> dict[str, Any]:
        """See `DecisionProtocol`."""
        shares = read_shares(decision)
        return {
            "model": self._model,
            "answers": [
                {"type": "refusal", "name": one.name}
                if decision.is_unsure
                else self._answer(one, shares, decision.label)
                for one in request.questions
            ],
            "usage": {
                "input_tokens": 0,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 0,
            },
        }

    def _answer(self, question: Question, shares: Sequence[float], label: int) -> dict[str, Any]:
        ordered = [shares[each] for each in question.labels]
        if question.is_score:
            levels = enumerate(zip(question.options, ordered, strict=True))
            return {
                "type": "score",
                "name": question.name,
                "score": find_expected_level(ordered),
                "probabilities": [
                    {"value": level, "label": name, "probability": share} for level, (name, share) in levels
                ],
                "confidence": shares[label],
            }
        return {
            "type": "choice",
            "name": question.name,
            "choice": question.options[question.labels.index(label)],
            "probabilities": [
                {"value": name, "probability": share} for name, share in zip(question.options, ordered, strict=True)
            ],
            "confidence": shares[label],
        }


def check_form(form: type[Any], body: Any) -> Any:
    """Return a body as a form.

    Raises:
        Problem: wrong_form, with the first fault.
    """
    from pydantic import ValidationError

    try:
        return form.model_validate(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, fault["loc"])) or "the body"
    raise Problem("wrong_form", show_undecodable(f"{fault['msg']}, at {where}"[:_MAX_MESSAGE_CHARS]))


def check_model(asked: str | None, served: str) -> None:
    """Raise a Problem (not_found) when a request names another model than the service has; "" names none."""
    if asked and asked != served:
        raise Problem("not_found", f"the model of this service is {served}; send this name")


def join_input(given: str | list[Any]) -> str:
    """Return the text of an input, joined as in vLLM: messages by an empty line, their parts by a line break."""
    if isinstance(given, str):
        return given
    return "\n\n".join(
        one.content if isinstance(one.content, str) else "\n".join(part.text for part in one.content) for one in given
    )


def read_shares(decision: Decision) -> list[float]:
    """Return the probabilities (n_labels,) of a decision, rounded as in `/predict`.

    Raises:
        Problem: no_label, when there are none.
    """
    if decision.probabilities is None:
        raise Problem("no_label", "the model gives no probabilities for this text; ask /predict for its label")
    return [round(share, PROBABILITY_DIGITS) for share in decision.probabilities]


def find_expected_level(shares: Sequence[float]) -> float:
    """Return the expected level of a score, with the probabilities (n_levels,) of its levels; the first is 0.

    Example:
        >>> find_expected_level([0.25, 0.25, 0.5])
        1.25
    """
    return round(sum(level * share for level, share in enumerate(shares)), PROBABILITY_DIGITS)
