"""Mode `generate` over chat completions: greedy free text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentifactory.engines.base import make_prediction
from sentifactory.engines.openai_client import Connection
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

if TYPE_CHECKING:
    import httpx


class GenerateAsker:
    """Asks for a reply and parses it.

    Args:
        model: name under which the server knows the model.
        task: prompt and answer.
        max_new_tokens: longest reply, in tokens.
    """

    def __init__(self, model: str, task: Task, max_new_tokens: int) -> None:
        self._model = model
        self._task = task
        self._max_new_tokens = max_new_tokens
        self._fields: dict[str, Any] = {}

    async def prepare(self, connection: Connection) -> None:
        """Do what has to be done once before the first review; here: nothing."""

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review; its latency is measured by the caller.

        Raises:
            EngineError: when the server does not answer.
        """
        body = self._build_body(review.text) | self._fields
        reply = read_reply(await connection.post("/chat/completions", body, review))
        return make_prediction(self._task, reply, 0.0)

    def _build_body(self, text: str) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": self._task.render_messages(text),
            "temperature": 0,
            "seed": 0,
            "max_tokens": self._max_new_tokens,
        }


def read_reply(response: httpx.Response) -> str:
    """Return the words of a chat completion.

    Raises:
        EngineError: when the response is something else.
    """
    try:
        return str(response.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise EngineError(
            f"The answer is not a chat completion: {response.text[:200]!r}",
            where=str(response.request.url),
            next_step="check that the address is that of an OpenAI-compatible server",
        ) from error
