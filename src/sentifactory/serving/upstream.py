"""A vLLM behind the service: one of our own, kept alive, or one at an address. It batches by itself.

A thread opens the link, watches it and opens it again with growing pauses when it is gone; meanwhile the service
answers 503 at once. vLLM is taken for gone when its process has ended, when nobody answers at its address, or when its
health has been silent for long although the process lives.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from sentifactory.engines.openai_api import OpenAiEngine
from sentifactory.engines.openai_client import Patience
from sentifactory.engines.openai_errors import ReviewRefusedError
from sentifactory.engines.vllm_process import VllmOptions, start_vllm
from sentifactory.errors import EngineError
from sentifactory.progress import say
from sentifactory.records import Prediction, Review
from sentifactory.serving.backends import NotReadyError
from sentifactory.task import Task

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
SOUND_AFTER_S = 120.0  # a link that held for so long begins with the first pause again
WATCH_EVERY_S = 0.5
PROBE_EVERY_S = 5.0
PROBE_TIMEOUT_S = 5.0
LONGEST_SILENCE_S = 60.0  # without an answer of its health, after which a vLLM is given up
CLOSE_WAIT_S = 90.0


@dataclass(frozen=True, slots=True)
class Link:
    """A vLLM that answers.

    Attributes:
        engine: asks it.
        check_process: raises when its process has ended; does nothing for one at an address.
        close: ends a process of our own.
    """

    engine: OpenAiEngine
    check_process: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None


OpenLink = Callable[[Callable[[], None]], Link]


def link_to_address(address: str, model: str | None, task: Task, concurrency: int, request_s: float) -> OpenLink:
    """Return what links to a server that somebody else runs."""

    def open_link(_: Callable[[], None]) -> Link:
        patience = Patience(retries=0, timeout_s=request_s)
        return Link(
            OpenAiEngine(address, model, task, mode="score", concurrency=concurrency, patience=patience),
        )

    return open_link


def link_to_process(
    model: str, name: str, task: Task, options: VllmOptions, concurrency: int, request_s: float
) -> OpenLink:
    """Return what starts a vLLM of our own and links to it."""

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
                patience=Patience(retries=2, timeout_s=max(60.0, request_s)),
            )
        except BaseException:
            server.process.close()
            raise
        return Link(engine, server.process.check_alive, server.process.close)

    return open_link


class UpstreamBackend:
    """Asks a vLLM, and keeps a link to it.

    Args:
        open_link: makes a link; it is handed a function that raises when the link is not wanted any more.
        on_restart: told of each attempt to open the link again.
        first_pause_s: seconds before the first such attempt; they double with each.
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
        self._doubt = threading.Event()  # a request has failed: look at once
        self._link: Link | None = open_link(self._check_wanted)
        self._session: tuple[Link, Callable[[Review], Awaitable[Prediction]]] | None = None
        self._stack = AsyncExitStack()
        self._thread = threading.Thread(target=self._keep, name="vllm keeper", daemon=True)
        self._thread.start()

    def is_ready(self) -> bool:
        """Return whether there is a link."""
        return self._link is not None

    async def open(self) -> None:
        """Do nothing: the link was opened with the object."""

    async def ask(self, review: Review) -> Prediction:
        """Return the prediction for one review.

        Raises:
            NotReadyError: when vLLM is being started again.
            ReviewRefusedError: when the review is too long for the model.
            EngineError: when vLLM fails.
        """
        link = self._link
        if link is None:
            raise NotReadyError("vLLM is being started")
        if self._session is None or self._session[0] is not link:
            # The client of the link before stays open until the end: requests may still be failing on it.
            self._session = (link, await self._stack.enter_async_context(link.engine.connect()))
        ask = self._session[1]
        try:
            return await ask(review)
        except ReviewRefusedError:
            raise
        except EngineError:
            self._doubt.set()
            raise

    async def close(self) -> None:
        """End the keeper, and vLLM with it if it is ours."""
        self._stop.set()
        self._doubt.set()
        await self._stack.aclose()
        await asyncio.to_thread(self._thread.join, CLOSE_WAIT_S)

    def _check_wanted(self) -> None:
        if self._stop.is_set():
            raise EngineError("The service ends")

    def _keep(self) -> None:
        pause_s = self._first_pause_s
        while True:
            opened_at = time.monotonic()
            if self._link is not None:
                reason = self._watch(self._link)
                link, self._link = self._link, None
                if self._stop.is_set():
                    link.close()
                    return
                say(f"vLLM is gone ({reason}). The service answers 503 until it is back.")
                link.close()
            if time.monotonic() - opened_at > SOUND_AFTER_S:
                pause_s = self._first_pause_s
            if self._stop.wait(pause_s):
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._reopen(pause_s)

    def _reopen(self, pause_s: float) -> None:
        self._on_restart()
        try:
            self._link = self._open_link(self._check_wanted)
        except Exception as error:  # whatever it is, the next attempt may succeed
            if not self._stop.is_set():
                say(f"{error} The next attempt follows in {pause_s:.0f} s.")
        else:
            say("vLLM is back.")

    def _watch(self, link: Link) -> str:
        """Return when the link is gone, with the reason, or when the service ends."""
        heard_at = probed_at = time.monotonic()
        while not self._stop.is_set():
            is_doubted = self._doubt.wait(WATCH_EVERY_S)
            self._doubt.clear()
            if self._stop.is_set():
                break
            try:
                link.check_process()
            except EngineError as error:
                return str(error)
            if not is_doubted and time.monotonic() - probed_at < PROBE_EVERY_S:
                continue
            answer = probe_health(link.engine.address)
            probed_at = time.monotonic()
            if answer == "refused":
                return "nobody answers at its address"
            if answer == "sound":
                heard_at = probed_at
            elif probed_at - heard_at > LONGEST_SILENCE_S:
                return f"its health has not answered for {probed_at - heard_at:.0f} s"
            if is_doubted:
                self._stop.wait(WATCH_EVERY_S)  # no request after another makes us knock without end
        return "the service ends"


def probe_health(address: str) -> str:
    """Return "sound", "refused" (nobody listens) or "silent" for an OpenAI-compatible server."""
    import httpx

    url = address.removesuffix("/v1") + "/health"
    try:
        with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            status = client.get(url).status_code
    except httpx.ConnectError:
        return "refused"
    except httpx.HTTPError:
        return "silent"
    return "silent" if status >= httpx.codes.INTERNAL_SERVER_ERROR else "sound"
