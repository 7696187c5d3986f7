"""Labels with Ray Data: replicas of an engine, on this machine or in a cluster, predict batches in parallel.

A replica is an engine of its own (such as a vLLM process) or a client of one of several vLLM servers. Rows are
streamed in order; when a replica dies, Ray restarts it and repeats the batch; while a server does not answer, its
replica asks the others. Meanwhile the texts are in a folder next to the output, which all machines of a cluster must
be able to read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sentifactory.engines.base import Engine
from sentifactory.engines.registry import is_address
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.serving.backends.model_loading import ModelChoice, open_engine
from sentifactory.serving.labelling.label_file import CHUNK_ROWS, WRITE_EVERY_S, WriteRows
from sentifactory.serving.labelling.row_files import Row, WholeRow
from sentifactory.system.atomic import open_scratch_folder
from sentifactory.system.hardware import has_nvidia_gpu
from sentifactory.system.progress import hide_progress, say
from sentifactory.task.task import Task

# Per call of an engine, and what Ray gives a replica at a time: at the end of a file the others wait for the last one.
BATCH_TEXTS = 128
SHARD_ROWS = 8192
BATCHES_IN_HAND = 2  # of a replica: with more, a slow one would still have work when the others have none
# A server that has failed is asked again after so many seconds; where none has answered for longer, labelling ends.
ASK_AGAIN_S = 30.0
GIVE_UP_S = 300.0
_PAUSE_S = 2.0
# Codes of errors that pass, as opposed to a wrong key, model or address.
_PASSING = ("server-unreachable", "server-answer", "server-loading")

_OWN_ERROR = re.compile(r"^sentifactory\.[\w.]+: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Replicas:
    """The engines that Ray runs.

    Attributes:
        choice: the model and its engine; its vllm_url is that of one replica.
        task: prompt and answer.
        name: of the model.
        number: of replicas.
        urls: addresses of vLLM servers, assigned to the replicas in turn; () for engines in the replicas themselves.
    """

    choice: ModelChoice
    task: Task
    name: str
    number: int
    urls: tuple[str, ...] = ()

    def list_choices(self, replica: int = 0) -> list[ModelChoice]:
        """Return the model with each engine that the replica of a number may ask, its own first."""
        own = replica % len(self.urls) if self.urls else 0
        urls = [*self.urls[own:], *self.urls[:own]]
        return [replace(self.choice, vllm_url=url) for url in urls] or [self.choice]


class ReplicaEngine:
    """What a replica asks: its own engine or server, and the servers of the others while that one fails.

    Args:
        choices: the model with each engine, its own first.
        task: prompt and answer.
        name: of the model.
    """

    def __init__(self, choices: Sequence[ModelChoice], task: Task, name: str) -> None:
        self._choices = choices
        self._task = task
        self._name = name
        self._engines: dict[int, Engine] = {}
        self._failed_at: dict[int, float] = {}

    def predict(self, reviews: Sequence[Review]) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        Raises:
            EngineError: when no engine can be asked: at once for a reason that stays, else after `GIVE_UP_S`.
        """
        began_at = time.monotonic()
        while True:
            for place in self._list_places():
                try:
                    return self._open(place).predict(reviews)
                except EngineError as error:
                    if not is_address(self._choices[place].engine_kind) or error.code not in _PASSING:
                        raise
                    self._failed_at[place] = time.monotonic()
                    self._engines.pop(place, None)
                    failure = error
            if time.monotonic() - began_at > GIVE_UP_S:
                raise failure
            time.sleep(_PAUSE_S)

    def _list_places(self) -> list[int]:
        """Return the engines to try in turn: without those that have just failed, unless all have."""
        now, places = time.monotonic(), range(len(self._choices))
        rested = [one for one in places if now - self._failed_at.get(one, -ASK_AGAIN_S) >= ASK_AGAIN_S]
        return rested or [*places]

    def _open(self, place: int) -> Engine:
        if place not in self._engines:
            self._engines[place] = open_engine(self._choices[place], self._task, self._name).__enter__()
        return self._engines[place]


class _Replica:
    """One replica, in a process of Ray."""

    def __init__(self, replicas: Replicas, counter: Any) -> None:
        import ray

        self._n_labels = len(replicas.task.labels)
        choices = replicas.list_choices(ray.get(counter.next.remote()))
        self._engine = ReplicaEngine(choices, replicas.task, replicas.name)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy

        with hide_progress():
            predictions = self._engine.predict([Review(str(text)) for text in batch["text"]])
        missing = [float("nan")] * self._n_labels
        return {
            "row": batch["row"],
            "label": numpy.array([-1 if each.label is None else each.label for each in predictions]),
            "probabilities": numpy.array([list(each.probabilities or missing) for each in predictions]),
        }


class _Counter:
    """Gives each replica a number."""

    def __init__(self) -> None:
        self._next = 0

    def next(self) -> int:
        self._next += 1
        return self._next - 1


