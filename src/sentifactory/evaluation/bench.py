"""Times the ways of asking a model against each other, in turns, in one run on the same machine.

(a) the usual way: transformers' generate, one review after the other, up to 256 new tokens;
(b) our `generate` on vLLM;  (c) our `score` on vLLM;  (d) our `score` on transformers;
(e) the machine's own limit: the floating-point operations of one forward pass over the tokens that prompts do not
    share, at the rate of a large float32 matrix product measured in between.

vLLM keeps what it has computed: a review that (b) was timed on would be half done for (c). So each is timed on reviews
of its own, of like lengths, and asked about the other's afterwards, untimed, to see how often the labels agree. It
decides nothing. On a machine that is busy with other work the figures say little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.atomic import write_json, write_text
from sentifactory.engines.base import Engine
from sentifactory.records import Prediction, Review
from sentifactory.task import BINARY_SENTIMENT

REFERENCE_NEW_TOKENS = 256
MATRIX_SIZE = 2048
WAYS = {
    "a": "transformers generate, one at a time, 256 new tokens",
    "b": "vLLM generate",
    "c": "vLLM score",
    "d": "transformers score",
    "e": "limit: unshared tokens at the rate of a float32 matrix product",
}


@dataclass(slots=True)
class Timing:
    """What was measured of one way of asking; one entry a round."""

    reviews: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def per_second(self) -> float:
        """Return reviews a second over all rounds."""
        return sum(self.reviews) / sum(self.seconds)


@dataclass(slots=True)
class ModelBench:
    """The measurements of one model.

    Attributes:
        timings: by the letter of the way.
        gflop_per_review: of a forward pass over the unshared tokens; the mean over the reviews of (c).
        gflop_per_s: of the matrix product, one a round.
        labels: what (b) and (c) said to each review.
    """

    timings: dict[str, Timing] = field(default_factory=lambda: {way: Timing() for way in WAYS})
    gflop_per_review: list[float] = field(default_factory=list)
    gflop_per_s: list[float] = field(default_factory=list)
    labels: list[tuple[int | None, int | None]] = field(default_factory=list)

    def agreement(self) -> float:
        """Return the share of reviews to which (b) and (c) give the same label."""
        return sum(free == scored for free, scored in self.labels) / len(self.labels)


def bench_eval(
    base_model: Annotated[str, typer.Option("--base_model", help="Folder of the untuned model.")],
    tuned_model: Annotated[str, typer.Option("--tuned_model", help="Folder of the tuned model.")],
    csv_path: Annotated[str, typer.Option("--csv_path", help="Reviews to ask about.")],
    max_samples: Annotated[int, typer.Option("--max_samples", help="Reviews for all rounds together.")] = 240,
    reference_samples: Annotated[int, typer.Option("--reference_samples", help="Reviews a round for (a).")] = 4,
    rounds: Annotated[int, typer.Option("--rounds", help="Turns in which every way is measured.")] = 3,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Where the figures go.")] = "saves/bench",
) -> None:
    """Time generate and score on vLLM and transformers against one-by-one generation and the machine's limit."""
    from sentifactory.evaluation.provenance import describe_machine, describe_versions
    from sentifactory.evaluation.sampling import read_labelled, take_sample

    everything, _ = read_labelled(csv_path, BINARY_SENTIMENT)
    hands = deal_by_length(take_sample(everything, max_samples, 42), 2 * rounds)
    measured = {
        name: measure_model(name, model, hands, reference_samples)
        for name, model in (("base", base_model), ("tuned", tuned_model))
    }
    table = format_bench(measured)
    folder = Path(output_dir)
    facts = {"machine": describe_machine(), "versions": describe_versions(["vllm"]), "reviews": max_samples}
    write_json(folder / "eval.json", facts | {name: describe_bench(bench) for name, bench in measured.items()})
    write_text(folder / "eval.md", table + "\n")
    typer.echo(table)
    typer.echo(f"Written to {folder}/eval.json and eval.md")


def deal_by_length(reviews: Sequence[Review], n_hands: int) -> list[list[Review]]:
    """Return the reviews in hands of like lengths: dealt out one by one, the shortest first.

    Example:
        >>> [[r.text for r in hand] for hand in deal_by_length([Review("aaa"), Review("b"), Review("cc")], 2)]
        [['b', 'aaa'], ['cc']]
    """
    ordered = sorted(reviews, key=lambda review: len(review.text))
    return [ordered[hand::n_hands] for hand in range(n_hands)]


