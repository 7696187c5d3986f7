"""Sends requests to an OpenAI-compatible address, and retries those that failed for a transient reason.

Remote servers and our own are treated differently. All we see of a remote server is its responses: a request may take
`timeout_s` and is retried a few times. Our own server is also monitored as a process: while it runs, requests may take
as long as a slow machine needs, and only a server that answers no request for a long time is given up.
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

from sentifactory.engines.base import ServerEndedError
from sentifactory.engines.openai.request_errors import (
    describe_refusal,
    describe_transport,
    is_transient_status,
    read_retry_after,
)
from sentifactory.errors import EngineError
from sentifactory.records import Review
from sentifactory.system.network_settings import is_loopback_host, refuse_unusable_proxies

if TYPE_CHECKING:
    import httpx

KEY_VARIABLES = ("SENTIFACTORY_API_KEY", "OPENAI_API_KEY")
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0
WATCHED_PAUSE_S = 2.0  # our own server may be asked often
WATCH_EVERY_S = 1.0
CONNECT_TIMEOUT_S = 10.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait for a server.

    Attributes:
        retries: how often a request that failed for a transient reason is retried.
        timeout_s: seconds that one request may take; None: no limit.
        silence_s: for a server whose process is monitored: it is given up after so many seconds without an answer to
            any request, however often requests fail in between; None for any other server.
        refusal_s: seconds for which a monitored server, which is ending, may refuse connections while its process
            still runs.
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
        address: base URL, with "/v1".
        retry_policy: how long to wait for the server.
    """

    def __init__(self, client: httpx.AsyncClient, address: str, retry_policy: RetryPolicy) -> None:
        self.address = address
        self._client = client
        self._retry_policy = retry_policy
        self._last_answer = time.monotonic()

    async def get(self, path: str) -> httpx.Response:
        """Return the successful response of a GET, the first request to a server; it is retried once.

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
            review: the review in the body, so that one that is too long for the model fails alone.
            accepts: whether to return responses with this HTTP status too, besides successful ones.

        Raises:
            EngineError: when the server cannot be reached or refuses.
            ServerEndedError: when a monitored server has ended or stopped answering.
        """
        url = self.address + path
        return await self._send("POST", url, body, review, retries=self._retry_policy.retries, accepts=accepts)

    async def post_to_root(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Return the response (client errors included) of a POST next to "/v1"; raises what `post` raises."""
        import httpx

        url = self.address.removesuffix("/v1") + path
        return await self._send(
            "POST", url, body, retries=self._retry_policy.retries, accepts=httpx.codes.is_client_error
        )

    async def get_from_root(self, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the JSON object of a GET next to "/v1"; {} where the server has none. Raises what `get` raises."""
        import httpx

        url = str(httpx.URL(self.address.removesuffix("/v1") + path, params=query or {}))
        response = await self._send("GET", url, retries=1, accepts=lambda _: True)
        try:
            found = response.json()
        except ValueError:
            return {}
        return found if isinstance(found, dict) and response.is_success else {}

    async def is_ollama(self) -> bool:
        """Return whether the server is Ollama. Raises what `get` raises."""
        return "version" in await self.get_from_root("/api/version")

    async def watch(self) -> None:
        """Never return; raise when a monitored server has ended or has not answered for too long.

        Raises:
            ServerEndedError: saying which.
        """
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            self._retry_policy.check_server()
            silence_s = self._retry_policy.silence_s
            if silence_s is not None and self._is_silent_for(silence_s):
                raise ServerEndedError(f"The server has not answered for {silence_s:.0f} s", where=self.address)

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
        """Send a request, retry it after a transient failure, and return its response."""
        import httpx

        policy = self._retry_policy
        attempt = 0
        while True:
            policy.check_server()
            asked_pause_s: float | None = None
            try:
                response = await self._client.request(method, url, json=body)
            except httpx.InvalidURL as error:
                raise EngineError(
                    f"This is not a valid address ({error})", where=url, code="server-address"
                ) from error
            except httpx.TransportError as error:
                policy.check_server()
                failure = describe_transport(error, url, attempt)
                is_over = attempt >= retries
                if policy.silence_s is not None:  # its process runs: `watch` decides, unless it is ending
                    failure = ServerEndedError(failure.what, where=url)
                    is_over = isinstance(error, httpx.ConnectError) and self._is_silent_for(policy.refusal_s)
            else:
                self._last_answer = time.monotonic()
                status = response.status_code
                if response.is_success or (accepts(status) and not is_transient_status(status)):
                    return response
                failure = describe_refusal(response, url, review, attempt)
                is_over = attempt >= retries or not is_transient_status(status)
                asked_pause_s = read_retry_after(response)
            if is_over:
                raise failure
            pause_s = FIRST_PAUSE_S * 2 ** min(attempt, 10) if asked_pause_s is None else asked_pause_s
            await asyncio.sleep(min(pause_s, LONGEST_PAUSE_S if policy.silence_s is None else WATCHED_PAUSE_S))
            attempt += 1


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server and how requests are sent to it.

    Attributes:
        address: base URL, with "/v1".
        key: bearer token, or None.
        concurrency: number of concurrent requests.
        retry_policy: how long to wait for it.
    """

    address: str
    key: str | None
    concurrency: int
    retry_policy: RetryPolicy

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Open a connection for the duration of the block.

        Raises:
            ConfigError: when the server is remote and the environment names a proxy that cannot be used.
        """
        import httpx

        is_here = is_loopback_host(httpx.URL(self.address).host)
        if not is_here:
            refuse_unusable_proxies()
        timeout_s = self.retry_policy.timeout_s
        connect_s = CONNECT_TIMEOUT_S if timeout_s is None else min(CONNECT_TIMEOUT_S, timeout_s)
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=httpx.Timeout(timeout_s, connect=connect_s),
            limits=httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency),
            # Requests to this machine never go through a proxy, whatever HTTP_PROXY says.
            trust_env=not is_here,
        ) as client:
            yield Connection(client, self.address, self.retry_policy)


def find_key() -> str | None:
    """Return the bearer token that the environment names, or None."""
    return next((os.environ[key] for key in KEY_VARIABLES if os.environ.get(key)), None)


async def gather_or_cancel(jobs: Sequence[Coroutine[Any, Any, None]], watch: Coroutine[Any, Any, None]) -> None:
    """Run jobs concurrently with `watch`; the first error cancels all and is raised itself, not as a group."""
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
    """Run a coroutine from synchronous code, also in a notebook, whose event loop is already running."""
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
