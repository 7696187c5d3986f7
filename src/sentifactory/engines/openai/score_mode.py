"""Mode `score` over completions: the probabilities of the answers' distinguishing tokens, from one forward pass.

The prompt is sent as token ids from the server's own tokenizer and chat template, followed by the tokens that all
answers begin with. One token is sampled and discarded; what counts are the log-probabilities at its position. A server
that supports `logprob_token_ids` (vLLM) returns them for exactly the tokens needed. Others return only the few most
likely tokens: if one of ours is missing, the prompt is sent again with that token at its end and the log-probabilities
of the prompt are requested, which is exact too, but expensive.
"""

from __future__ import annotations

from typing import Any

from sentifactory.engines.answer_tokens import AnswerTree, Path, build_answer_tree, read_scores
from sentifactory.engines.openai.connection import Connection
from sentifactory.engines.openai.request_errors import read_message
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import Task

TOP_LOGPROBS = 5  # supported by every server
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
        self._tree = AnswerTree((), ())

    async def prepare(self, connection: Connection) -> None:
        """Get the token ids of the answers from the server.

        Raises:
            EngineError: when the server returns no token ids or no probabilities.
        """
        answers = [self._task.render_answer(label) for label in range(len(self._task.labels))]
        sequences = [
            await self._tokenize(connection, {"prompt": answer, "add_special_tokens": False}) for answer in answers
        ]
        self._tree = build_answer_tree(sequences)
        await self.ask(connection, Review("还可以"))

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review; the caller measures its latency.

        Raises:
            EngineError: when the server does not answer or returns no probabilities.
        """
        messages = self._task.render_messages(review.text)
        prompt = await self._tokenize(connection, {"messages": messages, "add_generation_prompt": True})
        prompt += self._tree.lead
        paths = list(self._tree.forks)
        tokens = sorted({token for path in paths for token in self._tree.forks[path]})
        body = self._build_body([[*prompt, *path] for path in paths])
        body |= {"logprob_token_ids": tokens, "logprobs": TOP_LOGPROBS, "return_tokens_as_token_ids": True}
        choices = await self._complete(connection, body, review)
        scores: dict[tuple[Path, int], float] = {}
        for path, choice in zip(paths, choices, strict=True):
            listed = read_top_logprobs(choice)
            for token in self._tree.forks[path]:
                scores[path, token] = (
                    listed[token]
                    if token in listed
                    else await self._read_from_prompt(connection, [*prompt, *path, token], review)
                )
        return read_scores(self._tree, scores, self._task, "score", 0.0)

    def _build_body(self, prompts: list[list[int]]) -> dict[str, Any]:
        return {"model": self._model, "prompt": prompts, "max_tokens": 1, "temperature": 0, "seed": 0}

    async def _read_from_prompt(self, connection: Connection, prompt: list[int], review: Review) -> float:
        """Return the log-probability of the last token of a prompt."""
        body = self._build_body([prompt]) | {"echo": True, "logprobs": 1}
        choices = await self._complete(connection, body, review)
        try:
            return float(choices[0]["logprobs"]["token_logprobs"][len(prompt) - 1])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineError(
                "The server does not return the probability of a token that is not among the most likely ones",
                where=f"{connection.address}/completions",
                expected="support for `logprob_token_ids`, as in vLLM, or `echo` with `logprobs`",
                next_step="use the mode generate or constrain, or a server such as vLLM",
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

    async def _tokenize(self, connection: Connection, words: dict[str, Any]) -> list[int]:
        """Return the token ids of a text or of chat messages."""
        response = await connection.post_to_root("/tokenize", {"model": self._model, **words})
        try:
            return [int(token) for token in response.json()["tokens"]]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                "The server does not return the token ids of a text, so answers cannot be scored "
                f"(HTTP {response.status_code}: {read_message(response)})",
                where=str(response.request.url),
                expected="POST /tokenize, as in vLLM",
                next_step="use the mode generate or constrain, or the engine vllm or transformers",
                code="server-mode",
            ) from error


def read_top_logprobs(choice: dict[str, Any]) -> dict[int, float]:
    """Return the listed log-probabilities at the first sampled token by token id; {} if the server lists no ids."""
    try:
        listed = choice["logprobs"]["top_logprobs"][0]
        return {
            int(token.removeprefix(TOKEN_PREFIX)): float(value)
            for token, value in listed.items()
            if token.startswith(TOKEN_PREFIX)
        }
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return {}
