"""Answers one text or a list of them, within the limits, and says of each failure which one it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from sentifactory.corpus.cleaning import clean_text
from sentifactory.engines.openai_errors import ReviewRefusedError
from sentifactory.errors import EngineError
from sentifactory.progress import say
from sentifactory.records import Review
from sentifactory.serving.backends import Backend
from sentifactory.serving.metrics import Metrics
from sentifactory.serving.places import Places
from sentifactory.serving.problems import Problem
from sentifactory.serving.reporting import Reporter
from sentifactory.serving.settings import Limits

RETRY_NOT_READY_S = 5.0
TEXT_KEY = "text"
_SERVER_ERROR = 500


class PredictionService:
    """What stands between the HTTP interface and an engine.

    Args:
        backend: answers reviews.
        reporter: turns predictions into JSON.
        limits: what is taken at once.
    """

    def __init__(self, backend: Backend, reporter: Reporter, limits: Limits) -> None:
        self.backend = backend
        self.reporter = reporter
        self.limits = limits
        self.places = Places(limits.queue_items, limits.request_s / 2)
        self.metrics = Metrics(reporter.task.labels, lambda: self.places.taken, backend.is_ready)

    def check_ready(self) -> None:
        """Do nothing while there is an engine.

        Raises:
            Problem: not_ready.
        """
        if not self.backend.is_ready():
            raise Problem("not_ready", "the model is being started", retry_after_s=RETRY_NOT_READY_S)

    async def predict(self, body: Any) -> dict[str, Any] | list[dict[str, Any]]:
        """Return the answer to a body: a result for an object, a list for a list.

        Raises:
            Problem: when there is no result; of a list, only when there is none for any text and the fault is ours.
        """
        if isinstance(body, list):
            return await self._predict_list(body)
        if not isinstance(body, dict):
            raise Problem("wrong_form", 'the body must be {"text": "..."} or a list of such')
        text = check_text(body, self.limits)
        self.check_ready()
        with self.places.take(1) as tell_answered:
            return await self._answer(text, tell_answered)

    async def _predict_list(self, items: list[Any]) -> list[dict[str, Any]]:
        if len(items) > self.limits.list_items:
            raise Problem("list_too_long", f"the list holds {len(items)} texts; {self.limits.list_items} are taken")
        self.check_ready()
        with self.places.take(len(items)) as tell_answered:

            async def answer(item: Any) -> dict[str, Any] | Problem:
                try:
                    text = check_text({TEXT_KEY: item} if isinstance(item, str) else item, self.limits)
                    return await self._answer(text, tell_answered)
                except Problem as problem:
                    return problem

            answers = await asyncio.gather(*map(answer, items))
        problems = [answer for answer in answers if isinstance(answer, Problem)]
        if items and len(problems) == len(items) and all(one.status >= _SERVER_ERROR for one in problems):
            raise problems[0]
        for problem in problems:
            self.metrics.problems.labels(problem.code).inc()
        return [answer.to_dict() if isinstance(answer, Problem) else answer for answer in answers]

    async def _answer(self, text: str, tell_answered: Callable[[int], None]) -> dict[str, Any]:
        start = time.monotonic()
        try:
            async with asyncio.timeout(self.limits.request_s):
                prediction = await self.backend.ask(Review(clean_text(text)[0]))  # as training texts are
        except TimeoutError:
            raise Problem(
                "too_slow", f"there was no answer within {self.limits.request_s:g} s", retry_after_s=RETRY_NOT_READY_S
            ) from None
        except ReviewRefusedError:
            raise Problem("text_too_long", "the text is longer than the model can read") from None
        except EngineError as error:
            if self.backend.is_ready():  # else its end has been told already
                say(f"No answer: {error}")
            raise Problem(
                "not_ready", "the model does not answer at the moment", retry_after_s=RETRY_NOT_READY_S
            ) from None
        tell_answered(1)
        verdict = self.reporter.judge(prediction)
        if verdict is None:
            raise Problem("no_label", "the model named no label for this text")
        self.metrics.count_answer(verdict.label, verdict.is_unsure)
        return self.reporter.describe(text, verdict, time.monotonic() - start)


def check_text(body: Any, limits: Limits) -> str:
    """Return the text of `{"text": "..."}`; nothing else may stand in it, and nothing else is handed on.

    Raises:
        Problem: saying what is wrong with it.
    """
    if not isinstance(body, dict):
        raise Problem("wrong_form", 'a text must be given as {"text": "..."}')
    if TEXT_KEY not in body:
        raise Problem("wrong_form", "the field text is missing")
    if len(body) > 1:
        raise Problem("wrong_form", "there is a field beside text, and none is known")
    text = body[TEXT_KEY]
    if not isinstance(text, str):
        raise Problem("wrong_form", "the field text must be a string")
    if len(text) > limits.text_chars:
        raise Problem("text_too_long", f"the text has {len(text)} characters; {limits.text_chars} are taken")
    if not clean_text(text)[0]:
        raise Problem("blank_text", "the text is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Problem("broken_text", "the text holds half a character (a lone surrogate)") from None
    return text
