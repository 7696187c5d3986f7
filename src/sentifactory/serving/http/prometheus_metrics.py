"""The metrics of a service for Prometheus: requests, latencies, the queue, label shares, unsure answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

SHARE_WINDOW = 1000  # answers over which shares are computed
_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
UNSURE = -1


class Metrics:
    """The metrics of one service, in a registry of its own.

    Args:
        labels: names of the task's labels.
        count_queue: returns how many texts are being answered or waiting.
        is_ready: returns whether the engine can answer.
    """

    def __init__(self, labels: Sequence[str], count_queue: Callable[[], int], is_ready: Callable[[], bool]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        registry = self._registry

        def count(name: str, words: str, *by: str) -> Counter:
            return Counter(f"sentifactory_{name}", words, by, registry=registry)

        def gauge(name: str, words: str, *by: str) -> Gauge:
            return Gauge(f"sentifactory_{name}", words, by, registry=registry)

        self.requests = count("requests_total", "Requests by route and status", "route", "status")
        self.seconds = Histogram(
            "sentifactory_request_seconds",
            "Seconds from a request to its answer",
            ("route",),
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.batches = Histogram(
            "sentifactory_batch_texts",
            "Texts that the engine was given at once",
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self.answers = count("answers_total", "Answered texts by label; unsure ones have none", "label")
        self.problems = count("problems_total", "Texts and requests without a result, by code", "code")
        self.disconnects = count("disconnects_total", "Clients that disconnected before their answer")
        self.wrong_keys = count("wrong_keys_total", "Requests with a wrong key")
        self.ended_connections = count("ended_connections_total", "Connections that the service has ended", "reason")
        self.connections = gauge("connections", "Connections that are open now")
        self.restarts = count("engine_restarts_total", "Attempts to start the engine again")
        self._shares = gauge("label_share", f"Share of each label in the last {SHARE_WINDOW} answers", "label")
        self._unsure = gauge("unsure_share", f"Share of unsure answers in the last {SHARE_WINDOW}")
        gauge("queue_texts", "Texts that are being answered or waiting").set_function(count_queue)
        gauge("ready", "1 while the engine can answer").set_function(lambda: float(is_ready()))
        self._names = list(labels)
        self._last: deque[int] = deque(maxlen=SHARE_WINDOW)

    def count_answer(self, label: int, is_unsure: bool) -> None:
        """Count an answered text."""
        self._last.append(UNSURE if is_unsure else label)
        self.answers.labels("unsure" if is_unsure else self._names[label]).inc()

    def render(self) -> bytes:
        """Return the metrics as text."""
        from prometheus_client import generate_latest

        n_answers = max(1, len(self._last))
        for label, name in enumerate(self._names):
            self._shares.labels(name).set(self._last.count(label) / n_answers)
        self._unsure.set(self._last.count(UNSURE) / n_answers)
        return generate_latest(self._registry)
