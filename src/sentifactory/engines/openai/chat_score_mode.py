"""Mode `score` over chat completions, for servers that return log-probabilities but no token ids, such as Ollama.

The server writes an answer that is constrained to those of the task, and returns the log-probability of each of its
tokens and of the most likely others, all of them before the constraint. A label that is not among them is written too,
in a request that allows only its answer. So every probability is the model's own, and those of all labels follow the
same tokens, as in `score_mode`. Not covered: an answer in another form than the taught one, such as with other spaces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from sentifactory.engines.answer_tokens import AnswerTree, Path, build_answer_tree, read_scores
from sentifactory.engines.openai.chat_modes import (
    CANARY_TEXT,
    SHOWN_CHARACTERS,
    ConstrainMode,
    list_answers,
    read_reply,
)
from sentifactory.engines.openai.connection import Connection
from sentifactory.engines.openai.request_errors import OTHER_MODES, AnswerFormError
from sentifactory.engines.openai.score_mode import read_logprob
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import Task

TOP_LOGPROBS = 20  # the most that OpenAI and Ollama list
SCORING_SERVERS = f"a server that returns token ids, such as llama.cpp's or vLLM; {OTHER_MODES}"
ROUNDING = 0.01  # of the sum of some tokens' probabilities

# (path, token) to log-probability, as in `answer_tokens`; the tokens are numbers of texts.
Edges = dict[tuple[Path, int], float]


@dataclass(frozen=True, slots=True)
class WrittenToken:
    """A token of a reply.

    Attributes:
        text: what it spells.
        logprob: its log-probability.
        others: the log-probabilities of the most likely tokens at its position, by their texts.
    """

    text: str
    logprob: float
    others: dict[str, float]


class ChatScoreMode(ConstrainMode):
    """Requests an answer with the probabilities of all answers; takes what `GenerateMode` takes."""

    def __init__(self, model: str, task: Task, max_new_tokens: int) -> None:
        super().__init__(model, task, max_new_tokens)
        self._numbers: dict[str, int] = {}
        self._tree = AnswerTree((), ())

    async def prepare(self, connection: Connection) -> None:
        """Find a constraint that the server enforces, and the tokens that it writes each answer in.

        Raises:
            EngineError: when it enforces none, or does not return the model's own probabilities.
        """
        await super().prepare(connection)
        sample = Review(CANARY_TEXT)
        try:
            answers = [await self._write(connection, sample, label) for label in range(len(self._task.labels))]
        except AnswerFormError as error:  # as it would answer every review
            raise EngineError(
                error.what,
                where=f"{connection.address}/chat/completions",
                next_step=f"use {SCORING_SERVERS}",
                code="server-mode",
            ) from error
        for token in (token for answer in answers for token in answer):
            self._numbers.setdefault(token.text, len(self._numbers))
        self._tree = build_answer_tree([[self._numbers[token.text] for token in answer] for answer in answers])
        # Where only one label is allowed, its probability after the constraint is 1.
        first = {answer[len(self._tree.lead)].text: answer[len(self._tree.lead)].logprob for answer in answers}
        if sum(map(math.exp, first.values())) > 1 + ROUNDING:
            raise describe_no_logprobs(connection, "only the probabilities after the constraint")

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review; the caller measures its latency.

        Raises:
            ReviewRefusedError: when the review is longer than the server's context.
            AnswerFormError: when the server answers this review in another form than the taught one.
            EngineError: when the server does not answer.
        """
        edges = self._read_edges(await self._write(connection, review))
        for label, ending in enumerate(self._tree.endings):
            needed = {(ending[:place], token) for place, token in enumerate(ending)}
            if not needed <= edges.keys():
                edges = self._read_edges(await self._write(connection, review, label)) | edges
            if not needed <= edges.keys():
                raise _describe_other_form(review, self._task.render_answer(label), "in other tokens")
        return read_scores(self._tree, edges, self._task, "score", 0.0)

    async def _write(self, connection: Connection, review: Review, label: int | None = None) -> list[WrittenToken]:
        """Return the tokens of the answer that the server writes: the likeliest, or that of a label."""
        answers, fields = list_answers(self._task), self._fields
        if label is not None:
            answers = [answers[label]]
            fields = self._form(_narrow_task(self._task, label))
        body = self._build_body(review.text) | fields | {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        response = await connection.post("/chat/completions", body, review)
        reply = read_reply(response)
        if label is None:  # otherwise the prompt is one that the server has answered before
            await self._refuse_cut(connection, review, response)
        try:
            tokens = [_read_token(entry) for entry in response.json()["choices"][0]["logprobs"]["content"]]
        except (KeyError, TypeError, ValueError) as error:
            raise describe_no_logprobs(connection, "no log-probabilities of a reply") from error
        for end in range(1, len(tokens) + 1):
            # A JSON schema allows spaces after the answer, and the server may list the token that ends the turn.
            if "".join(token.text for token in tokens[:end]).rstrip() in answers:
                return tokens[:end]
        raise _describe_other_form(review, reply, "in another form")

    def _read_edges(self, answer: list[WrittenToken]) -> Edges:
        """Return the log-probabilities at the forks that an answer passes."""
        path = tuple(self._numbers.get(token.text, -1) for token in answer)
        n_lead = len(self._tree.lead)
        edges: Edges = {}
        if path[:n_lead] != self._tree.lead:
            return edges
        for place, token in enumerate(answer[n_lead:], start=n_lead):
            tokens = self._tree.forks.get(path[n_lead:place], ())
            for text, logprob in ((token.text, token.logprob), *token.others.items()):
                if self._numbers.get(text) in tokens:
                    edges.setdefault((path[n_lead:place], self._numbers[text]), logprob)
        return edges


def _narrow_task(task: Task, label: int) -> Task:
    """Return the task with one label only."""
    return replace(task, labels=(task.labels[label],), answer_values=(task.answer_values[label],), synonyms=())


def _read_token(entry: dict[str, Any]) -> WrittenToken:
    others: dict[str, float] = {}
    for other in entry.get("top_logprobs") or ():
        others.setdefault(str(other["token"]), read_logprob(other))  # of tokens that spell the same, the likelier one
    return WrittenToken(str(entry["token"]), read_logprob(entry), others)


def describe_no_logprobs(connection: Connection, what: str) -> EngineError:
    """Return the error for a server that does not return the model's log-probabilities."""
    return EngineError(
        f"The server returns {what}, so answers cannot be scored",
        where=f"{connection.address}/chat/completions",
        expected="a server that returns token ids (vLLM, llama.cpp), or the log-probabilities of the tokens that it "
        "writes (Ollama 0.12.11 or newer)",
        next_step=f"update the server, or use {SCORING_SERVERS}",
        code="server-mode",
    )


def _describe_other_form(review: Review, reply: str, how: str) -> AnswerFormError:
    return AnswerFormError(
        review,
        f"The server writes the answer {how} than the taught one ({reply[:SHOWN_CHARACTERS]!r}), which cannot be "
        "scored",
        f"for a label, use {SCORING_SERVERS}",
    )
