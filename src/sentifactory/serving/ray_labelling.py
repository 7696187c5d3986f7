"""Labels with Ray Data: replicas of an engine, on this machine or in a cluster, answer batches side by side.

A replica is an engine of its own (a vLLM process, say), or a client of one of several vLLM servers at addresses. Rows
flow through as a stream, in their order; where a replica dies, Ray starts it again and gives it the batch again. The
texts lie in a folder beside the output while it works, which all machines of a cluster must be able to read.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sentifactory.atomic import open_scratch_folder
from sentifactory.engines.base import Engine
from sentifactory.environments import has_nvidia_gpu
from sentifactory.errors import EngineError
from sentifactory.progress import hide_progress
from sentifactory.records import Prediction, Review
from sentifactory.serving.labelling import CHUNK_ROWS, WRITE_EVERY_S, WriteRows
from sentifactory.serving.loading import ModelChoice, open_engine
from sentifactory.serving.row_files import Row, WholeRow
from sentifactory.task import Task

BATCH_TEXTS = 128  # that an engine is given at once
BLOCK_TEXTS = 512  # that a replica takes at a time; a small file shall be shared among replicas as well
SHARD_ROWS = 8192
_COUNTER = "sentifactory_replica_counter"


@dataclass(frozen=True, slots=True)
class Replicas:
    """The engines that Ray runs.

    Attributes:
        choice: the model and what runs it; its vllm_url is that of one replica.
        task: prompt and answer.
        name: what the model is called.
        number: how many there are.
        urls: addresses of vLLM servers, asked in turn by the replicas; () for engines in the replicas themselves.
    """

    choice: ModelChoice
    task: Task
    name: str
    number: int
    urls: tuple[str, ...] = ()

    def pick(self, turn: int) -> ModelChoice:
        """Return what the replica of this number runs."""
        return replace(self.choice, vllm_url=self.urls[turn % len(self.urls)]) if self.urls else self.choice


class _Replica:
    """One replica, in a process of Ray's."""

    def __init__(self, replicas: Replicas, counter: Any) -> None:
        import ray

        self._labels = len(replicas.task.labels)
        choice = replicas.pick(ray.get(counter.next.remote()))
        self._engine: Engine = open_engine(choice, replicas.task, replicas.name).__enter__()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy

        with hide_progress():
            predictions = self._engine.predict([Review(str(text)) for text in batch["text"]])
        nothing = [float("nan")] * self._labels
        return {
            "row": batch["row"],
            "label": numpy.array([-1 if one.label is None else one.label for one in predictions]),
            "probabilities": numpy.array([list(one.probabilities or nothing) for one in predictions]),
        }


class _Counter:
    """Gives each replica a number."""

    def __init__(self) -> None:
        self._next = 0

    def next(self) -> int:
        self._next += 1
        return self._next - 1


class RayAnswerer:
    """Answers rows with Ray Data.

    Args:
        replicas: the engines.
        out: the output; the texts lie in a folder beside it meanwhile.
    """

    def __init__(self, replicas: Replicas, out: Path) -> None:
        self._replicas = replicas
        self._out = out.resolve()

    def __call__(self, iter_rows: Callable[[], Iterator[Row]], write: WriteRows) -> None:
        """Answer all rows and write them in their order.

        Raises:
            ConfigError: when there is no place for the texts.
            EngineError: when the replicas cannot be started or fail.
        """
        with open_scratch_folder(self._out) as folder:
            shards = write_shards(iter_rows(), folder)
            with contextlib.redirect_stdout(sys.stderr):  # where Ray's warnings belong; stdout is for the result
                join_answers(iter_rows(), self._ask(shards) if shards else iter(()), write)

    def _ask(self, shards: list[str]) -> Iterator[tuple[int, Prediction]]:
        """Yield the place of each asked row and its prediction, in order."""
        import ray
        from ray.exceptions import RayError

        is_ours = not ray.is_initialized()
        if is_ours:
            start_ray(self._replicas.number)
        try:
            yield from self._stream(shards)
        except RayError as error:
            raise EngineError(
                f"A replica has failed ({_find_cause(error)})", where="ray", next_step="give the same command to go on"
            ) from error
        finally:
            if is_ours:
                ray.shutdown()

    def _stream(self, shards: list[str]) -> Iterator[tuple[int, Prediction]]:
        import ray

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        is_client = bool(self._replicas.urls)
        counter = ray.remote(_Counter).options(num_cpus=0).remote()
        texts = ray.data.read_parquet(shards).repartition(target_num_rows_per_block=BLOCK_TEXTS)
        answers = texts.map_batches(
            _Replica,
            fn_constructor_args=(self._replicas, counter),
            batch_size=BATCH_TEXTS,
            compute=ray.data.ActorPoolStrategy(size=self._replicas.number),
            num_cpus=0 if is_client else 1,
            num_gpus=1 if has_nvidia_gpu() and not is_client else 0,
        )
        for batch in answers.iter_batches(batch_size=None, batch_format="numpy"):
            for place, label, shares in zip(batch["row"], batch["label"], batch["probabilities"], strict=True):
                known = None if shares[0] != shares[0] else tuple(map(float, shares))  # NaN: there are none
                yield int(place), Prediction(None if label < 0 else int(label), known)


def start_ray(n_replicas: int) -> None:
    """Start Ray on this machine, or join the cluster that RAY_ADDRESS names.

    Raises:
        EngineError: when it cannot be started or joined.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    # One more than the replicas take: reading needs a place as well, or nothing would ever begin.
    own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": n_replicas + 1, "include_dashboard": False}
    try:
        ray.init(**quiet, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"Ray does not start ({error})", where="ray", next_step="check RAY_ADDRESS, or choose another --engine"
        ) from error


def write_shards(rows: Iterator[Row], folder: Path) -> list[str]:
    """Write the texts to ask, each with its place among the rows, and return the files."""
    import pyarrow
    from pyarrow import parquet

    asked = ((place, row.text) for place, row in enumerate(rows) if isinstance(row, WholeRow))
    shards: list[str] = []
    while part := list(islice(asked, SHARD_ROWS)):
        path = folder / f"texts-{len(shards):06d}.parquet"
        places, texts = zip(*part, strict=True)
        parquet.write_table(pyarrow.table({"row": places, "text": texts}), path)
        shards.append(str(path))
    return shards


def join_answers(rows: Iterator[Row], answers: Iterator[tuple[int, Prediction]], write: WriteRows) -> None:
    """Write rows with their predictions, in order and every second.

    Raises:
        RuntimeError: when an answer is missing or stands in another place, which would be a defect.
    """
    done: list[Row] = []
    predictions: list[Prediction | None] = []
    written_at = time.monotonic()
    for place, row in enumerate(rows):
        prediction = None
        if isinstance(row, WholeRow):
            at, prediction = next(answers, (None, None))
            if at != place:
                raise RuntimeError(f"the answer to row {place} is missing: that to row {at} came")
        done.append(row)
        predictions.append(prediction)
        if len(done) >= CHUNK_ROWS or time.monotonic() - written_at > WRITE_EVERY_S:
            write(done, predictions)
            done, predictions, written_at = [], [], time.monotonic()
    if done:
        write(done, predictions)


def _find_cause(error: BaseException) -> str:
    """Return the last line of what a replica raised."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__
