"""A load generator of little weight: closed loop (so many clients) and open loop (so many requests a second).

It speaks HTTP over plain streams, so that the machine's cores are left to the service that is measured. In the open
loop requests are sent at their times whether or not earlier ones were answered, as independent users do; latency
counts from the time at which a request was due, so that a service that falls behind cannot hide it.
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

from sentifactory.evaluation.latency import mark_latencies

ANSWER_TIMEOUT_S = 120.0
FAILED = 0  # the status of a request without an answer


@dataclass(slots=True)
class LoadResult:
    """What a load met.

    Attributes:
        seconds: from the first request to the last answer.
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
    """Return p50, p95 and p99 in milliseconds; None where there are none."""
    if not latencies_s:
        return None
    return {name: round(1000 * mark_s, 1) for name, mark_s in mark_latencies(latencies_s).items()}


class Line:
    """One kept-alive connection."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, text: str) -> int:
        """Ask about a text and return the status; FAILED when there was no answer.

        A service may give up an idle connection at the moment at which it is used again: then, as other clients do,
        it is asked once more over a new one.
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
        """Break the connection off."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def post_once(address: str, text: str) -> int:
    """Ask about a text over a connection of its own and return the status; FAILED when there was no answer."""
    line = Line(address)
    try:
        return await line.post(text)
    finally:
        line.close()


async def load_closed(address: str, texts: Sequence[str], n_clients: int, seconds: float) -> LoadResult:
    """Let clients ask one text after another, each waiting for its answer."""
    start = time.monotonic()
    result = LoadResult(seconds)
    supply = cycle(texts)

    async def ask() -> None:
        line = Line(address)
        while time.monotonic() - start < seconds:
            sent_at = time.monotonic()
            result.samples.append((await line.post(next(supply)), time.monotonic() - sent_at))
        line.close()

    await asyncio.gather(*(ask() for _ in range(n_clients)))
    result.seconds = time.monotonic() - start
    return result


async def load_open(address: str, texts: Sequence[str], per_s: float, seconds: float) -> LoadResult:
    """Send requests at a steady pace, whether or not they are answered, and wait for all answers."""
    result = LoadResult(seconds)
    idle: list[Line] = []
    supply = cycle(texts)
    start = time.monotonic()

    async def ask(due_at: float) -> None:
        line = idle.pop() if idle else Line(address)
        status = await line.post(next(supply))
        result.samples.append((status, time.monotonic() - due_at))
        idle.append(line)

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
    for line in idle:
        line.close()
    return result
