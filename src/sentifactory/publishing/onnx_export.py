"""From a checkpoint of an encoder to a folder that ONNX Runtime serves, with the proof that it answers the same.

The float32 graph is compared with the checkpoint first, within the tolerance of roundings; then the one of int8,
within the limits that the user sets. Both are asked through the engines that everybody else uses, from the text on.
What does not pass is not written. Not covered: graphs for a GPU.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.atomic import refuse_endangered, replace_directory, write_json
from sentifactory.corpus.manifest import hash_file
from sentifactory.corpus.sampling import read_labelled, take_sample
from sentifactory.engines.encoder import EncoderEngine
from sentifactory.engines.onnx import (
    BATCH_TOKENS,
    EXPORT_NAME,
    FORMAT_VERSION,
    GRAPH_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    OnnxEngine,
)
from sentifactory.engines.registry import check_model
from sentifactory.engines.text_encoder import TextEncoder, split_by_tokens
from sentifactory.errors import ConfigError, DataError
from sentifactory.evaluation.review_sets import describe_file
from sentifactory.missing_package import require_packages
from sentifactory.model_task import write_model_task
from sentifactory.models.classifier_texts import find_max_length
from sentifactory.models.classifiers import load_classifier
from sentifactory.models.weights import hash_weights
from sentifactory.progress import show_progress
from sentifactory.publishing.export_folder import refuse_foreign_folder
from sentifactory.publishing.onnx_graph import OPSET, QUANTISE, Quantise, quantise_graph, write_graph
from sentifactory.publishing.onnx_speed import measure_export
from sentifactory.publishing.parity import (
    FLOAT32_LIMITS,
    INT8_LIMITS,
    Parity,
    ParityLimits,
    check_limits,
    compare_answers,
)
from sentifactory.records import Prediction, Review
from sentifactory.task import Task
from sentifactory.task_choice import choose_task
from sentifactory.training.run_card import CARD_NAME, read_now, read_versions

_CALIBRATE_EVERY = 5  # for int8 one review in so many is for calibration, and not for comparison


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        checkpoint: folder of an encoder classifier, or its hub id.
        output_dir: folder that is written; an earlier export there is replaced.
        val_path: validation reviews, on which export and checkpoint are compared.
        task: name or YAML file; None: what the checkpoint was taught.
        quantise: `none` (float32), `dynamic` or `static` (int8).
        limits: beyond which the export is refused.
        max_samples: most validation reviews that are asked; None for all of them.
        opset: version of ONNX's operations.
        seed: chooses the sample.
    """

    checkpoint: str
    output_dir: Path
    val_path: str
    task: str | None = None
    quantise: Quantise = "dynamic"
    limits: ParityLimits = INT8_LIMITS
    max_samples: int | None = 500
    opset: int = OPSET
    seed: int = 42


def export_checkpoint(options: ExportOptions) -> dict[str, Any]:
    """Write the folder and return what its export.json says.

    Raises:
        ConfigError: when an option cannot be used, a package is missing, or something else stands in the folder.
        DataError: when the validation reviews cannot be used.
        EngineError: when the checkpoint cannot be loaded, or the export does not answer as it does.
    """
    check_options(options)
    chosen = choose_task(options.task, classifiers=[options.checkpoint], data=[options.val_path]).announce()
    task = chosen.task
    everything, _ = read_labelled(options.val_path, task)
    sample = take_sample(everything, options.max_samples, options.seed)
    calibration = [] if options.quantise == "none" else sample[::_CALIBRATE_EVERY]
    reviews = [review for place, review in enumerate(sample) if not calibration or place % _CALIBRATE_EVERY]
    if not reviews:
        raise DataError(
            "The only validation review is taken for the calibration, and none is left to compare on",
            where=options.val_path,
            expected="two reviews or more for int8",
            next_step="give more of them, or --quantise none",
        )
    with EncoderEngine(options.checkpoint, task, name="the checkpoint", device="cpu") as engine:
        expected = engine.predict(reviews)
    with replace_directory(options.output_dir) as folder:
        facts = write_float32(options, task, folder) | {"task": chosen.to_json()}
        gate = ParityGate(options, task, reviews, expected)
        parity = conversion = gate.compare(folder, "The float32 graph", FLOAT32_LIMITS)
        if options.quantise != "none":
            with show_progress("Quantising to int8"):
                quantise_folder(folder, options.quantise, calibration, facts)
            parity = gate.compare(folder, "The int8 model", options.limits)
        facts |= {
            "parity_float32": conversion.to_dict(),
            "parity": parity.to_dict(),
            "validation": describe_file(options.val_path, everything),
            **measure_export(folder, task, reviews),
        }
        write_json(folder / EXPORT_NAME, facts)
    return facts


