"""Sends requests to an OpenAI-compatible address, and again what failed for a passing reason.

Two kinds of server are met differently. Of a server elsewhere nothing is known but its answers: a request may take
`timeout_s`, and is sent again a few times. A server of our own is watched as a process: while it lives, a slow machine
is given all the time that it needs, and only a server that answers nothing at all for long is given up.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sentifactory.engines.base import ServerGoneError
from sentifactory.engines.openai_errors import (
    describe_refusal,
    describe_transport,
    is_passing_status,
    read_retry_after,
)
from sentifactory.errors import EngineError
from sentifactory.network_settings import is_this_machine, refuse_unusable_proxies
from sentifactory.records import Review

if TYPE_CHECKING:
    import httpx

KEY_VARIABLES = ("SENTIFACTORY_API_KEY", "OPENAI_API_KEY")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0
WATCHED_PAUSE_S = 2.0  # a server of our own minds no knocking
WATCH_EVERY_S = 1.0
CONNECT_TIMEOUT_S = 10.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        retries: how often a request that failed for a passing reason is sent again.
        timeout_s: seconds that one request may take; None: as long as it takes.
        silence_s: for a server whose process is watched: seconds without an answer to any request after which it is
            given up, however often requests fail in between; None for any other server.
        refusal_s: seconds for which a watched server may refuse connections while its process lives; it is ending.
        check_server: raises when the server is known to be gone.
    """

    retries: int = 5
    timeout_s: float | None = 300.0
    silence_s: float | None = None
    refusal_s: float = 120.0
    check_server: Callable[[], None] = lambda: None


class Connection:
    """Requests to one server, from within one event loop.

    Args:
        client: open client.
        address: base of the interface, with "/v1".
        patience: how long the server is waited for.
    """

    def __init__(self, client: httpx.AsyncClient, address: str, patience: Patience) -> None:
        self.address = address
        self._client = client
        self._patience = patience
        self._last_answer = time.monotonic()

    async def get(self, path: str) -> httpx.Response:
        """Return the successful response of a GET: first contact, which is tried twice.

        Raises:
            EngineError: when the server cannot be reached or refuses.
        """
        return await self._send("GET", self.address + path, retries=1)

    async def post(
        self,
        path: str,
        body: dict[str, Any],
        review: Review | None = None,
        *,
        accepts: Callable[[int], bool] = lambda _: False,
    ) -> httpx.Response:
        """Return the response of a POST.

        Args:
            path: endpoint, such as "/chat/completions".
            body: the JSON to send.
            review: what it is about: a review that is too long for the model is refused by itself.
            accepts: tells of an HTTP status beside success whether such a response is returned as well.

        Raises:
            EngineError: when the server cannot be reached or refuses.
            ServerGoneError: when a watched server has ended or answers no more.
        """
        url = self.address + path
        return await self._send("POST", url, body, review, retries=self._patience.retries, accepts=accepts)

    async def post_beside(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Return the response, also one of refusal, of a POST beside "/v1"; raises what `post` raises."""
        import httpx

        url = self.address.removesuffix("/v1") + path
        return await self._send("POST", url, body, retries=self._patience.retries, accepts=httpx.codes.is_client_error)

    async def watch(self) -> None:
        """Never return; raise when a watched server has ended or has been silent for too long.

        Raises:
            ServerGoneError: saying which.
        """
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            self._patience.check_server()
            silence_s = self._patience.silence_s
            if silence_s is not None and self._is_silent_for(silence_s):
                raise ServerGoneError(f"The server has answered nothing for {silence_s:.0f} s", where=self.address)

    def _is_silent_for(self, seconds: float) -> bool:
        return time.monotonic() - self._last_answer > seconds

    async def _send(
        self,
        method: str,
        url: str,
        body: dict[str, Any] | None = None,
        review: Review | None = None,
        *,
        retries: int,
        accepts: Callable[[int], bool] = lambda _: False,
    ) -> httpx.Response:
        """Send a request, again after a passing failure, and return its response."""
        import httpx

        attempt = 0
        while True:
            self._patience.check_server()
            asked_pause_s: float | None = None
            try:
                response = await self._client.request(method, url, json=body)
            except httpx.InvalidURL as error:
                raise EngineError(f"This is no address ({error})", where=url) from error
            except httpx.TransportError as error:
                self._patience.check_server()
                failure = describe_transport(error, url, attempt)
                is_over = attempt >= retries
                if self._patience.silence_s is not None:  # its process lives: `watch` decides, unless it is ending
                    failure = ServerGoneError(failure.what, where=url)
                    is_over = isinstance(error, httpx.ConnectError) and self._is_silent_for(self._patience.refusal_s)
            else:
                self._last_answer = time.monotonic()
                status = response.status_code
                if response.is_success or (accepts(status) and not is_passing_status(status)):
                    return response
                failure = describe_refusal(response, url, review, attempt)
                is_over = attempt >= retries or not is_passing_status(status)
                asked_pause_s = read_retry_after(response)
            if is_over:
                raise failure
            pause_s = FIRST_PAUSE_S * 2 ** min(attempt, 10) if asked_pause_s is None else asked_pause_s
            await asyncio.sleep(min(pause_s, LONGEST_PAUSE_S if self._patience.silence_s is None else WATCHED_PAUSE_S))
            attempt += 1


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server and how it is spoken to.

    Attributes:
        address: base of the interface, with "/v1".
        key: bearer token, or None.
        concurrency: requests under way at the same time.
        patience: how long it is waited for.
    """

    address: str
    key: str | None
    concurrency: int
    patience: Patience

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Give a connection for the length of the block.

        Raises:
            ConfigError: when the server is elsewhere, and the environment names a proxy that cannot be used.
        """
        import httpx

        is_here = is_this_machine(httpx.URL(self.address).host)
        if not is_here:
            refuse_unusable_proxies()
        timeout_s = self.patience.timeout_s
        connect_s = CONNECT_TIMEOUT_S if timeout_s is None else min(CONNECT_TIMEOUT_S, timeout_s)
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=httpx.Timeout(timeout_s, connect=connect_s),
            limits=httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency),
            # No proxy stands between us and this machine, whatever HTTP_PROXY says.
            trust_env=not is_here,
        ) as client:
            yield Connection(client, self.address, self.patience)


def find_key() -> str | None:
    """Return the bearer token that the environment names, or None."""
    return next((os.environ[key] for key in KEY_VARIABLES if os.environ.get(key)), None)


async def gather_or_cancel(jobs: Sequence[Coroutine[Any, Any, None]], watch: Coroutine[Any, Any, None]) -> None:
    """Run jobs side by side beside a watch; the first error ends all and is raised as it is, not in a group."""
    work = [asyncio.ensure_future(job) for job in jobs]
    watcher = asyncio.ensure_future(watch)
    finished = asyncio.gather(*work)
    try:
        both: set[asyncio.Future[Any]] = {finished, watcher}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if watcher.done():
            watcher.result()
        await finished
    finally:
        for task in (*work, watcher):
            task.cancel()
        await asyncio.gather(*work, watcher, finished, return_exceptions=True)


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
