"""A server as backend: a vLLM process of our own that is restarted, or any server at an address. It batches by itself.

A thread monitors the link to the server and reopens it with growing pauses when it is lost; meanwhile the service
answers 503 at once. A link is lost when the process has ended, when the address refuses connections, or when the
health check has had no answer for `MAX_SILENCE_S`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from sentifactory.engines.openai.connection import RetryPolicy
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.engines.openai.request_errors import ReviewRefusedError
from sentifactory.engines.vllm.start_vllm import VllmOptions, start_vllm
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.serving.backends.backend import NotReadyError
from sentifactory.system.progress import say
from sentifactory.task.task import Task

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 60.0
STABLE_AFTER_S = 120.0  # after a link of this age the pauses start from the first again
WATCH_EVERY_S = 0.5
PROBE_EVERY_S = 5.0
PROBE_TIMEOUT_S = 5.0
MAX_SILENCE_S = 60.0
CLOSE_WAIT_S = 90.0


@dataclass(frozen=True, slots=True)
class Link:
    """A running server.

    Attributes:
        engine: client of its API.
        check_process: raises when its process has ended; does nothing for one at an address.
        close: stops a process of our own.
    """

    engine: OpenAiEngine
    check_process: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None


OpenLink = Callable[[Callable[[], None]], Link]


def link_to_address(address: str, model: str | None, task: Task, concurrency: int, request_s: float) -> OpenLink:
    """Return a function that links to a running server."""

    def open_link(_: Callable[[], None]) -> Link:
        retry_policy = RetryPolicy(retries=0, timeout_s=request_s)
        return Link(
            OpenAiEngine(address, model, task, mode="score", concurrency=concurrency, retry_policy=retry_policy),
        )

    return open_link


def link_to_process(
    model: str, name: str, task: Task, options: VllmOptions, concurrency: int, request_s: float
) -> OpenLink:
    """Return a function that starts a vLLM process and links to it."""

    def open_link(check_wanted: Callable[[], None]) -> Link:
        server = start_vllm(model, name, options, check_wanted)
        try:
            engine = OpenAiEngine(
                server.address,
                name,
                task,
                mode="score",
                api_key=server.key,
                concurrency=concurrency,
                retry_policy=RetryPolicy(retries=2, timeout_s=max(60.0, request_s)),
            )
        except BaseException:
            server.process.close()
            raise
        return Link(engine, server.process.check_alive, server.process.close)

    return open_link


class UpstreamBackend:
    """Predicts with a server, and keeps a link to it.

    Args:
        open_link: opens a link; its argument is a function that raises when the service is closing.
        on_restart: called for each attempt to reopen the link.
        first_pause_s: seconds before the first such attempt; doubled with each.
    """

    def __init__(
        self,
        open_link: OpenLink,
        *,
        on_restart: Callable[[], None] = lambda: None,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._open_link = open_link
        self._on_restart = on_restart
        self._first_pause_s = first_pause_s
        self._stop = threading.Event()
        self._has_failure = threading.Event()  # a request has failed: check the link at once
        self._link: Link | None = open_link(self._check_wanted)
        self._session: tuple[Link, Callable[[Review], Awaitable[Prediction]]] | None = None
        self._stack = AsyncExitStack()
        self._thread = threading.Thread(target=self._maintain_link, name="server monitor", daemon=True)
        self._thread.start()

    def is_ready(self) -> bool:
        """Return whether there is a link."""
        return self._link is not None

    async def open(self) -> None:
        """Do nothing: the constructor opened the link."""

    async def ask(self, review: Review) -> Prediction:
        """Return the prediction for one review.

        Raises:
            NotReadyError: while the server restarts.
            ReviewRefusedError: when this one review gets no answer, such as one that is too long for the model.
            EngineError: when the server fails.
        """
        link = self._link
        if link is None:
            raise NotReadyError("The server of the model is starting")
        if self._session is None or self._session[0] is not link:
            # The client of the previous link stays open until the end: requests on it may not have failed yet.
            self._session = (link, await self._stack.enter_async_context(link.engine.connect()))
        ask = self._session[1]
        try:
            return await ask(review)
        except ReviewRefusedError:
            raise
        except EngineError:
            self._has_failure.set()
            raise

    async def close(self) -> None:
        """Stop the monitor thread, and the server if it is a process of our own."""
        self._stop.set()
        self._has_failure.set()
        await self._stack.aclose()
        await asyncio.to_thread(self._thread.join, CLOSE_WAIT_S)

    def _check_wanted(self) -> None:
        if self._stop.is_set():
            raise EngineError("The service is closing")

    def _maintain_link(self) -> None:
        pause_s = self._first_pause_s
        while True:
            opened_at = time.monotonic()
            if self._link is not None:
                reason = self._wait_for_loss(self._link)
                link, self._link = self._link, None
                if self._stop.is_set():
                    link.close()
                    return
                say(f"The server of the model is lost ({reason}). The service answers 503 until it is back.")
                link.close()
            if time.monotonic() - opened_at > STABLE_AFTER_S:
                pause_s = self._first_pause_s
            if self._stop.wait(pause_s):
                return
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
            self._reopen(pause_s)

    def _reopen(self, pause_s: float) -> None:
        self._on_restart()
        try:
            self._link = self._open_link(self._check_wanted)
        except Exception as error:  # the next attempt may succeed
            if not self._stop.is_set():
                say(f"{error} Next attempt in {pause_s:.0f} s.")
        else:
            say("The server of the model is back.")

    def _wait_for_loss(self, link: Link) -> str:
        """Return the reason when the link is lost, or when the service is closing."""
        healthy_at = checked_at = time.monotonic()
        while not self._stop.is_set():
            has_failure = self._has_failure.wait(WATCH_EVERY_S)
            self._has_failure.clear()
            if self._stop.is_set():
                break
            try:
                link.check_process()
            except EngineError as error:
                return str(error)
            if not has_failure and time.monotonic() - checked_at < PROBE_EVERY_S:
                continue
            health = check_health(link.engine.address)
            checked_at = time.monotonic()
            if health == "refused":
                return "its address refuses connections"
            if health == "healthy":
                healthy_at = checked_at
            elif checked_at - healthy_at > MAX_SILENCE_S:
                return f"its health check has not answered for {checked_at - healthy_at:.0f} s"
            if has_failure:
                self._stop.wait(WATCH_EVERY_S)  # limits the checks while many requests fail
        return "the service is closing"


def check_health(address: str) -> str:
    """Return "healthy", "refused" (no server listens) or "silent" for an OpenAI-compatible server."""
    import httpx

    url = address.removesuffix("/v1") + "/health"
    try:
        with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            status = client.get(url).status_code
    except httpx.ConnectError:
        return "refused"
    except httpx.HTTPError:
        return "silent"
    return "silent" if status >= httpx.codes.INTERNAL_SERVER_ERROR else "healthy"
