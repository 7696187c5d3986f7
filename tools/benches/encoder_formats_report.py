"""The measurements of `encoder_formats`, as figures and as a table with goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sentifactory.metrics.label_metrics import compute_metrics
from sentifactory.metrics.number_formats import format_points, format_range, read_interval
from sentifactory.metrics.significance import compare_paired
from sentifactory.publishing.onnx.onnx_speed import compute_latency_percentiles
from sentifactory.records import Prediction, Review
from sentifactory.system.formats import DASH, build_table
from sentifactory.task.task import Task
from tools.benches.asking_figures import Timing

STATIC_TOKENS = 128
TORCH_BATCH = 16
FORMATS = {
    "a": f"PyTorch float32, batches of {TORCH_BATCH} padded to {STATIC_TOKENS} tokens",
    "b": f"PyTorch float32, batches of {TORCH_BATCH} of similar length",
    "c": "ONNX float32, batches of similar length",
    "d": "ONNX int8, batches of similar length",
    "e": "PyTorch float32, one review at a time",
    "f": "ONNX int8, one review at a time",
}


_MIB = 2**20
_TUTORIAL, _BEST, _BEST_SINGLE = "a", "d", "f"
_GOAL_SPEED, _GOAL_MEMORY, _GOAL_POINTS, _GOAL_BATCHES = 3.0, 0.5, 0.5, 2.0


def describe_bench(results: Mapping[str, FormatResult], reviews: Sequence[Review], task: Task) -> dict[str, Any]:
    """Return the measurements as plain JSON values.

    Args:
        results: the results of every format.
        reviews: (n,) the reviews of all rounds, in order.
        task: defines the labels.
    """
    truth = [review.label for review in reviews if review.label is not None]
    formats = {name: _describe_format(name, result, truth, task) for name, result in results.items()}
    rights = [
        [answer.label == label for answer, label in zip(results[name].predictions, truth, strict=True)]
        for name in (_TUTORIAL, _BEST)
    ]
    test = compare_paired(*rights)
    return {
        "reviews": len(reviews),
        "ways": formats,
        "int8_against_tutorial": test.to_dict(),
        "goals": list_goals(formats, test.difference),
    }


def _describe_format(name: str, result: FormatResult, truth: Sequence[int], task: Task) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "what": FORMATS[name],
        "reviews": result.timing.reviews,
        "seconds": [round(seconds, 4) for seconds in result.timing.seconds],
        "reviews_per_s": round(result.timing.per_second(), 3),
        "peak_bytes": result.peak_bytes,
    }
    if result.predictions:
        metrics = compute_metrics(truth, [answer.label for answer in result.predictions], task.labels)
        figures["accuracy"] = metrics.accuracy
        figures["accuracy_interval"] = asdict(metrics.accuracy_interval)
    if result.latencies_s:
        figures |= {
            f"latency_{mark}_s": round(s, 5) for mark, s in compute_latency_percentiles(result.latencies_s).items()
        }
    return figures


def list_goals(formats: Mapping[str, Mapping[str, Any]], difference: float) -> list[dict[str, Any]]:
    """Return each goal with the value reached; a goal is not met if the peak memory is unknown.

    Args:
        formats: figures by the letter of the format.
        difference: accuracy of int8 minus that of the tutorials' format.
    """
    rate = {name: figures["reviews_per_s"] for name, figures in formats.items()}
    peaks = formats[_BEST]["peak_bytes"], formats[_TUTORIAL]["peak_bytes"]
    share = peaks[0] / peaks[1] if all(peaks) else None
    speed, batches, lost = rate[_BEST] / rate[_TUTORIAL], rate[_BEST] / rate[_BEST_SINGLE], -100 * difference
    return [
        {"goal": f"(d) at least {_GOAL_SPEED:g} times the reviews/s of (a)", "reached": speed,
         "is_met": speed >= _GOAL_SPEED},
        {"goal": f"(d) at most {_GOAL_MEMORY:g} times the memory of (a)", "reached": share,
         "is_met": share is not None and share <= _GOAL_MEMORY},
        {"goal": f"(d) loses at most {_GOAL_POINTS:g} points of accuracy against (a)", "reached": lost,
         "is_met": lost <= _GOAL_POINTS},
        {"goal": f"(d) at least {_GOAL_BATCHES:g} times the reviews/s of (f)", "reached": batches,
         "is_met": batches >= _GOAL_BATCHES},
    ]  # fmt: skip


def format_bench(figures: Mapping[str, Any]) -> str:
    """Return the measurements as Markdown."""
    base = figures["ways"][_TUTORIAL]["reviews_per_s"]
    rows = [["format", "reviews/s", "each round", "times (a)", "peak memory, MiB", "accuracy", "95% interval",
             "p50 / p95 / p99, ms"]]  # fmt: skip
    for name, one in figures["ways"].items():
        each = " ".join(f"{n / s:.3g}" for n, s in zip(one["reviews"], one["seconds"], strict=True))
        rows.append(
            [
                f"({name}) {one['what']}",
                f"{one['reviews_per_s']:.1f}",
                each,
                f"{one['reviews_per_s'] / base:.2f}",
                f"{one['peak_bytes'] / _MIB:.0f}" if one["peak_bytes"] else DASH,
                f"{one['accuracy']:.2%}" if "accuracy" in one else DASH,
                f"{one['accuracy_interval']['low']:.2%} to {one['accuracy_interval']['high']:.2%}"
                if "accuracy" in one
                else DASH,
                " / ".join(f"{one[f'latency_p{mark}_s'] * 1000:.1f}" for mark in (50, 95, 99))
                if "latency_p50_s" in one
                else DASH,
            ]
        )
    test = figures["int8_against_tutorial"]
    lines = [
        *build_table(rows),
        "",
        f"{figures['reviews']} reviews. Accuracy of (d) against (a): {format_points(test['difference'])} points, "
        f"95% interval {format_range(read_interval(test['interval']), 'to')}.",
        "",
    ]
    for goal in figures["goals"]:
        reached = DASH if goal["reached"] is None else f"{goal['reached']:.2f}"
        lines.append(f"- {goal['goal']}: {reached}, {'met' if goal['is_met'] else 'not met'}")
    return "\n".join(lines)


@dataclass(slots=True)
class FormatResult:
    """The measurements of one format.

    Attributes:
        timing: one entry per round.
        latencies_s: latency of each review, if they are sent one by one.
        peak_bytes: peak memory of its process; None for a format that shares the process of another.
        predictions: the predictions of all reviews, in the order of the rounds.
    """

    timing: Timing = field(default_factory=Timing)
    latencies_s: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    predictions: list[Prediction] = field(default_factory=list)
