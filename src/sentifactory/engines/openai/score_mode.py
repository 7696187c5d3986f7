"""Mode `score` over completions: the probabilities of the answers' distinguishing tokens, from one forward pass.

The prompt is sent as token ids from the server's own tokenizer and chat template, followed by the tokens that all
answers begin with. One token is sampled and discarded; what counts are the log-probabilities at its position. A server
that supports `logprob_token_ids` (vLLM) returns them for exactly the tokens needed. Others return only the few most
likely tokens. If one of ours is missing, more are asked for, which is exact too: llama.cpp lists as many tokens as are
asked for, up to all; another server gets the prompt again with that token at its end, and returns the
log-probabilities of the prompt.
"""

from __future__ import annotations

import math
from typing import Any

from sentifactory.engines.answer_tokens import AnswerTree, Path, build_answer_tree, read_scores
from sentifactory.engines.openai.chat_modes import CANARY_TEXT, list_answers
from sentifactory.engines.openai.connection import Connection
from sentifactory.engines.openai.request_errors import OTHER_MODES
from sentifactory.engines.openai.token_routes import TokenRoutes
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import Task

TOP_LOGPROBS = 5  # supported by every server
MORE_LOGPROBS = (1000, 1 << 20)  # of llama.cpp, which lists all tokens of a smaller vocabulary
SURE_BIAS = 100  # the largest that every server takes
TOKEN_PREFIX = "token_id:"  # noqa: S105 - how servers write a token by its id


class ScoreMode:
    """Requests the probability of each answer.

    Args:
        model: the server's name for the model.
        task: prompt and answer.
    """

    def __init__(self, model: str, task: Task) -> None:
        self._model = model
        self._task = task
        self._routes = TokenRoutes(model)
        self._tree = AnswerTree((), ())

    async def prepare(self, connection: Connection) -> None:
        """Get the token ids of the answers from the server.

        Raises:
            NoTokensError: when the server returns no token ids.
            EngineError: when it returns no probabilities.
        """
        await self._routes.find(connection, self._task.render_messages(CANARY_TEXT))
        answers = list_answers(self._task)
        self._tree = build_answer_tree([await self._routes.tokenize_text(connection, answer) for answer in answers])
        await self.ask(connection, Review(CANARY_TEXT))

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review; the caller measures its latency.

        Raises:
            EngineError: when the server does not answer or returns no probabilities.
        """
        messages = self._task.render_messages(review.text)
        prompt = [*await self._routes.tokenize_chat(connection, messages), *self._tree.lead]
        paths = list(self._tree.forks)
        wanted = sorted({token for path in paths for token in self._tree.forks[path]})
        body = self._build_body([[*prompt, *path] for path in paths])
        body |= {"logprob_token_ids": wanted, "logprobs": TOP_LOGPROBS, "return_tokens_as_token_ids": True}
        choices = await self._complete(connection, body, review)
        scores: dict[tuple[Path, int], float] = {}
        for path, choice in zip(paths, choices, strict=True):
            tokens = self._tree.forks[path]
            listed = read_top_logprobs(choice)
            if not listed.keys() >= set(tokens):
                listed |= await self._read_unlisted(connection, [*prompt, *path], set(tokens) - listed.keys(), review)
            scores |= {(path, token): listed[token] for token in tokens}
        return read_scores(self._tree, scores, self._task, "score", 0.0)

    def _build_body(self, prompts: list[list[int]]) -> dict[str, Any]:
        body = {"model": self._model, "prompt": prompts, "max_tokens": 1, "temperature": 0, "seed": 0}
        if self._routes.has_templates:
            # llama.cpp lists nothing where it samples a part of a character, as the likeliest token may be. What it
            # lists are the probabilities before the bias.
            body["logit_bias"] = {str(token): SURE_BIAS for token in self._tree.lead[:1]}
        return body

    async def _read_unlisted(
        self, connection: Connection, prompt: list[int], tokens: set[int], review: Review
    ) -> dict[int, float]:
        """Return the log-probabilities of tokens after a prompt for which the server has not listed them."""
        found: dict[int, float] = {}
        try:
            if self._routes.has_templates:
                for n_listed in MORE_LOGPROBS:
                    body = self._build_body([prompt]) | {"logprobs": n_listed}
                    found = read_top_logprobs((await self._complete(connection, body, review))[0])
                    if found.keys() >= tokens:
                        break
            else:
                for token in tokens:
                    body = self._build_body([[*prompt, token]]) | {"echo": True, "logprobs": 1}
                    choices = await self._complete(connection, body, review)
                    found[token] = float(choices[0]["logprobs"]["token_logprobs"][len(prompt)])
            return {token: found[token] for token in tokens}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                "The server does not return the probability of a token that is not among the most likely ones",
                where=f"{connection.address}/completions",
                expected="support for `logprob_token_ids`, as in vLLM, or for `echo` with `logprobs`, or a llama.cpp "
                "that lists log-probabilities",
                next_step=f"use a server such as vLLM or a newer llama.cpp; {OTHER_MODES}",
                code="server-mode",
            ) from error

    async def _complete(self, connection: Connection, body: dict[str, Any], review: Review) -> list[dict[str, Any]]:
        response = await connection.post("/completions", body, review)
        try:
            choices = sorted(response.json()["choices"], key=lambda choice: choice["index"])
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"The response is not a completion: {response.text[:200]!r}",
                where=f"{connection.address}/completions",
                next_step="check that this is the address of an OpenAI-compatible server",
                code="server-answer",
            ) from error
        if len(choices) != len(body["prompt"]):
            raise EngineError(
                f"The server returned {len(choices)} completions for {len(body['prompt'])} prompts",
                where=f"{connection.address}/completions",
                code="server-answer",
            )
        return choices


def read_top_logprobs(choice: dict[str, Any]) -> dict[int, float]:
    """Return the listed log-probabilities at the first sampled token by token id; {} if the server lists no ids."""
    try:
        logprobs = choice["logprobs"]
        if "content" in logprobs:  # llama.cpp
            listed = logprobs["content"][0]["top_logprobs"]
            return {int(entry["id"]): read_logprob(entry) for entry in listed}
        return {
            int(token.removeprefix(TOKEN_PREFIX)): float(value)
            for token, value in logprobs["top_logprobs"][0].items()
            if token.startswith(TOKEN_PREFIX)
        }
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return {}


def read_logprob(entry: dict[str, Any]) -> float:
    """Return the log-probability in an entry of a server's list; llama.cpp writes NaN as null.

    Raises:
        KeyError: when there is none.
        TypeError, ValueError: when it is no number.
    """
    return math.nan if entry["logprob"] is None else float(entry["logprob"])
