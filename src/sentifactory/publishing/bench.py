"""Times an encoder in PyTorch against its exports, in turns, in one run on the same machine.

Each runs in a process of its own, so that its memory is its own. It decides nothing. On a machine that is busy with
other work the figures say little.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.atomic import write_json, write_text
from sentifactory.engines.base import ClosingEngine, Engine, OnAnswer, classify, tell_answers
from sentifactory.evaluation.bench import Timing, deal_by_length
from sentifactory.evaluation.engine_process import EngineProcess
from sentifactory.records import Prediction, Review
from sentifactory.task import Task
from sentifactory.task_choice import TASK_HELP

STATIC_TOKENS = 128
TORCH_BATCH = 16
WAYS = {
    "a": f"PyTorch float32, batches of {TORCH_BATCH} padded to {STATIC_TOKENS} tokens",
    "b": f"PyTorch float32, batches of {TORCH_BATCH} of like length",
    "c": "ONNX float32, batches of like length",
    "d": "ONNX int8, batches of like length",
    "e": "PyTorch float32, one review at a time",
    "f": "ONNX int8, one review at a time",
}
# These send reviews one by one to the process of another way.
_SINGLE = {"e": "b", "f": "d"}


@dataclass(slots=True)
class WayResult:
    """What was measured of one way.

    Attributes:
        timing: one entry a round.
        latencies_s: of each review, where they are sent one by one.
        peak_bytes: the most memory that its process has held; None for a way that shares one.
        predictions: to all reviews that it was given, in the order of the rounds.
    """

    timing: Timing = field(default_factory=Timing)
    latencies_s: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    predictions: list[Prediction] = field(default_factory=list)


class StaticPaddingEngine(ClosingEngine):
    """A classifier asked as tutorials ask it: in the order of the file, every text padded to the same length."""

    def __init__(self, model_path: str, task: Task) -> None:
        from sentifactory.models.classifier_labels import match_labels
        from sentifactory.models.classifier_texts import find_max_length
        from sentifactory.models.classifiers import load_classifier

        self.name = "static"
        loaded = load_classifier(model_path, task)
        self._tokenizer, self._model = loaded.tokenizer, loaded.model
        self._length = min(STATIC_TOKENS, find_max_length(loaded.tokenizer, loaded.model.config))
        self._columns = match_labels(loaded.model.config.id2label, task, model_path)

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews."""
        import torch

        predictions: list[Prediction] = []
        for start in range(0, len(reviews), TORCH_BATCH):
            texts = [review.text for review in reviews[start : start + TORCH_BATCH]]
            batch = self._tokenizer(
                texts, padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
            )
            with torch.inference_mode():
                logits = self._model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            shares = logits[:, self._columns].softmax(dim=-1).tolist()
            predictions += map(classify, shares)
        return tell_answers(predictions, on_answer)


def open_torch(model_path: str, task: Task, is_static: bool) -> Engine:
    """Return a PyTorch engine that uses all cores that this process may use."""
    import torch

    from sentifactory.engines.encoder import EncoderEngine
    from sentifactory.engines.vllm_process import list_usable_cores

    torch.set_num_threads(len(list_usable_cores()))
    if is_static:
        return StaticPaddingEngine(model_path, task)
    return EncoderEngine(model_path, task, batch_size=TORCH_BATCH, device="cpu")


def bench_encoder(
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="Folder of a trained encoder.")],
    val_path: Annotated[str, typer.Option("--val_path", help="Validation reviews for the exports' parity gate.")],
    csv_path: Annotated[str, typer.Option("--csv_path", help="Test reviews with labels.")],
    max_samples: Annotated[int, typer.Option("--max_samples", min=1, help="Reviews for all rounds together.")] = 900,
    single_samples: Annotated[
        int, typer.Option("--single_samples", min=1, help="Reviews a round that are sent one by one.")
    ] = 60,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns in which every way is measured.")] = 3,
    max_flips: Annotated[float, typer.Option("--max_flips", help="As in sentifactory export onnx.")] = 0.01,
    max_difference: Annotated[float, typer.Option("--max_difference", help="Likewise.")] = 0.02,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where figures and exports go.")] = Path(
        "saves/bench"
    ),
) -> None:
    """Time an encoder in PyTorch, padded to one length and by length, against its ONNX exports, in turns."""
    from sentifactory.corpus.sampling import read_labelled, take_sample
    from sentifactory.evaluation.provenance import describe_machine, describe_versions
    from sentifactory.publishing.bench_report import describe_bench, format_bench
    from sentifactory.publishing.onnx_export import ExportOptions, export_checkpoint
    from sentifactory.publishing.parity import ParityLimits
    from sentifactory.task_choice import choose_task

    asked = choose_task(task, classifiers=[checkpoint], data=[csv_path, val_path]).announce().task
    everything, _ = read_labelled(csv_path, asked)
    hands = deal_by_length(take_sample(everything, max_samples, 42), rounds)
    exports = {"c": output_dir / "encoder_float32", "d": output_dir / "encoder_int8"}
    limits = ParityLimits(max_flips, max_difference)
    export_checkpoint(ExportOptions(checkpoint, exports["c"], val_path, task, "none", limits))
    export_checkpoint(ExportOptions(checkpoint, exports["d"], val_path, task, "dynamic", limits))
    results = measure_ways(checkpoint, exports, asked, hands, single_samples)
    figures = describe_bench(results, [review for hand in hands for review in hand], asked)
    facts = {"machine": describe_machine(), "versions": describe_versions([]), "checkpoint": checkpoint}
    write_json(output_dir / "encoder.json", {**facts, "test": csv_path, **figures})
    table = format_bench(figures)
    write_text(output_dir / "encoder.md", table + "\n")
    typer.echo(table)
    typer.echo(f"Written to {output_dir}/encoder.json and encoder.md")


def measure_ways(
    checkpoint: str, exports: dict[str, Path], task: Task, hands: Sequence[Sequence[Review]], n_single: int
) -> dict[str, WayResult]:
    """Return the measurements of every way; each round is one hand for all of them, and begins with another way.

    Raises:
        EngineError: when an engine does not start, or its process dies.
    """
    from sentifactory.engines.onnx import OnnxEngine

    openers: dict[str, Any] = {
        "a": partial(open_torch, checkpoint, task, is_static=True),
        "b": partial(open_torch, checkpoint, task, is_static=False),
        **{way: partial(OnnxEngine, str(folder), task) for way, folder in exports.items()},
    }
    results = {way: WayResult() for way in WAYS}
    with ExitStack() as stack:
        processes = {way: stack.enter_context(EngineProcess(opener, WAYS[way])) for way, opener in openers.items()}
        for process in processes.values():
            process.predict(hands[0][:TORCH_BATCH])  # the first words load libraries
        for number, hand in enumerate(hands):
            for way in [*list(WAYS)[number % len(WAYS) :], *list(WAYS)[: number % len(WAYS)]]:
                result = results[way]
                if way in _SINGLE:
                    few = hand[:: max(1, len(hand) // n_single)][:n_single]  # of all lengths
                    _, seconds = processes[_SINGLE[way]].predict_singly(few)
                    result.latencies_s += seconds
                    result.timing.add(len(few), sum(seconds))
                    continue
                predictions, total_s = processes[way].predict(hand)
                result.predictions += predictions
                result.timing.add(len(hand), total_s)
        for way, process in processes.items():
            results[way].peak_bytes = process.read_peak_bytes()
    return results
