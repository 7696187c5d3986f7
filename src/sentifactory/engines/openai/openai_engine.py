"""The engine for any OpenAI-compatible address: vLLM, llama.cpp, Ollama, LLaMA-Factory's `api`, a hosted service.

Requests are sent concurrently; predictions are in the order of the reviews. Requests that fail for a transient reason
(connection, 429, 5xx, time-out) are retried. A review that is too long for the model, or whose answer cannot be
scored, gets the label None and is reported; any other refusal ends the run, because it would affect every review.
`chat_modes.py` and `score_mode.py` contain the three modes, and `chat_score_mode.py` the mode `score` for servers
without token ids; `classify_mode.py` asks a classifier, for addresses that end in `/classify`. What a server can do is
found by asking it, whatever it is.
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
from sentifactory.engines.openai.chat_modes import ConstrainMode, GenerateMode
from sentifactory.engines.openai.chat_score_mode import ChatScoreMode
from sentifactory.engines.openai.classify_mode import PATH as CLASSIFY_PATH
from sentifactory.engines.openai.classify_mode import ClassifyMode
from sentifactory.engines.openai.connection import (
    Connection,
    RetryPolicy,
    ServerAddress,
    find_key,
    gather_or_cancel,
    run_to_end,
)
from sentifactory.engines.openai.request_errors import ReviewRefusedError, normalise_address
from sentifactory.engines.openai.score_mode import ScoreMode
from sentifactory.engines.openai.token_routes import NoTokensError
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.system.progress import say, show_progress
from sentifactory.task.task import Task

SHOWN_REFUSALS = 3


class AskMode(Protocol):
    """One of the modes `generate`, `constrain`, `score` and `classify`."""

    async def prepare(self, connection: Connection) -> None:
        """Do what is needed once, before the first review."""
        ...

    async def ask(self, connection: Connection, review: Review) -> Prediction:
        """Return the prediction for one review, without its latency."""
        ...


class OpenAiEngine(ClosingEngine):
    """A model behind an OpenAI-compatible address.

    Args:
        address: "http://host:port", with or without "/v1"; "http://host:port/classify" for a classifier.
        model: the server's name for the model; None: the only one that it lists.
        task: prompt and answer.
        name: the model's name in progress lines and reports; by default `model`.
        mode: `generate`, `constrain` or `score`.
        api_key: bearer token; by default SENTIFACTORY_API_KEY or OPENAI_API_KEY.
        max_new_tokens: longest reply, in tokens.
        concurrency: number of concurrent requests.
        retry_policy: how long to wait for the server.

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
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        self.address = normalise_address(address)
        self.mode = mode
        self._is_classifier = address.rstrip("/").endswith(CLASSIFY_PATH)
        self._concurrency = concurrency
        self._max_new_tokens = max_new_tokens
        self._server = ServerAddress(self.address, api_key or find_key(), concurrency, retry_policy or RetryPolicy())
        self.model, self._asker = run_to_end(self._prepare(model, task))
        self.name = name or self.model

    def switch_to(self, task: Task, *, mode: Mode, name: str) -> None:
        """Ask with another task or in another mode; raises what the constructor raises."""
        self.mode, self.name = mode, name
        self.model, self._asker = run_to_end(self._prepare(self.model, task))

    async def _prepare(self, wanted: str | None, task: Task) -> tuple[str, AskMode]:
        async with self._server.connect() as connection:
            model = await choose_model(connection, wanted)
            asker: AskMode
            if self._is_classifier:
                asker = ClassifyMode(model, task)
            elif self.mode == "score":
                asker = ScoreMode(model, task)
            else:
                asker = (ConstrainMode if self.mode == "constrain" else GenerateMode)(
                    model, task, self._max_new_tokens
                )
            try:
                await asker.prepare(connection)
            except NoTokensError:
                asker = ChatScoreMode(model, task, self._max_new_tokens)
                await asker.prepare(connection)
        return model, asker

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        Raises:
            EngineError: when the server cannot be reached, or refuses for a reason that affects every review.
            ServerEndedError: when our own server has ended.
        """
        return run_to_end(self._ask_all(reviews, on_answer))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Callable[[Review], Awaitable[Prediction]]]:
        """Yield a function that predicts one review, for a caller with an event loop of its own.

        It may be awaited concurrently. When a call is cancelled, its connection is closed, so that the server drops
        the review too. It raises what `predict` raises, and ReviewRefusedError for a review without an answer.
        """
        # A review takes several requests. Without the semaphore, its second request would queue behind the first
        # requests of all later reviews.
        slots = asyncio.Semaphore(self._concurrency)
        async with self._server.connect() as connection:

            async def ask(review: Review) -> Prediction:
                async with slots:
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
            say(f"{self.name} gave no answer to {len(refusals)} reviews in total; they count as unparsed")
        return [answers[position] for position in range(len(reviews))]


async def choose_model(connection: Connection, wanted: str | None) -> str:
    """Return the name of the model in requests, after checking that the server accepts us and has the model.

    Raises:
        EngineError: when the server cannot be reached, denies access, or does not have the model.
    """
    address = connection.address
    response = await connection.get("/models")
    try:
        # An Ollama without models sends null.
        listed = {str(model["id"]): str(model.get("root") or "") for model in response.json()["data"] or []}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            "The response is not a list of models",
            where=f"{address}/models",
            expected="the address of an OpenAI-compatible server",
            next_step="check the address; that of vLLM, llama.cpp or Ollama is http://HOST:PORT/v1",
            code="server-address",
        ) from error
    names = list(listed)
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is not None:
        # Ollama completes a name without a tag.
        if known := next((name for name in (wanted, f"{wanted}:latest") if name in listed), None):
            return known
        if Path(wanted).is_dir() and (served := await _find_folder(connection, Path(wanted).resolve(), listed)):
            return served
    next_step = "give one of these names as the model"
    if await connection.is_ollama():
        name = wanted or "NAME"
        next_step += f", or get it by `ollama pull {name}`, or from a GGUF file by `ollama create {name} -f Modelfile`"
    raise EngineError(
        f"The server does not know the model {wanted!r}" if wanted else "The server does not have exactly one model",
        where=address,
        expected=f"one of {', '.join(names)}" if names else "a server with a model",
        next_step=next_step,
        code="server-model",
    )


async def _find_folder(connection: Connection, folder: Path, listed: dict[str, str]) -> str | None:
    """Return the name of the model that a server has from a folder: vLLM lists it, llama.cpp gives the file's path."""
    for name, root in listed.items():
        if root and Path(root).resolve() == folder:
            return name
        # The path that llama.cpp was started with may be relative, to a folder that we do not know; a name alone would
        # fit exports of different models.
        path = Path(str((await connection.get_from_root("/props", {"model": name})).get("model_path", "")))
        end = (path.resolve() if path.is_absolute() else path).parts
        file = folder / path.name
        if len(end) > 1 and file.is_file() and file.resolve().parts[-len(end) :] == end:
            return name
    return None
