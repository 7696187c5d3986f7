"""Asks any OpenAI-compatible address: our own vLLM, somebody else's, LLaMA-Factory's `api`, a hosted service.

Many requests are under way at once, and the answers come back in the order of the reviews. What fails for a passing
reason (connection, 429, 5xx, time-out) is sent again. A review that is too long for the model gets no answer (label
None) and is told about; every other refusal ends the run with a sentence, because it would meet every review alike.
`openai_generate.py`, `openai_constrain.py` and `openai_score.py` hold the three modes; `openai_classify.py` asks a
classifier, where the address ends in `/classify`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from sentifactory.engines.base import MAX_NEW_TOKENS, ClosingEngine, Mode, OnAnswer
from sentifactory.engines.openai_classify import PATH as CLASSIFY_PATH
from sentifactory.engines.openai_classify import ClassifyAsker
from sentifactory.engines.openai_client import (
    Connection,
    Patience,
    ServerAddress,
    find_key,
    gather_or_cancel,
    run_to_end,
)
from sentifactory.engines.openai_constrain import ConstrainAsker
from sentifactory.engines.openai_errors import ReviewRefusedError, normalise_address
from sentifactory.engines.openai_generate import GenerateAsker
from sentifactory.engines.openai_score import ScoreAsker
from sentifactory.errors import EngineError
from sentifactory.progress import say, show_progress
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

SHOWN_REFUSALS = 3


class Asker(Protocol):
    """One mode of asking."""

    async def prepare(self, connection: Connection) -> None:
        """Do what has to be done once before the first review."""
        ...

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review, without its latency."""
        ...


class OpenAiEngine(ClosingEngine):
    """A model behind an OpenAI-compatible address.

    Args:
        address: "http://host:port", with or without "/v1"; "http://host:port/classify" for a classifier.
        model: name under which the server knows the model; None takes the only one that it lists.
        task: prompt and answer.
        name: what the model is called in progress lines and reports; the model's own name when empty.
        mode: `generate`, `constrain` or `score`.
        api_key: bearer token; by default SENTIFACTORY_API_KEY or OPENAI_API_KEY.
        max_new_tokens: longest reply, in tokens.
        concurrency: requests under way at the same time.
        patience: how long the server is waited for.

    Raises:
        EngineError: when the server cannot be reached, does not know the model, or cannot do what the mode needs.
    """

    def __init__(
        self,
        address: str,
        model: str | None,
        task: Task,
        *,
        name: str = "",
        mode: Mode = "generate",
        api_key: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        concurrency: int = 32,
        patience: Patience | None = None,
    ) -> None:
        self.address = normalise_address(address)
        self.mode = mode
        self._is_classifier = address.rstrip("/").endswith(CLASSIFY_PATH)
        self._concurrency = concurrency
        self._server = ServerAddress(self.address, api_key or find_key(), concurrency, patience or Patience())
        self.model, self._asker = run_to_end(self._prepare(model, task, max_new_tokens))
        self.name = name or self.model

    async def _prepare(self, wanted: str | None, task: Task, max_new_tokens: int) -> tuple[str, Asker]:
        async with self._server.connect() as connection:
            model = await choose_model(connection, wanted)
            asker: Asker
            if self._is_classifier:
                asker = ClassifyAsker(model, task)
            elif self.mode == "score":
                asker = ScoreAsker(model, task)
            else:
                asker = (ConstrainAsker if self.mode == "constrain" else GenerateAsker)(model, task, max_new_tokens)
            await asker.prepare(connection)
        return model, asker

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        Raises:
            EngineError: when the server cannot be reached, or refuses for a reason that meets every review.
            ServerGoneError: when a server of our own has ended.
        """
        return run_to_end(self._ask_all(reviews, on_answer))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Callable[[Review], Awaitable[Prediction]]]:
        """Give a function that asks about one review, for a caller with an event loop of its own.

        It may be awaited many times at once. One that is cancelled breaks its connection off, so that the server gives
        the review up as well. It raises what `predict` raises, and ReviewRefusedError for a review that is too long.
        """
        # A review takes several requests: without a place of its own, its second one would queue behind the first ones
        # of all reviews that came later.
        places = asyncio.Semaphore(self._concurrency)
        async with self._server.connect() as connection:

            async def ask(review: Review) -> Prediction:
                async with places:
                    start = time.monotonic()
                    prediction = await self._asker.ask(connection, review)
                return replace(prediction, latency_s=time.monotonic() - start)

            yield ask

    async def _ask_all(self, reviews: Sequence[Review], on_answer: OnAnswer | None) -> list[Prediction]:
        answers: dict[int, Prediction] = {}
        refusals: list[ReviewRefusedError] = []
        waiting = iter(enumerate(reviews))

        async def work(connection: Connection) -> None:
            for position, review in waiting:
                start = time.monotonic()
                try:
                    prediction = await self._asker.ask(connection, review)
                except ReviewRefusedError as refusal:
                    refusals.append(refusal)
                    prediction = Prediction(None)
                answers[position] = replace(prediction, latency_s=time.monotonic() - start)
                if on_answer is not None:
                    on_answer(position, answers[position])
                progress.advance()

        with show_progress(f"Asking {self.name}", total=len(reviews), unit="reviews") as progress:
            async with self._server.connect() as connection:
                workers = [work(connection) for _ in range(min(self._concurrency, len(reviews)))]
                await gather_or_cancel(workers, connection.watch())
        for refusal in refusals[:SHOWN_REFUSALS]:
            say(f"{self.name} gave no answer: {refusal}")
        if len(refusals) > SHOWN_REFUSALS:
            say(f"{self.name} gave no answer to {len(refusals)} reviews in all; they count as not parsed")
        return [answers[position] for position in range(len(reviews))]


async def choose_model(connection: Connection, wanted: str | None) -> str:
    """Return the name to ask for, having seen that the server is there, lets us in and knows it.

    Raises:
        EngineError: when it is not there, does not let us in, or does not know the model.
    """
    address = connection.address
    response = await connection.get("/models")
    try:
        listed = {str(model["id"]): str(model.get("root")) for model in response.json()["data"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            "The answer is not a list of models",
            where=f"{address}/models",
            expected="the address of an OpenAI-compatible server",
            next_step="check the address; vLLM's is http://HOST:PORT/v1",
        ) from error
    names = list(listed)
    if wanted in names:
        return str(wanted)
    if wanted is None and len(names) == 1:
        return names[0]
    # vLLM says from which folder it serves: whoever names the folder means that model.
    if wanted is not None and Path(wanted).is_dir():
        place = str(Path(wanted).resolve())
        for name, root in listed.items():
            if root in (wanted, place):
                return name
    raise EngineError(
        f"The server does not know the model {wanted!r}" if wanted else "The server has not one model",
        where=address,
        expected=f"one of {', '.join(names)}" if names else "a server with a model",
        next_step="give one of these names as the model",
    )
