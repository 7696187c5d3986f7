"""The modes `generate` and `constrain` over chat completions.

`generate` requests greedy free text. `constrain` uses whichever request field the server enforces: names differ
between servers and vLLM versions, and a server may silently ignore an unknown field with HTTP 200. So before the first
review, a canary request constrains the answer to a random word; the first field that enforces it is used.

Ollama shortens a prompt that is longer than its context to half of that context, and answers with HTTP 200. Nothing in
the response says so but the number of the prompt's tokens, which is the same for every longer prompt. So a long review
is sent once more with some words added: where their tokens are not counted, the prompt was cut.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sentifactory.engines.base import make_prediction
from sentifactory.engines.openai.connection import Connection
from sentifactory.engines.openai.request_errors import LONGER_CONTEXT, ReviewRefusedError, read_message
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import Task

if TYPE_CHECKING:
    import httpx


class GenerateMode:
    """Requests a reply and parses it.

    Args:
        model: name of the model on the server.
        task: prompt and answer.
        max_new_tokens: longest reply, in tokens.
    """

    def __init__(self, model: str, task: Task, max_new_tokens: int) -> None:
        self._model = model
        self._task = task
        self._max_new_tokens = max_new_tokens
        self._fields: dict[str, Any] = {}
        self._may_cut = False

    async def prepare(self, connection: Connection) -> None:
        """Find out whether the server may cut a prompt."""
        self._may_cut = await connection.is_ollama()

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review; its latency is measured by the caller.

        Raises:
            ReviewRefusedError: when the review is longer than the server's context.
            EngineError: when the server does not answer.
        """
        body = self._build_body(review.text) | self._fields
        response = await connection.post("/chat/completions", body, review)
        reply = read_reply(response)
        await self._refuse_cut(connection, review, response)
        return make_prediction(self._task, reply, 0.0)

    async def _refuse_cut(self, connection: Connection, review: Review, response: httpx.Response) -> None:
        """Raise a ReviewRefusedError when the server has read only a part of the review."""
        import httpx

        n_tokens = read_prompt_tokens(response)
        if not self._may_cut or n_tokens is None or n_tokens < FEWEST_CUT_TOKENS:
            return
        body = self._build_body(review.text + MORE_TEXT) | {"max_tokens": 1}
        longer = await connection.post("/chat/completions", body, accepts=httpx.codes.is_client_error)
        # A server that refuses the longer prompt does not cut.
        if longer.is_success and read_prompt_tokens(longer) == n_tokens:
            what = (
                f"The server cut this review: it is longer than the server's context, and {n_tokens} tokens were read"
            )
            raise ReviewRefusedError(review, what, LONGER_CONTEXT)

    def _build_body(self, text: str) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": self._task.render_messages(text),
            "temperature": 0,
            "seed": 0,
            "max_tokens": self._max_new_tokens,
        }


def read_reply(response: httpx.Response) -> str:
    """Return the text of a chat completion.

    Raises:
        EngineError: when the response is something else.
    """
    try:
        return str(response.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EngineError(
            f"The response is not a chat completion: {response.text[:200]!r}",
            where=str(response.request.url),
            next_step="check that the address is that of an OpenAI-compatible server",
            code="server-answer",
        ) from error


def read_prompt_tokens(response: httpx.Response) -> int | None:
    """Return how many tokens a server has read of a prompt; None where it does not say."""
    try:
        return int(response.json()["usage"]["prompt_tokens"])
    except (ValueError, KeyError, TypeError):
        return None


CANARY_TEXT = "还可以"
FEWEST_CUT_TOKENS = 512  # left of a prompt by a context of 1024, which is half of Ollama's shortest default
MORE_TEXT = CANARY_TEXT * 5  # however it joins the text before it, it has tokens of its own
SHOWN_CHARACTERS = 60


def ask_by_choice(task: Task) -> dict[str, Any]:
    """Return the request field of vLLM 0.11 and newer: a choice of texts."""
    return {"structured_outputs": {"choice": list_answers(task)}}


def ask_by_guided_choice(task: Task) -> dict[str, Any]:
    """Return the request field of older vLLM."""
    return {"guided_choice": list_answers(task)}


def ask_by_schema(task: Task) -> dict[str, Any]:
    """Return the request field of OpenAI and most other servers: a JSON schema."""
    schema = {
        "type": "object",
        "properties": {task.answer_key: {"enum": list(task.answer_values)}},
        "required": [task.answer_key],
        "additionalProperties": False,
    }
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


FORMS: tuple[Callable[[Task], dict[str, Any]], ...] = (ask_by_choice, ask_by_guided_choice, ask_by_schema)


def list_answers(task: Task) -> list[str]:
    """Return the answers of a task, in the order of its labels."""
    return [task.render_answer(label) for label in range(len(task.labels))]


def make_canary_task(task: Task) -> Task:
    """Return the task with random answers, while its prompt still asks for the real ones."""
    return replace(task, answer_values=tuple(f"zq{secrets.token_hex(4)}" for _ in task.labels))


class ConstrainMode(GenerateMode):
    """Requests a reply that is constrained to the task's answers."""

    _form: Callable[[Task], dict[str, Any]]

    async def prepare(self, connection: Connection) -> None:
        """Find a request field that the server enforces.

        Raises:
            EngineError: when it enforces none.
        """
        await super().prepare(connection)
        canary = make_canary_task(self._task)
        seen = []
        for form in FORMS:
            fields = form(canary)
            reply = await self._try_form(connection, fields, canary)
            if canary.parse_answer(reply) is not None:
                self._form, self._fields = form, form(self._task)
                self._max_new_tokens = max(self._max_new_tokens, count_most_tokens(list_answers(self._task)))
                return
            seen.append(f"{next(iter(fields))}: {reply[:SHOWN_CHARACTERS]!r}")
        raise EngineError(
            "The server does not enforce a choice of answers; constrained to a random word, it replied, with "
            f"{'; with '.join(seen)}",
            where=connection.address,
            expected="a server that enforces structured_outputs, guided_choice or a JSON schema",
            next_step="use a server such as vLLM 0.11 or newer, llama.cpp or Ollama; `sentifactory eval compare` also "
            "takes --mode generate",
            code="server-mode",
        )

    async def _try_form(self, connection: Connection, fields: dict[str, Any], canary: Task) -> str:
        """Return the server's reply to the canary, or the message with which it refuses."""
        import httpx

        body = self._build_body(CANARY_TEXT) | fields | {"max_tokens": count_most_tokens(list_answers(canary))}
        response = await connection.post("/chat/completions", body, accepts=httpx.codes.is_client_error)
        return read_reply(response) if response.is_success else read_message(response)

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review.

        Raises:
            ReviewRefusedError: when the review is longer than the server's context.
            EngineError: when the server's reply is not an answer of the task.
        """
        prediction = await super().ask(connection, review)
        if prediction.label is None:
            raise EngineError(
                f"The server replied {prediction.raw[:SHOWN_CHARACTERS]!r}, which is not one of the answers that it "
                "was constrained to",
                where=connection.address,
                next_step="pass --mode generate or --mode score",
                code="server-mode",
            )
        return prediction


def count_most_tokens(texts: Sequence[str]) -> int:
    """Return an upper bound of the tokens of the longest text: one per byte of its JSON form, and some spare ones."""
    return max(len(json.dumps(text)) for text in texts) + 16
