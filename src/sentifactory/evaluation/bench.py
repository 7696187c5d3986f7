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

import os
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.atomic import write_json, write_text
from sentifactory.engines.base import Engine
from sentifactory.engines.vllm_process import VllmOptions
from sentifactory.errors import ConfigError
from sentifactory.evaluation.bench_figures import ModelBench, Timing, describe_bench, format_bench, pair_labels
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

REFERENCE_NEW_TOKENS = 256
MATRIX_SIZE = 2048


@dataclass(frozen=True, slots=True)
class Asking:
    """How the models are asked.

    Attributes:
        options: how vLLM is started.
        concurrency: requests to it that are under way at the same time.
        batch_size: reviews at the same time in (d).
        n_reference: reviews a round for (a).
    """

    options: VllmOptions
    concurrency: int
    batch_size: int
    n_reference: int


def bench_eval(
    base_model: Annotated[str, typer.Option("--base_model", help="Folder of the untuned model.")],
    tuned_model: Annotated[str, typer.Option("--tuned_model", help="Folder of the tuned model.")],
    csv_path: Annotated[str, typer.Option("--csv_path", help="Reviews to ask about.")],
    max_samples: Annotated[int, typer.Option("--max_samples", help="Reviews for all rounds together.")] = 240,
    reference_samples: Annotated[int, typer.Option("--reference_samples", help="Reviews a round for (a).")] = 4,
    rounds: Annotated[int, typer.Option("--rounds", help="Turns in which every way is measured.")] = 3,
    vllm_dtype: Annotated[
        str, typer.Option("--vllm_dtype", help="Numbers that vLLM computes with, such as bfloat16. [its default]")
    ] = "",
    vllm_arguments: Annotated[
        str, typer.Option("--vllm_arguments", help="More of vLLM's own, such as '--no-enable-prefix-caching'.")
    ] = "",
    concurrency: Annotated[int, typer.Option("--concurrency", help="Requests under way at the same time.")] = 32,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Reviews at the same time in (d).")] = 32,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Where the figures go.")] = "saves/bench",
) -> None:
    """Time generate and score on vLLM and transformers against one-by-one generation and the machine's limit.

    Other settings of vLLM are tried by the options; its threads by VLLM_CPU_OMP_THREADS_BIND. How many labels a
    setting flips is counted against (d).
    """
    from sentifactory.corpus.sampling import read_labelled, take_sample
    from sentifactory.evaluation.provenance import describe_machine, describe_versions
    from sentifactory.task_choice import choose_task

    task = choose_task(models=[base_model, tuned_model], data=[csv_path]).announce().task
    everything, _ = read_labelled(csv_path, task)
    hands = deal_by_length(take_sample(everything, max_samples, 42), 2 * rounds)
    options = VllmOptions(dtype=vllm_dtype or None, extra_arguments=tuple(shlex.split(vllm_arguments)))
    asking = Asking(options, concurrency, batch_size, reference_samples)
    measured = {
        name: measure_model(name, model, task, hands, asking)
        for name, model in (("base", base_model), ("tuned", tuned_model))
    }
    table = format_bench(measured)
    folder = Path(output_dir)
    facts = {"machine": describe_machine(), "versions": describe_versions(["vllm"]), "reviews": max_samples}
    facts |= {"settings": asdict(asking), "vllm_threads": os.environ.get("VLLM_CPU_OMP_THREADS_BIND")}
    write_json(folder / "eval.json", facts | {name: describe_bench(bench) for name, bench in measured.items()})
    write_text(folder / "eval.md", table + "\n")
    typer.echo(table)
    typer.echo(f"Written to {folder}/eval.json and eval.md")


def deal_by_length(reviews: Sequence[Review], n_hands: int) -> list[list[Review]]:
    """Return the reviews in hands of like lengths: dealt out one by one, the shortest first.

    Example:
        >>> [[r.text for r in hand] for hand in deal_by_length([Review("aaa"), Review("b"), Review("cc")], 2)]
        [['b', 'aaa'], ['cc']]

    Raises:
        ConfigError: when there are fewer reviews than hands.
    """
    if len(reviews) < n_hands:
        raise ConfigError(f"There are {len(reviews)} reviews for {n_hands} hands", next_step="lower --rounds")
    ordered = sorted(reviews, key=lambda review: len(review.text))
    return [ordered[hand::n_hands] for hand in range(n_hands)]


def measure_model(name: str, model: str, task: Task, hands: Sequence[Sequence[Review]], asking: Asking) -> ModelBench:
    """Return the measurements of one model; each round takes two hands, one for (b), one for (c) and (d)."""
    from sentifactory.engines.openai_api import OpenAiEngine
    from sentifactory.engines.transformers import TransformersEngine
    from sentifactory.engines.vllm import VllmEngine

    bench = ModelBench()
    with ExitStack() as stack:
        free = stack.enter_context(
            VllmEngine(model, task, name=name, options=asking.options, concurrency=asking.concurrency)
        )
        scoring = OpenAiEngine(
            free.address, name, task, name=f"{name}, scored", mode="score", api_key=free.key,
            concurrency=asking.concurrency,
        )  # fmt: skip
        local = stack.enter_context(
            TransformersEngine(model, task, name=name, mode="score", batch_size=asking.batch_size)
        )
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
            plan = {"a": first[middle : middle + asking.n_reference], "b": first, "c": second, "d": second}
            for way, reviews in plan.items():
                replies[way] = measure_way(bench.timings[way], engines[way].predict, reviews)
            measure_limit(bench, local, second)
            bench.labels += pair_labels(replies["b"], scoring.predict(first))
            bench.labels += pair_labels(free.predict(second), replies["c"])
            bench.local_labels += pair_labels(replies["c"], replies["d"])
    return bench


def measure_way(
    timing: Timing, predict: Callable[[Sequence[Review]], list[Prediction]], reviews: Sequence[Review]
) -> list[Prediction]:
    """Ask the reviews and add the time that it took."""
    start = time.perf_counter()
    predictions = predict(reviews)
    timing.add(len(reviews), time.perf_counter() - start)
    return predictions


def measure_limit(bench: ModelBench, local: Any, reviews: Sequence[Review]) -> None:
    """Add the limit: what the forward passes need, at the rate that the machine has just now."""
    flop = local.count_flop(reviews)
    rate = measure_matrix_rate()
    bench.gflop_per_review.append(flop / len(reviews) / 1e9)
    bench.gflop_per_s.append(rate / 1e9)
    bench.timings["e"].add(len(reviews), flop / rate)


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
