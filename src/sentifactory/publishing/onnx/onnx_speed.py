"""Measures size, speed and memory of an exported model on this machine, in a separate process.

The figures are meaningful only on an otherwise idle machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentifactory.engines.engine_process import EngineProcess
from sentifactory.engines.local.onnx_engine import GRAPH_NAME, WEIGHTS_NAME, OnnxEngine
from sentifactory.records import Review
from sentifactory.system.hardware import describe_machine, list_usable_cores
from sentifactory.system.progress import show_progress
from sentifactory.task.task import Task

PERCENTILES = (50, 95, 99)
MAX_SINGLE = 100  # reviews sent one after the other
MAX_TOGETHER = 200  # reviews sent at once
_WARM_UP = 4
# More threads are used only for at least this speedup, because other processes may need the cores.
_MIN_SPEEDUP = 1.03


@dataclass(frozen=True, slots=True)
class Speed:
    """The measured speed of an engine with a number of threads.

    Attributes:
        threads: number of threads per batch.
        reviews_per_s: throughput with all reviews sent at once.
        latency_p50_s: median latency of single reviews.
        latency_p95_s: 95th percentile.
        latency_p99_s: 99th percentile.
        peak_bytes: peak memory of the process; None if unknown.
    """

    threads: int
    reviews_per_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    peak_bytes: int | None


def measure_export(folder: Path, task: Task, reviews: Sequence[Review]) -> dict[str, Any]:
    """Return size, speed and best number of threads of an exported model, for its export.json.

    Raises:
        EngineError: when the engine does not start.
    """
    cores = len(list_usable_cores())
    candidates = sorted({1, max(1, cores // 2), cores})
    speeds = []
    with show_progress("Measuring the speed", total=len(candidates), unit="thread settings") as progress:
        for threads in candidates:
            speeds.append(measure_speed(folder, task, threads, reviews))
            progress.advance()
    best = choose_speed(speeds)
    return {
        "size_bytes": sum((folder / name).stat().st_size for name in (GRAPH_NAME, WEIGHTS_NAME)),
        "threads": {
            "cores": cores,
            "best": best.threads,
            "reviews_per_s": {str(speed.threads): round(speed.reviews_per_s, 2) for speed in speeds},
        },
        "speed": asdict(best),
        "machine": describe_machine(),
    }


def measure_speed(folder: Path, task: Task, threads: int, reviews: Sequence[Review]) -> Speed:
    """Return an exported model's speed with a number of threads; raises what `measure_export` raises."""
    engine = partial(OnnxEngine, str(folder), task, threads=threads)
    with EngineProcess(engine, "ONNX Runtime") as process:
        process.predict_singly(reviews[:_WARM_UP])
        together = reviews[:MAX_TOGETHER]
        _, together_s = process.predict(together)
        _, alone_s = process.predict_singly(reviews[:MAX_SINGLE])
        marks = compute_latency_percentiles(alone_s)
        return Speed(
            threads, len(together) / together_s, marks["p50"], marks["p95"], marks["p99"], process.read_peak_bytes()
        )


def choose_speed(speeds: Sequence[Speed]) -> Speed:
    """Return the measurement with the fewest threads that more threads do not clearly improve on."""
    best = speeds[0]
    for speed in speeds[1:]:
        if speed.reviews_per_s > best.reviews_per_s * _MIN_SPEEDUP:
            best = speed
    return best


def compute_latency_percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 95th and 99th percentile of latencies, by name, with linear interpolation.

    Example:
        >>> compute_latency_percentiles([0.1, 0.2, 0.3])["p50"]
        0.2
    """
    import numpy as np

    values = np.percentile(latencies, PERCENTILES)
    return {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, values, strict=True)}
