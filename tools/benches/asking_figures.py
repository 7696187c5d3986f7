"""The measurements of `asking`, as figures and as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sentifactory.records import Prediction

METHODS = {
    "a": "transformers generate, one at a time, 256 new tokens",
    "b": "vLLM generate",
    "c": "vLLM score",
    "d": "transformers score",
    "e": "limit: unshared tokens at the rate of a float32 matrix product",
}


@dataclass(slots=True)
class Timing:
    """The measurements of one method; one entry per round."""

    reviews: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, n_reviews: int, seconds: float) -> None:
        """Record a round."""
        self.reviews.append(n_reviews)
        self.seconds.append(seconds)

    def per_second(self) -> float:
        """Return reviews per second over all rounds."""
        return sum(self.reviews) / sum(self.seconds)


@dataclass(slots=True)
class ModelBench:
    """The measurements of one model.

    Attributes:
        timings: by the letter of the method.
        gflop_per_review: of a forward pass over the unshared tokens; one mean over the reviews of (c) per round.
        gflop_per_s: of the matrix product, one per round.
        labels: the labels of (b) and (c) for each review.
        local_labels: the labels of (c) and of (d), which always uses float32, for each review of (c).
    """

    timings: dict[str, Timing] = field(default_factory=lambda: {method: Timing() for method in METHODS})
    gflop_per_review: list[float] = field(default_factory=list)
    gflop_per_s: list[float] = field(default_factory=list)
    labels: list[tuple[int | None, int | None]] = field(default_factory=list)
    local_labels: list[tuple[int | None, int | None]] = field(default_factory=list)


def measure_agreement(labels: Sequence[tuple[int | None, int | None]]) -> float:
    """Return the share of reviews to which two methods give the same label."""
    return sum(one == other for one, other in labels) / len(labels)


def pair_labels(free: Sequence[Prediction], scored: Sequence[Prediction]) -> list[tuple[int | None, int | None]]:
    """Return pairs of the labels of two methods."""
    return [(one.label, other.label) for one, other in zip(free, scored, strict=True)]


def describe_bench(bench: ModelBench) -> dict[str, Any]:
    """Return the measurements of one model for the JSON file."""
    return {
        "ways": {
            method: {
                "what": METHODS[method],
                "reviews": timing.reviews,
                "seconds": [round(seconds, 6) for seconds in timing.seconds],
                "reviews_per_s": round(timing.per_second(), 4),
            }
            for method, timing in bench.timings.items()
        },
        "gflop_per_review": round(statistics.mean(bench.gflop_per_review), 2),
        "gflop_per_s": [round(rate, 1) for rate in bench.gflop_per_s],
        "label_agreement_b_c": round(measure_agreement(bench.labels), 4),
        "label_agreement_c_d": round(measure_agreement(bench.local_labels), 4),
    }


def format_bench(measured: dict[str, ModelBench]) -> str:
    """Return the measurements as a Markdown table."""
    lines = [
        "| model | method | reviews/s | each round | times (a) | share of (e) |",
        "|---|---|---:|---|---:|---:|",
    ]
    for name, bench in measured.items():
        rates = {method: timing.per_second() for method, timing in bench.timings.items()}
        for method, timing in bench.timings.items():
            rounds = zip(timing.reviews, timing.seconds, strict=True)
            each = " ".join(f"{reviews / seconds:.3g}" for reviews, seconds in rounds)
            lines.append(
                f"| {name} | ({method}) {METHODS[method]} | {rates[method]:.3g} | {each} "
                f"| {rates[method] / rates['a']:.1f} | {rates[method] / rates['e']:.0%} |"
            )
    for name, bench in measured.items():
        lines += [
            "",
            f"{name}: {statistics.mean(bench.gflop_per_review):.1f} GFLOP per review, "
            f"{statistics.median(bench.gflop_per_s):.0f} GFLOP/s; (c) is {ratio(bench, 'c', 'b'):.2f} times (b); "
            f"labels of (b) and (c) agree on {measure_agreement(bench.labels):.1%} of {len(bench.labels)} reviews, "
            f"of (c) and (d) on {measure_agreement(bench.local_labels):.1%} of {len(bench.local_labels)}.",
        ]
    return "\n".join(lines)


def ratio(bench: ModelBench, one: str, other: str) -> float:
    """Return how many times as fast one method is as another."""
    return bench.timings[one].per_second() / bench.timings[other].per_second()
