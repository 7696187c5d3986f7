"""Mode `constrain` over chat completions, in whichever of its forms a server keeps to.

vLLM has had three names for it, other servers have theirs, and a server that does not know a field may ignore it with
HTTP 200. So nothing is believed: before the first review, the server is told to answer with a word of no meaning that
was made up a moment ago. The first form under which it does is the one that is used.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sentifactory.engines.openai_client import Connection
from sentifactory.engines.openai_errors import read_message
from sentifactory.engines.openai_generate import GenerateAsker, read_reply
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

CANARY_TEXT = "还可以"
SHOWN_CHARACTERS = 60


def ask_by_choice(task: Task) -> dict[str, Any]:
    """Return the field of vLLM since 0.11: the answers as a choice of texts."""
    return {"structured_outputs": {"choice": list_answers(task)}}


def ask_by_guided_choice(task: Task) -> dict[str, Any]:
    """Return the field of older vLLM."""
    return {"guided_choice": list_answers(task)}


def ask_by_schema(task: Task) -> dict[str, Any]:
    """Return the field of OpenAI and most others: a JSON schema."""
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
    """Return the task with answers that nobody could guess; its prompt still asks for the real ones."""
    return replace(task, answer_values=tuple(f"zq{secrets.token_hex(4)}" for _ in task.labels))


class ConstrainAsker(GenerateAsker):
    """Asks for one of the task's answers and nothing else."""

    async def prepare(self, connection: Connection) -> None:
        """Find a form that the server keeps to.

        Raises:
            EngineError: when it keeps to none.
        """
        canary = make_canary_task(self._task)
        seen = []
        for form in FORMS:
            fields = form(canary)
            reply = await self._try_form(connection, fields, canary)
            if canary.parse_answer(reply) is not None:
                self._fields = form(self._task)
                self._max_new_tokens = max(self._max_new_tokens, count_most_tokens(list_answers(self._task)))
                return
            seen.append(f"{next(iter(fields))}: {reply[:SHOWN_CHARACTERS]!r}")
        raise EngineError(
            "The server does not keep to the answers that it is told to choose from; told to answer with a made-up "
            f"word, it said, asked by {'; by '.join(seen)}",
            where=connection.address,
            expected="a server that enforces structured_outputs, guided_choice or a JSON schema",
            next_step="use the mode generate or score, or a server such as vLLM 0.11 or newer",
        )

    async def _try_form(self, connection: Connection, fields: dict[str, Any], canary: Task) -> str:
        """Return what the server says to the canary; words of refusal are words too."""
        import httpx

        body = self._build_body(CANARY_TEXT) | fields | {"max_tokens": count_most_tokens(list_answers(canary))}
        response = await connection.post("/chat/completions", body, accepts=httpx.codes.is_client_error)
        return read_reply(response) if response.is_success else read_message(response)

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review.

        Raises:
            EngineError: when the server writes something else than an answer after all.
        """
        prediction = await super().ask(connection, review)
        if prediction.label is None:
            raise EngineError(
                f"The server wrote {prediction.raw[:SHOWN_CHARACTERS]!r}, which is none of the answers that it was "
                "told to choose from",
                where=connection.address,
                next_step="use the mode generate or score",
            )
        return prediction


def count_most_tokens(texts: Sequence[str]) -> int:
    """Return how many tokens the longest text may take: one a byte as JSON has it, blanks and an end token."""
    return max(len(json.dumps(text)) for text in texts) + 16
