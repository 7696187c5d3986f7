"""A whole service on a port of this machine, in a thread of the test's process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from sentifactory.engines.base import Engine
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.backends.backend import Backend
from sentifactory.serving.backends.batching import BatchingBackend
from sentifactory.serving.http.api import build_app
from sentifactory.serving.http.prediction_service import PredictionService
from sentifactory.serving.http.server import build_config
from sentifactory.serving.service_settings import Access, Limits
from sentifactory.task.task import BINARY_SENTIMENT, Task

KEY = "a-key-of-the-tests"


def build_service(
    engine: Engine, limits: Limits, threshold: float | None = None, task: Task = BINARY_SENTIMENT
) -> PredictionService:
    return serve_engine(engine, AnswerFormatter(task, "scripted", None, threshold), limits)


def serve_engine(engine: Engine, formatter: AnswerFormatter, limits: Limits) -> PredictionService:
    return PredictionService(BatchingBackend(engine, limits.batch_items, limits.batch_wait_s), formatter, limits)


def build_upstream_service(backend: Backend, limits: Limits) -> PredictionService:
    return PredictionService(backend, AnswerFormatter(BINARY_SENTIMENT, "base"), limits)


@contextlib.contextmanager
def serve_live(service: PredictionService, access: Access | None = None) -> Iterator[str]:
    """Serve until the block ends; gives the address."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(build_config(build_app(service, access or Access()), service))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def read_metric(text: str, name: str) -> float:
    """Return the value of one line of /metrics."""
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " "))
