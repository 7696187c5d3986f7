"""A lightweight load generator: closed loop (a number of clients) and open loop (a number of requests per second).

It uses HTTP over plain streams, to leave the CPU to the measured service. In the open loop, requests are sent on
schedule whether or not earlier ones have been answered, as with independent users. Latency is measured from the
scheduled time, so that a service that falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

from sentifactory.publishing.onnx.onnx_speed import compute_latency_percentiles

ANSWER_TIMEOUT_S = 120.0
FAILED = 0  # status of a request without a response


@dataclass(slots=True)
class LoadResult:
    """The results of one load.

    Attributes:
        seconds: time from the first request to the last response.
        samples: status and latency (s) of each request.
    """

    seconds: float
    samples: list[tuple[int, float]] = field(default_factory=list)

    def summarise(self) -> dict[str, Any]:
        """Return throughput, latencies and statuses as JSON values."""
        statuses = Counter(status for status, _ in self.samples)
        right = [latency for status, latency in self.samples if status == 200]
        busy = [latency for status, latency in self.samples if status == 429]
        return {
            "seconds": round(self.seconds, 1),
            "requests": len(self.samples),
            "per_s": round(len(right) / self.seconds, 2),
            "statuses": {str(status): number for status, number in sorted(statuses.items())},
            "latency_ms": summarise_latencies(right),
            "latency_429_ms": summarise_latencies(busy),
        }


def summarise_latencies(latencies_s: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p95 and p99 in milliseconds; None without latencies."""
    if not latencies_s:
        return None
    return {name: round(1000 * mark_s, 1) for name, mark_s in compute_latency_percentiles(latencies_s).items()}


class Connection:
    """A keep-alive connection."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, text: str) -> int:
        """Send a text and return the status; FAILED if there was no response.

        If the service has just closed the idle connection, the request is repeated once over a new one, as other
        clients do.
        """
        body = json.dumps({"text": text}).encode()
        head = (
            f"POST /predict HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._exchange(head.encode() + body)
        except (OSError, EOFError, TimeoutError, ValueError):
            self.close()
            return FAILED

    async def _exchange(self, request: bytes) -> int:
        is_used = self._streams is not None
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        try:
            answer = await reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            if is_used and not getattr(error, "partial", b""):
                return await self._exchange(request)
            raise
        lines = answer.decode("latin-1").lower().split("\r\n")
        lengths = [line.partition(":")[2] for line in lines if line.startswith("content-length:")]
        await reader.readexactly(int("".join(lengths)))
        if "connection: close" in lines:
            self.close()
        return int(lines[0].split()[1])

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def post_once(address: str, text: str) -> int:
    """Send a text over a new connection and return the status; FAILED if there was no response."""
    connection = Connection(address)
    try:
        return await connection.post(text)
    finally:
        connection.close()


async def load_closed(address: str, texts: Sequence[str], n_clients: int, seconds: float) -> LoadResult:
    """Let each client send one text after another, waiting for each response."""
    start = time.monotonic()
    result = LoadResult(seconds)
    supply = cycle(texts)

    async def ask() -> None:
        connection = Connection(address)
        while time.monotonic() - start < seconds:
            sent_at = time.monotonic()
            result.samples.append((await connection.post(next(supply)), time.monotonic() - sent_at))
        connection.close()

    await asyncio.gather(*(ask() for _ in range(n_clients)))
    result.seconds = time.monotonic() - start
    return result


async def load_open(address: str, texts: Sequence[str], per_s: float, seconds: float) -> LoadResult:
    """Send requests at a constant rate, whether or not earlier ones are answered, and wait for all responses."""
    result = LoadResult(seconds)
    idle: list[Connection] = []
    supply = cycle(texts)
    start = time.monotonic()

    async def ask(due_at: float) -> None:
        connection = idle.pop() if idle else Connection(address)
        status = await connection.post(next(supply))
        result.samples.append((status, time.monotonic() - due_at))
        idle.append(connection)

    tasks = set()
    for number in range(max(1, round(per_s * seconds))):
        due_at = start + number / per_s
        if (wait_s := due_at - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        task = asyncio.ensure_future(ask(due_at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    result.seconds = time.monotonic() - start
    for connection in idle:
        connection.close()
    return result