def check_options(options: ExportOptions) -> None:
    """Refuse what cannot work, before anything is read or loaded.

    Raises:
        ConfigError: for the first option that cannot be used.
    """
    if options.quantise not in QUANTISE:
        raise ConfigError(f"--quantise is {options.quantise!r}", expected=", ".join(QUANTISE))
    if options.opset < OPSET:
        raise ConfigError(f"--opset is {options.opset}", expected=f"{OPSET} or more: no older form is written")
    check_limits(options.limits)
    check_model(options.checkpoint)
    require_packages("onnx", "onnxruntime", "onnxscript")
    refuse_endangered([options.output_dir], [options.checkpoint, options.val_path, options.task], "--output_dir")
    refuse_foreign_folder(options.output_dir, EXPORT_NAME)


def write_float32(options: ExportOptions, task: Task, folder: Path) -> dict[str, Any]:
    """Write the float32 graph, the tokenizer and what belongs to them; return what export.json begins with.

    Raises:
        ConfigError: when the model has no fast tokenizer, or cannot be written as ONNX.
        EngineError: when the checkpoint cannot be loaded.
    """
    with show_progress("Writing the ONNX graph"):
        loaded = load_classifier(options.checkpoint, task)
        tokenizer, config = loaded.tokenizer, loaded.model.config
        tokenizer.save_pretrained(folder)
        if not (folder / TOKENIZER_NAME).is_file():
            raise ConfigError(
                "The tokenizer of this model has no fast form", where=options.checkpoint, expected=TOKENIZER_NAME
            )
        config.save_pretrained(folder)
        write_graph(loaded.model, folder, options.opset)
    write_model_task(task, folder)
    card = Path(options.checkpoint) / CARD_NAME
    if card.is_file():  # what it was trained on is still asked for, such as by the check for leaks
        shutil.copyfile(card, folder / CARD_NAME)
    facts = {
        "format_version": FORMAT_VERSION,
        "created_at": read_now(),
        "checkpoint": {"model": options.checkpoint, "weights": hash_weights(options.checkpoint)},
        "precision": "float32" if options.quantise == "none" else f"int8, {options.quantise}",
        "opset": options.opset,
        "labels": [str(config.id2label[column]) for column in sorted(config.id2label)],
        "text": {
            "max_length": find_max_length(tokenizer, config),
            "pad_id": tokenizer.pad_token_id or 0,
            "unk_id": tokenizer.unk_token_id,
            "control_ids": sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}),
        },
        "versions": read_versions(),
    }
    return seal_files(folder, facts)


def quantise_folder(folder: Path, kind: Quantise, calibration: Sequence[Review], facts: dict[str, Any]) -> None:
    """Replace the float32 graph in the folder by one of int8."""
    encoder = TextEncoder(folder / TOKENIZER_NAME, facts["text"])
    rows = encoder.encode([review.text for review in calibration])
    batches = [encoder.pad([rows[at] for at in batch]) for batch in split_by_tokens(rows, BATCH_TOKENS)]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        quantise_graph(folder, kind, batches, Path(scratch))
    seal_files(folder, facts)


def seal_files(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write export.json with the hashes that the files have now, and return what it says."""
    facts["files"] = {name: hash_file(folder / name) for name in (GRAPH_NAME, WEIGHTS_NAME, TOKENIZER_NAME)}
    write_json(folder / EXPORT_NAME, facts)
    return facts


@dataclass(frozen=True, slots=True)
class ParityGate:
    """Asks an export what the checkpoint was asked, and stops what does not answer alike.

    Attributes:
        options: of the export.
        task: whose labels are answered.
        reviews: (n,) what is asked.
        expected: (n,) what the checkpoint answered.
    """

    options: ExportOptions
    task: Task
    reviews: Sequence[Review]
    expected: Sequence[Prediction]

    def compare(self, folder: Path, what: str, limits: ParityLimits) -> Parity:
        """Return how the export in a folder compares with the checkpoint.

        Raises:
            EngineError: when it is beyond the limits.
        """
        with OnnxEngine(str(folder), self.task, name=what) as engine:
            answers = engine.predict(self.reviews)
        parity = compare_answers(self.reviews, self.expected, answers, limits)
        parity.refuse_beyond_limits(
            where=self.options.checkpoint,
            what=what,
            next_step="export with --quantise none, or allow more by --max_flips and --max_difference"
            if limits is self.options.limits
            else "report the model's architecture: it cannot be exported as it is",
        )
        return parity