class RayRowPredictor:
    """Predicts rows with Ray Data.

    Args:
        replicas: the engines.
        out: the output; the texts are in a folder next to it meanwhile.
    """

    def __init__(self, replicas: Replicas, out: Path) -> None:
        self._replicas = replicas
        self._out = out.resolve()

    def __call__(self, iter_rows: Callable[[], Iterator[Row]], write: WriteRows) -> None:
        """Predict all rows and write them in order.

        Raises:
            ConfigError: when the texts cannot be written.
            EngineError: when the replicas do not start or fail.
        """
        with open_scratch_folder(self._out) as folder:
            shards = write_shards(iter_rows(), folder)
            with contextlib.redirect_stdout(sys.stderr):  # Ray prints warnings to stdout, which is for the result
                join_answers(iter_rows(), self._ask(shards) if shards else iter(()), write)

    def _ask(self, shards: list[str]) -> Iterator[tuple[int, Prediction]]:
        """Yield the number of each row and its prediction, in order."""
        import ray
        from ray.exceptions import RayError

        check_servers(self._replicas)  # refused here, not by a replica
        is_ours = not ray.is_initialized()
        if is_ours:
            start_ray(self._replicas.number)
        try:
            yield from self._stream(shards)
        except RayError as error:
            raise EngineError(
                f"A replica failed ({_find_cause(error)})", where="ray", next_step="run the same command to resume"
            ) from error
        finally:
            if is_ours:
                ray.shutdown()

    def _stream(self, shards: list[str]) -> Iterator[tuple[int, Prediction]]:
        import ray

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        quiet_ray_data()
        is_client = bool(self._replicas.urls)
        counter = ray.remote(_Counter).options(num_cpus=0).remote()
        texts = ray.data.read_parquet(shards).repartition(target_num_rows_per_block=BATCH_TEXTS)
        answers = texts.map_batches(
            _Replica,
            fn_constructor_args=(self._replicas, counter),
            batch_size=BATCH_TEXTS,
            compute=ray.data.ActorPoolStrategy(
                size=self._replicas.number, max_tasks_in_flight_per_actor=BATCHES_IN_HAND
            ),
            num_cpus=0 if is_client else 1,
            num_gpus=1 if has_nvidia_gpu() and not is_client else 0,
        )
        for batch in answers.iter_batches(batch_size=None, batch_format="numpy"):
            for row, label, values in zip(batch["row"], batch["label"], batch["probabilities"], strict=True):
                probabilities = None if values[0] != values[0] else tuple(map(float, values))  # NaN: there are none
                yield int(row), Prediction(None if label < 0 else int(label), probabilities)


def check_servers(replicas: Replicas) -> None:
    """Try each server, and announce those that cannot be asked now while others can: replicas will try them again.

    Raises:
        ConfigError: when an address is invalid.
        EngineError: when no server can be asked, or one refuses for a reason that stays.
    """
    failures: list[EngineError] = []
    for choice in replicas.list_choices() if replicas.urls else ():
        try:
            open_engine(choice, replicas.task, replicas.name).close()
        except EngineError as error:
            if error.code not in _PASSING:
                raise
            failures.append(error)
    if failures and len(failures) == len(replicas.urls):
        raise failures[0]
    for failure in failures:
        again = f"it is tried again every {ASK_AGAIN_S:.0f} s"
        say(f"WARNING: {failure.where}: {failure.what}; other servers are asked, and {again}")


def start_ray(n_replicas: int) -> None:
    """Start Ray on this machine, or join the cluster that RAY_ADDRESS names.

    Raises:
        EngineError: when that fails.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    # One more than the replicas take: without a CPU for reading nothing would start.
    own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": n_replicas + 1, "include_dashboard": False}
    try:
        ray.init(**quiet, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"Ray does not start ({error})", where="ray", next_step="check RAY_ADDRESS, or choose another --engine"
        ) from error


def quiet_ray_data() -> None:
    """Keep Ray Data's plans and hints out of stderr; warnings and errors stay, and its log file has every line."""
    import ray.data  # noqa: F401 - which adds the handlers

    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(max(handler.level, logging.WARNING))
    # It warns that progress bars are off, as they are meant to be.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def write_shards(rows: Iterator[Row], folder: Path) -> list[str]:
    """Write the texts with their row numbers into Parquet files, and return the files."""
    import pyarrow
    from pyarrow import parquet

    asked = ((number, row.text) for number, row in enumerate(rows) if isinstance(row, WholeRow))
    shards: list[str] = []
    while part := list(islice(asked, SHARD_ROWS)):
        path = folder / f"texts-{len(shards):06d}.parquet"
        numbers, texts = zip(*part, strict=True)
        parquet.write_table(pyarrow.table({"row": numbers, "text": texts}), path)
        shards.append(str(path))
    return shards


def join_answers(rows: Iterator[Row], answers: Iterator[tuple[int, Prediction]], write: WriteRows) -> None:
    """Write rows with their predictions, in order and every second.

    Raises:
        RuntimeError: when an answer is missing or out of order, which would be a defect.
    """
    done: list[Row] = []
    predictions: list[Prediction | None] = []
    written_at = time.monotonic()
    for number, row in enumerate(rows):
        prediction = None
        if isinstance(row, WholeRow):
            answered, prediction = next(answers, (None, None))
            if answered != number:
                raise RuntimeError(f"expected the answer to row {number}, got that to row {answered}")
        done.append(row)
        predictions.append(prediction)
        if len(done) >= CHUNK_ROWS or time.monotonic() - written_at > WRITE_EVERY_S:
            write(done, predictions)
            done, predictions, written_at = [], [], time.monotonic()
    if done:
        write(done, predictions)


def _find_cause(error: BaseException) -> str:
    """Return what a replica's error says: our own error where there is one, as Ray adds hints, else the last line."""
    lines = _OWN_ERROR.findall(str(error)) or [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__