def measure_model(name: str, model: str, hands: Sequence[Sequence[Review]], n_reference: int) -> ModelBench:
    """Return the measurements of one model; each round takes two hands, one for (b), one for (c) and (d)."""
    from sentifactory.engines.openai_api import OpenAiEngine
    from sentifactory.engines.transformers import TransformersEngine
    from sentifactory.engines.vllm import VllmEngine

    bench = ModelBench()
    task = BINARY_SENTIMENT
    with ExitStack() as stack:
        free = stack.enter_context(VllmEngine(model, task, name=name))
        scoring = OpenAiEngine(free.address, name, task, name=f"{name}, scored", mode="score", api_key="none")
        local = stack.enter_context(TransformersEngine(model, task, name=name, mode="score", batch_size=32))
        usual = stack.enter_context(
            TransformersEngine(model, task, name=name, max_new_tokens=REFERENCE_NEW_TOKENS, batch_size=1)
        )
        engines: dict[str, Engine] = {"a": usual, "b": free, "c": scoring, "d": local}
        for way in "bcd":  # the first words load libraries, and the common prefix
            engines[way].predict([Review("还可以")])
        for place in range(0, len(hands), 2):
            first, second = hands[place], hands[place + 1]
            middle = len(first) // 2
            replies: dict[str, list[Prediction]] = {}
            plan = {"a": first[middle : middle + n_reference], "b": first, "c": second, "d": second}
            for way, reviews in plan.items():
                replies[way] = measure_way(bench.timings[way], engines[way].predict, reviews)
            measure_limit(bench, local, second)
            bench.labels += pair_labels(replies["b"], scoring.predict(first))
            bench.labels += pair_labels(free.predict(second), replies["c"])
    return bench


def pair_labels(free: Sequence[Prediction], scored: Sequence[Prediction]) -> list[tuple[int | None, int | None]]:
    """Return the labels of two ways of asking side by side."""
    return [(one.label, other.label) for one, other in zip(free, scored, strict=True)]


def measure_way(
    timing: Timing, predict: Callable[[Sequence[Review]], list[Prediction]], reviews: Sequence[Review]
) -> list[Prediction]:
    """Ask the reviews and add the time that it took."""
    start = time.perf_counter()
    predictions = predict(reviews)
    timing.seconds.append(time.perf_counter() - start)
    timing.reviews.append(len(reviews))
    return predictions


def measure_limit(bench: ModelBench, local: Any, reviews: Sequence[Review]) -> None:
    """Add the limit: what the forward passes need, at the rate that the machine has just now."""
    flop = local.count_flop(reviews)
    rate = measure_matrix_rate()
    bench.gflop_per_review.append(flop / len(reviews) / 1e9)
    bench.gflop_per_s.append(rate / 1e9)
    bench.timings["e"].seconds.append(flop / rate)
    bench.timings["e"].reviews.append(len(reviews))


def measure_matrix_rate(repeats: int = 5) -> float:
    """Return floating-point operations a second of a large float32 matrix product; the best of a few."""
    import torch

    left, right = torch.randn(2, MATRIX_SIZE, MATRIX_SIZE)
    best_s = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(left, right)
        best_s = min(best_s, time.perf_counter() - start)
    return float(2 * MATRIX_SIZE**3 / best_s)


def describe_bench(bench: ModelBench) -> dict[str, Any]:
    """Return the measurements of one model for the JSON file."""
    return {
        "ways": {
            way: {
                "what": WAYS[way],
                "reviews": timing.reviews,
                "seconds": [round(seconds, 6) for seconds in timing.seconds],
                "reviews_per_s": round(timing.per_second(), 4),
            }
            for way, timing in bench.timings.items()
        },
        "gflop_per_review": round(statistics.mean(bench.gflop_per_review), 2),
        "gflop_per_s": [round(rate, 1) for rate in bench.gflop_per_s],
        "label_agreement_b_c": round(bench.agreement(), 4),
    }


def format_bench(measured: dict[str, ModelBench]) -> str:
    """Return the measurements as a Markdown table."""
    lines = [
        "| model | way | reviews/s | each round | times (a) | share of (e) |",
        "|---|---|---:|---|---:|---:|",
    ]
    for name, bench in measured.items():
        rates = {way: timing.per_second() for way, timing in bench.timings.items()}
        for way, timing in bench.timings.items():
            rounds = zip(timing.reviews, timing.seconds, strict=True)
            each = " ".join(f"{reviews / seconds:.3g}" for reviews, seconds in rounds)
            lines.append(
                f"| {name} | ({way}) {WAYS[way]} | {rates[way]:.3g} | {each} "
                f"| {rates[way] / rates['a']:.1f} | {rates[way] / rates['e']:.0%} |"
            )
    for name, bench in measured.items():
        lines += [
            "",
            f"{name}: {statistics.mean(bench.gflop_per_review):.1f} GFLOP a review, "
            f"{statistics.median(bench.gflop_per_s):.0f} GFLOP/s; (c) is {ratio(bench, 'c', 'b'):.2f} times (b); "
            f"labels of (b) and (c) agree on {bench.agreement():.1%} of {len(bench.labels)} reviews.",
        ]
    return "\n".join(lines)


def ratio(bench: ModelBench, one: str, other: str) -> float:
    """Return how many times as fast one way is as another."""
    return bench.timings[one].per_second() / bench.timings[other].per_second()
