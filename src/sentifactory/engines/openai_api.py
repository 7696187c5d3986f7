"""Asks any OpenAI-compatible address: our own vLLM, somebody else's, LLaMA-Factory's `api`, a hosted service.

Covered: mode `generate` over chat completions, greedy, many requests at once, answers in the order of the reviews.
A request that fails for a passing reason (connection, 429, 5xx, time-out) is sent again with growing pauses. A review
that is too long for the model gets no answer (label None) and is told about; every other refusal ends the run with a
sentence, because it would meet every review alike.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sentifactory.engines.base import MAX_NEW_TOKENS, ClosingEngine, make_prediction
from sentifactory.engines.openai_errors import (
    ReviewRefusedError,
    describe_refusal,
    describe_transport,
    is_passing_status,
    normalise_address,
    read_retry_after,
)
from sentifactory.errors import EngineError
from sentifactory.progress import say, show_progress
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

if TYPE_CHECKING:
    import httpx

KEY_VARIABLES = ("SENTIFACTORY_API_KEY", "OPENAI_API_KEY")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0
SHOWN_REFUSALS = 3

_Result = TypeVar("_Result")


class OpenAiEngine(ClosingEngine):
    """A model behind an OpenAI-compatible address.

    Args:
        address: "http://host:port", with or without "/v1".
        model: name under which the server knows the model; None takes the only one that it lists.
        task: prompt and answer.
        name: what the model is called in progress lines and reports; the model's own name when empty.
        api_key: bearer token; by default SENTIFACTORY_API_KEY or OPENAI_API_KEY.
        max_new_tokens: longest reply, in tokens.
        concurrency: requests under way at the same time.
        retries: how often a request that failed for a passing reason is sent again.
        timeout_s: seconds that one request may take.
        check_server: raises when the server is known to be gone, so that nobody waits for it in vain.
    """

    def __init__(
        self,
        address: str,
        model: str | None,
        task: Task,
        *,
        name: str = "",
        api_key: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        concurrency: int = 32,
        retries: int = 5,
        timeout_s: float = 300.0,
        check_server: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = normalise_address(address)
        self._task = task
        self._key = api_key or next((os.environ[key] for key in KEY_VARIABLES if os.environ.get(key)), None)
        self._max_new_tokens = max_new_tokens
        self._concurrency = concurrency
        self._retries = retries
        self._timeout_s = timeout_s
        self._check_server = check_server
        self.model = run_to_end(self._choose_model(model))
        self.name = name or self.model

    def predict(self, reviews: Sequence[Review]) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        Raises:
            EngineError: when the server cannot be reached, or refuses for a reason that meets every review.
        """
        return run_to_end(self._ask_all(reviews))

    def _open_client(self) -> httpx.AsyncClient:
        import httpx

        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(self._timeout_s, connect=min(10.0, self._timeout_s)),
            limits=httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency),
            # No proxy stands between us and this machine, whatever HTTP_PROXY says.
            trust_env=httpx.URL(self.address).host not in ("127.0.0.1", "localhost", "::1"),
        )

    async def _choose_model(self, wanted: str | None) -> str:
        """Return the name to ask for, having seen that the server is there, lets us in and knows it."""
        async with self._open_client() as client:
            response = await self._send(client, "GET", f"{self.address}/models", None)
        try:
            listed = {str(model["id"]): str(model.get("root")) for model in response.json()["data"]}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(
                "The answer is not a list of models",
                where=f"{self.address}/models",
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
            where=self.address,
            expected=f"one of {', '.join(names)}" if names else "a server with a model",
            next_step="give one of these names as the model",
        )

    async def _ask_all(self, reviews: Sequence[Review]) -> list[Prediction]:
        answers: list[Prediction | None] = [None] * len(reviews)
        refusals: list[ReviewRefusedError] = []
        waiting = iter(enumerate(reviews))

        async def work(client: httpx.AsyncClient) -> None:
            for position, review in waiting:
                start = time.monotonic()
                try:
                    reply = await self._ask(client, review)
                except ReviewRefusedError as refusal:
                    refusals.append(refusal)
                    reply = ""
                answers[position] = make_prediction(self._task, reply, time.monotonic() - start)
                progress.advance()

        with show_progress(f"Asking {self.name}", total=len(reviews), unit="reviews") as progress:
            async with self._open_client() as client:
                await gather_or_cancel([work(client) for _ in range(min(self._concurrency, len(reviews)))])
        for refusal in refusals[:SHOWN_REFUSALS]:
            say(f"{self.name} gave no answer: {refusal}")
        if len(refusals) > SHOWN_REFUSALS:
            say(f"{self.name} gave no answer to {len(refusals)} reviews in all; they count as not parsed")
        return [answer for answer in answers if answer is not None]

    async def _ask(self, client: httpx.AsyncClient, review: Review) -> str:
        body = {
            "model": self.model,
            "messages": self._task.render_messages(review.text),
            "temperature": 0,
            "seed": 0,
            "max_tokens": self._max_new_tokens,
        }
        response = await self._send(client, "POST", f"{self.address}/chat/completions", body, review)
        try:
            return str(response.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise EngineError(
                f"The answer is not a chat completion: {response.text[:200]!r}",
                where=f"{self.address}/chat/completions",
                next_step="check that the address is that of an OpenAI-compatible server",
            ) from error

    async def _send(
        self,
        client: httpx.AsyncClient,
        method: str,
        url: str,
        body: dict[str, Any] | None,
        review: Review | None = None,
    ) -> httpx.Response:
        """Send a request, again after a passing failure, and return its successful response."""
        import httpx

        attempt = 0
        while True:
            self._check_server()
            asked_pause_s: float | None = None
            try:
                response = await client.request(method, url, json=body)
            except httpx.InvalidURL as error:
                raise EngineError(f"This is no address ({error})", where=url) from error
            except httpx.TransportError as error:
                self._check_server()
                failure = describe_transport(error, url, attempt)
            else:
                if response.is_success:
                    return response
                failure = describe_refusal(response, url, review, attempt)
                if not is_passing_status(response.status_code):
                    raise failure
                asked_pause_s = read_retry_after(response)
            # A first contact that is refused is a wrong address or a server that was never started.
            if attempt >= self._retries or (method == "GET" and attempt >= 1):
                raise failure
            pause_s = FIRST_PAUSE_S * 2**attempt if asked_pause_s is None else asked_pause_s
            await asyncio.sleep(min(pause_s, LONGEST_PAUSE_S))
            attempt += 1


async def gather_or_cancel(jobs: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run jobs side by side; the first error cancels the others and is raised as it is, not in a group."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run_to_end(job: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine from ordinary code, also inside a notebook, whose event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(job)
    outcome: list[_Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(asyncio.run(job))
        except BaseException as error:  # handed to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]
