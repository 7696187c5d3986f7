"""Runs the service: binds first, then loads the model, then listens; ends in order when it is told to.

On SIGTERM or Ctrl-C no new connection is taken, what has been taken is answered, the engine is ended, and the process
leaves with exit code 0. A second Ctrl-C ends it without waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sentifactory.errors import ConfigError
from sentifactory.serving.connections import (
    ConnectionGuard,
    choose_backlog,
    choose_most_connections,
    hush_accept_errors,
    raise_descriptor_limit,
)
from sentifactory.serving.http_protocol import build_protocol
from sentifactory.serving.settings import KEY_VARIABLE, LOOPBACK, Access

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from sentifactory.serving.service import PredictionService

DRAIN_EXTRA_S = 5.0  # beyond the longest request
TICKS_A_SECOND = 10  # of uvicorn's own loop
COLLECT_AFTER = (2000, 20, 100)  # objects, collections of the youngest, of the next: when garbage is looked for
HIGHEST_PORT = 65535
_EXAMPLE = "房间干净，服务也好"


def bind_socket(access: Access) -> socket.socket:
    """Return a socket that holds the address; it does not listen yet, so that nobody is let in before the model is.

    Raises:
        ConfigError: when the address cannot be had.
    """
    try:
        if not 0 <= access.port <= HIGHEST_PORT:  # the resolver would take the remainder
            raise OverflowError(f"there is no port {access.port}")
        family, _, _, _, place = socket.getaddrinfo(access.host, access.port, type=socket.SOCK_STREAM)[0]
        # Without the protocol asyncio does not know it for TCP, leaves Nagle's algorithm on, and an answer of two
        # segments waits 40 ms for the client's acknowledgement of the first.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"This address cannot be used ({getattr(error, 'strerror', None) or error})",
            where=f"{access.host}:{access.port}",
            next_step="choose another --port, or --port 0 for a free one",
        ) from error
    return bound


def format_address(host: str, port: int) -> str:
    """Return where what listens on a host is reached from this machine.

    Example:
        >>> format_address("0.0.0.0", 8000), format_address("::1", 8000)
        ('http://127.0.0.1:8000', 'http://[::1]:8000')
    """
    near = host if host not in ("0.0.0.0", "::") else LOOPBACK[0]  # noqa: S104 - compared, not bound
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def describe_calls(access: Access, port: int) -> list[str]:
    """Return a curl line and a Python line that work on this machine."""
    url = f"{format_address(access.host, port)}/predict"
    body = f'{{"text": "{_EXAMPLE}"}}'
    key = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if access.key else ""
    headers = f", headers={{'Authorization': 'Bearer ' + os.environ['{KEY_VARIABLE}']}}" if access.key else ""
    modules = "httpx, os" if access.key else "httpx"
    return [
        f"curl {url} -H 'Content-Type: application/json'{key} -d '{body}'",
        f"python -c \"import {modules}; print(httpx.post('{url}', json={{'text': '{_EXAMPLE}'}}{headers}).text)\"",
    ]


def build_config(app: FastAPI, service: PredictionService) -> tuple[uvicorn.Config, ConnectionGuard]:
    """Return how uvicorn runs a service, and what watches over its connections.

    Args:
        app: the service as an ASGI application.
        service: the same; gives limits and metrics.
    """
    import uvicorn

    limits = service.limits
    n_descriptors = raise_descriptor_limit()
    guard = ConnectionGuard(limits, service.metrics, choose_most_connections(limits.connections, n_descriptors))
    config = uvicorn.Config(
        app,
        http=build_protocol(guard),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=choose_backlog(n_descriptors),
        timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type] # seconds for the event loop, whole or not
        timeout_graceful_shutdown=round(limits.request_s + DRAIN_EXTRA_S),
    )
    return config, guard


def run_server(
    app: FastAPI, service: PredictionService, bound: socket.socket, on_listening: Callable[[], None]
) -> None:
    """Serve until a signal comes, and return when all that was taken has been answered.

    Args:
        app: the service as an ASGI application.
        service: the same; gives limits and metrics.
        bound: from `bind_socket`.
        on_listening: called when requests are taken.
    """
    import uvicorn

    config, guard = build_config(app, service)

    class DrainingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(hush_accept_errors(loop.default_exception_handler))
            await super().startup(sockets)
            if self.started:
                # A full collection holds up all answers for a tenth of a second, every few seconds under load: what is
                # there now stays to the end and need not be looked through, and the rest is seldom worth it.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*COLLECT_AFTER)
                on_listening()

        async def on_tick(self, counter: int) -> bool:
            if counter % TICKS_A_SECOND == 0:
                guard.check_descriptors(bound.fileno())
            return await super().on_tick(counter)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own raises the signal again at the end, which would leave by the signal and not with code 0.
            before: dict[int, Any] = {
                number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)
            }
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    DrainingServer(config).run(sockets=[bound])
