"""Runs the service with uvicorn: it binds, loads the model, then listens, and shuts down gracefully.

On SIGTERM or Ctrl-C it accepts no new connection, answers open requests, stops the engine, and exits with code 0.
A second Ctrl-C exits without waiting.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sentifactory.errors import ConfigError
from sentifactory.serving.http.connections import ConnectionLimiter
from sentifactory.serving.http.http_protocol import limit_connections
from sentifactory.serving.service_settings import KEY_VARIABLE, Access
from sentifactory.system.network_settings import LOOPBACK

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from sentifactory.serving.http.prediction_service import PredictionService

DRAIN_EXTRA_S = 5.0  # beyond the longest request
GC_THRESHOLDS = (2000, 20, 100)
HIGHEST_PORT = 65535
_EXAMPLE = "房间干净，服务也好"


def bind_socket(access: Access) -> socket.socket:
    """Return a socket that is bound to the address but does not listen until the model is loaded.

    Raises:
        ConfigError: when the address cannot be bound.
    """
    with _explain_address(f"{access.host}:{access.port}"):
        if not 0 <= access.port <= HIGHEST_PORT:  # the resolver would take the remainder
            raise OverflowError(f"there is no port {access.port}")
        family, _, _, _, address = socket.getaddrinfo(access.host, access.port, type=socket.SOCK_STREAM)[0]
        # Without the explicit protocol asyncio does not recognise TCP and leaves Nagle's algorithm on: an answer of
        # two segments would wait 40 ms for the client's acknowledgement of the first.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    return bound


@contextlib.contextmanager
def _explain_address(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"This address cannot be used ({getattr(error, 'strerror', None) or error})",
            where=where,
            next_step="choose another --port, or --port 0 for a free one",
            code="address-unusable",
        ) from error


def format_address(host: str, port: int) -> str:
    """Return the URL at which a server that listens on a host is reached from this machine.

    Example:
        >>> format_address("0.0.0.0", 8000), format_address("::1", 8000)
        ('http://127.0.0.1:8000', 'http://[::1]:8000')
    """
    name = host if host not in ("0.0.0.0", "::") else LOOPBACK[0]  # noqa: S104 - compared, not bound
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


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


def build_config(app: FastAPI, service: PredictionService) -> uvicorn.Config:
    """Return uvicorn's configuration for a service.

    Args:
        app: the service as an ASGI application.
        service: its limits and metrics.
    """
    import uvicorn

    metrics = service.metrics
    limiter = ConnectionLimiter(service.limits, lambda reason: metrics.ended_connections.labels(reason).inc())
    metrics.connections.set_function(lambda: limiter.n_open)
    drain_s = round(service.limits.request_s + DRAIN_EXTRA_S)
    return uvicorn.Config(app, timeout_graceful_shutdown=drain_s, **limit_connections(limiter))


def run_server(
    app: FastAPI, service: PredictionService, bound: socket.socket, on_listening: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT, and return when all open requests have been answered.

    Args:
        app: the service as an ASGI application.
        service: its limits and metrics.
        bound: from `bind_socket`.
        on_listening: called when the server accepts requests.

    Raises:
        ConfigError: when another process has listened on the address since it was bound.
    """
    import uvicorn

    class DrainingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                # Under load, full garbage collections would delay all answers by 0.1 s every few seconds:
                # freeze the objects that exist now, and collect the others less often.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLDS)
                on_listening()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own raises the signal again at the end: the process would end by the signal, not with code 0.
            before: dict[int, Any] = {
                number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)
            }
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    config = build_config(app, service)
    # Two sockets can be bound to one address until one of them listens, and uvloop ignores that the other cannot. Not
    # earlier: while the model loads, a refused connection tells proxies and clients to go elsewhere.
    with _explain_address(":".join(map(str, bound.getsockname()[:2]))):
        bound.listen(config.backlog)
    DrainingServer(config).run(sockets=[bound])
