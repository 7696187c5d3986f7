"""Answers a text or a list of texts within the limits; every failure becomes a `Problem` with its code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from sentifactory.clean_text import clean_text
from sentifactory.engines.openai.request_errors import AnswerFormError, ReviewRefusedError
from sentifactory.errors import EngineError
from sentifactory.records import Review
from sentifactory.serving.answer_format import AnswerFormatter, Decision
from sentifactory.serving.backends.backend import Backend
from sentifactory.serving.http.admission import AdmissionQueue
from sentifactory.serving.http.problems import Problem
from sentifactory.serving.http.prometheus_metrics import Metrics
from sentifactory.serving.http.typed_decisions import DecisionProtocol
from sentifactory.serving.service_settings import Limits
from sentifactory.system.progress import say

RETRY_NOT_READY_S = 5.0
TEXT_KEY = "text"
NO_LABEL = "the model gave no label for this text"
_SERVER_ERROR = 500


class PredictionService:
    """Connects the HTTP interface with an engine.

    Args:
        backend: answers reviews.
        formatter: turns predictions into JSON.
        limits: of sizes, times and numbers.
        is_tuned: whether the model was trained for a task; None where that is unknown.
    """

    def __init__(
        self, backend: Backend, formatter: AnswerFormatter, limits: Limits, *, is_tuned: bool | None = None
    ) -> None:
        self.is_tuned = is_tuned
        self.backend = backend
        self.formatter = formatter
        self.limits = limits
        self.admission = AdmissionQueue(limits.queue_items, limits.request_s / 2)
        self.metrics = Metrics(formatter.task.labels, lambda: self.admission.n_texts, backend.is_ready)

    def check_ready(self) -> None:
        """Raise a Problem (not_ready) while the engine cannot answer."""
        if not self.backend.is_ready():
            raise Problem("not_ready", "the model is starting", retry_after_s=RETRY_NOT_READY_S)

    async def predict(self, body: Any) -> dict[str, Any] | list[dict[str, Any]]:
        """Return the answer to a body: a result for an object, a list for a list.

        Raises:
            Problem: when there is no result; for a list, only when every text failed by an error of the service.
        """
        if isinstance(body, list):
            return await self._predict_list(body)
        if not isinstance(body, dict):
            raise Problem("wrong_form", 'the body must be {"text": "..."} or a list of texts')
        text = check_text(body, self.limits)
        self.check_ready()
        with self.admission.admit(1) as count_answered:
            return await self._answer(text, count_answered)

    async def answer_questions(self, body: Any, protocol: DecisionProtocol) -> dict[str, Any]:
        """Return the answers to typed questions about one text; the model is asked once for all of them.

        Args:
            body: of the request.
            protocol: its form, and that of the answer.

        Raises:
            Problem: when there is no result.
        """
        request = protocol.read(body)
        text = check_text({TEXT_KEY: request.text}, self.limits)
        self.check_ready()
        with self.admission.admit(1) as count_answered:
            return protocol.write(request, await self._decide(text, count_answered))

    async def _predict_list(self, items: list[Any]) -> list[dict[str, Any]]:
        if len(items) > self.limits.list_items:
            raise Problem("list_too_long", f"the list holds {len(items)} texts; {self.limits.list_items} are allowed")
        self.check_ready()
        with self.admission.admit(len(items)) as count_answered:
            texts = [self._check_item(item) for item in items]
            items.clear()  # a refused item may be as long as the body, and would stay in memory meanwhile

            async def answer(text: str | Problem) -> dict[str, Any] | Problem:
                try:
                    return text if isinstance(text, Problem) else await self._answer(text, count_answered)
                except Problem as problem:
                    return problem

            answers = await asyncio.gather(*map(answer, texts))
        problems = [answer for answer in answers if isinstance(answer, Problem)]
        if answers and len(problems) == len(answers) and all(each.status >= _SERVER_ERROR for each in problems):
            raise problems[0]
        for problem in problems:
            self.metrics.problems.labels(problem.code).inc()
        return [answer.to_dict() if isinstance(answer, Problem) else answer for answer in answers]

    def _check_item(self, item: Any) -> str | Problem:
        try:
            return check_text({TEXT_KEY: item} if isinstance(item, str) else item, self.limits)
        except Problem as problem:
            return problem.with_traceback(None)  # its frames would keep the item in memory

    async def _answer(self, text: str, count_answered: Callable[[int], None]) -> dict[str, Any]:
        start = time.monotonic()
        decision = await self._decide(text, count_answered)
        return self.formatter.to_dict(text, decision, time.monotonic() - start)

    async def _decide(self, text: str, count_answered: Callable[[int], None]) -> Decision:
        try:
            async with asyncio.timeout(self.limits.request_s):
                prediction = await self.backend.ask(Review(clean_text(text)[0]))  # cleaned like training texts
        except TimeoutError:
            raise Problem(
                "too_slow", f"there was no answer within {self.limits.request_s:g} s", retry_after_s=RETRY_NOT_READY_S
            ) from None
        except AnswerFormError:
            raise Problem("no_label", NO_LABEL) from None
        except ReviewRefusedError:
            raise Problem("text_too_long", "the text is longer than the model can read") from None
        except EngineError as error:
            if self.backend.is_ready():  # otherwise its end is in the log already
                say(f"No answer: {error}")
            raise Problem(
                "not_ready", "the model does not answer at the moment", retry_after_s=RETRY_NOT_READY_S
            ) from None
        count_answered(1)
        decision = self.formatter.decide(prediction)
        if decision is None:
            raise Problem("no_label", NO_LABEL)
        self.metrics.count_answer(decision.label, decision.is_unsure)
        return decision


def check_text(body: Any, limits: Limits) -> str:
    """Return the text of `{"text": "..."}`, which may have no other field.

    Raises:
        Problem: when the form is wrong, or the text is too long, blank or no valid Unicode.
    """
    if not isinstance(body, dict):
        raise Problem("wrong_form", 'a text must be given as {"text": "..."}')
    if TEXT_KEY not in body:
        raise Problem("wrong_form", "the field text is missing")
    if len(body) > 1:
        raise Problem("wrong_form", "text is the only field that is allowed")
    text = body[TEXT_KEY]
    if not isinstance(text, str):
        raise Problem("wrong_form", "the field text must be a string")
    if len(text) > limits.text_chars:
        raise Problem("text_too_long", f"the text has {len(text)} characters; {limits.text_chars} are allowed")
    if not clean_text(text)[0]:
        raise Problem("blank_text", "the text is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Problem("broken_text", "the text holds half a character (a lone surrogate)") from None
    return text
