"""What the benchmark of an encoder has measured, as figures and as a table with its goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sentifactory.evaluation.latency import mark_latencies
from sentifactory.evaluation.markdown import build_table
from sentifactory.evaluation.metrics import compute_metrics
from sentifactory.evaluation.significance import compare_paired
from sentifactory.evaluation.verdict import format_points, format_range
from sentifactory.evaluation.wording import read_interval
from sentifactory.publishing.bench import WAYS, WayResult
from sentifactory.quantities import DASH
from sentifactory.records import Review
from sentifactory.task import Task

_MIB = 2**20
_TUTORIAL, _BEST, _BEST_SINGLE = "a", "d", "f"
_GOAL_SPEED, _GOAL_MEMORY, _GOAL_POINTS, _GOAL_BATCHES = 3.0, 0.5, 0.5, 2.0


def describe_bench(results: Mapping[str, WayResult], reviews: Sequence[Review], task: Task) -> dict[str, Any]:
    """Return the measurements as plain JSON values.

    Args:
        results: of every way.
        reviews: (n,) those of all rounds, in the order in which they were given.
        task: names the labels.
    """
    truth = [review.label for review in reviews if review.label is not None]
    ways = {way: _describe_way(way, result, truth, task) for way, result in results.items()}
    rights = [
        [answer.label == label for answer, label in zip(results[way].predictions, truth, strict=True)]
        for way in (_TUTORIAL, _BEST)
    ]
    test = compare_paired(*rights)
    return {
        "reviews": len(reviews),
        "ways": ways,
        "int8_against_tutorial": test.to_dict(),
        "goals": list_goals(ways, test.difference),
    }


def _describe_way(way: str, result: WayResult, truth: Sequence[int], task: Task) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "what": WAYS[way],
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
        figures |= {f"latency_{name}_s": round(s, 5) for name, s in mark_latencies(result.latencies_s).items()}
    return figures


def list_goals(ways: Mapping[str, Mapping[str, Any]], difference: float) -> list[dict[str, Any]]:
    """Return each goal with what was reached; a peak of memory that is not known reaches nothing.

    Args:
        ways: figures by the letter of the way.
        difference: accuracy of int8 less that of the tutorials' way.
    """
    rate = {way: figures["reviews_per_s"] for way, figures in ways.items()}
    peaks = ways[_BEST]["peak_bytes"], ways[_TUTORIAL]["peak_bytes"]
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
    rows = [["way", "reviews/s", "each round", "times (a)", "peak memory, MiB", "accuracy", "95% interval",
             "p50 / p95 / p99, ms"]]  # fmt: skip
    for way, one in figures["ways"].items():
        each = " ".join(f"{n / s:.3g}" for n, s in zip(one["reviews"], one["seconds"], strict=True))
        rows.append(
            [
                f"({way}) {one['what']}",
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
