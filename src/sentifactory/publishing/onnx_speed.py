"""How large and how fast an exported model is on this machine, measured in a process of its own.

Speed is that of the moment: on a machine that does other work as well, it says little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentifactory.engines.onnx import GRAPH_NAME, WEIGHTS_NAME, OnnxEngine
from sentifactory.engines.vllm_process import list_usable_cores
from sentifactory.evaluation.engine_process import EngineProcess
from sentifactory.evaluation.latency import mark_latencies
from sentifactory.evaluation.provenance import describe_machine
from sentifactory.progress import show_progress
from sentifactory.records import Review
from sentifactory.task import Task

MOST_SINGLE = 100  # reviews that are sent one after the other
MOST_TOGETHER = 200  # reviews that are sent at once
_WARM_UP = 4
# More threads are taken only where they bring more than this: others may need the cores.
_WORTH_A_THREAD = 1.03


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured of an engine with a number of threads.

    Attributes:
        threads: that work on one batch.
        reviews_per_s: of reviews that are given all at once.
        latency_p50_s: of a review that is given alone; half of them take longer.
        latency_p95_s: 5 of 100 take longer.
        latency_p99_s: 1 of 100 takes longer.
        peak_bytes: the most memory that the process has held; None where the system does not tell.
    """

    threads: int
    reviews_per_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    peak_bytes: int | None


def measure_export(folder: Path, task: Task, reviews: Sequence[Review]) -> dict[str, Any]:
    """Return size, speed and the best number of threads of an exported model, for its export.json.

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
    """Return what an exported model does with a number of threads; raises what `measure_export` raises."""
    engine = partial(OnnxEngine, str(folder), task, threads=threads)
    with EngineProcess(engine, "ONNX Runtime") as process:
        process.predict_singly(reviews[:_WARM_UP])
        together = reviews[:MOST_TOGETHER]
        _, together_s = process.predict(together)
        _, alone_s = process.predict_singly(reviews[:MOST_SINGLE])
        marks = mark_latencies(alone_s)
        return Speed(
            threads, len(together) / together_s, marks["p50"], marks["p95"], marks["p99"], process.read_peak_bytes()
        )


def choose_speed(speeds: Sequence[Speed]) -> Speed:
    """Return the fewest threads that no larger number beats by more than a little."""
    best = speeds[0]
    for speed in speeds[1:]:
        if speed.reviews_per_s > best.reviews_per_s * _WORTH_A_THREAD:
            best = speed
    return best
