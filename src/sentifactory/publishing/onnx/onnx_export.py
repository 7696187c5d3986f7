"""Exports an encoder checkpoint to ONNX, and verifies that the export answers the same.

First the float32 graph is compared with the checkpoint, within rounding error; then the int8 graph, within the user's
limits. Both run through their regular engines, from the text on. An export beyond its limits is not written.
Not covered: graphs for GPUs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.corpus.splitting.sampling import take_sample
from sentifactory.engines.local.encoder_engine import EncoderEngine
from sentifactory.engines.local.onnx_engine import (
    BATCH_TOKENS,
    EXPORT_NAME,
    FORMAT_VERSION,
    GRAPH_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    OnnxEngine,
)
from sentifactory.engines.local.text_encoder import TextEncoder, split_by_tokens
from sentifactory.engines.registry import check_model
from sentifactory.errors import ConfigError, DataError
from sentifactory.evaluation.scoring.review_sets import describe_file
from sentifactory.models.classifiers import find_max_length, load_classifier
from sentifactory.models.notices import leads_outside
from sentifactory.models.weights import hash_weights
from sentifactory.publishing.export.parity import (
    FLOAT32_LIMITS,
    INT8_LIMITS,
    Parity,
    ParityLimits,
    check_limits,
    compare_answers,
    refuse_foreign_folder,
)
from sentifactory.publishing.onnx.onnx_graph import OPSET, QUANTISE, Quantise, quantise_graph, write_graph
from sentifactory.publishing.onnx.onnx_speed import measure_export
from sentifactory.records import Prediction, Review
from sentifactory.system.atomic import refuse_overwriting_inputs, replace_directory, write_json
from sentifactory.system.extras import require_packages
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.progress import show_progress
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task
from sentifactory.training.run.run_card import CARD_NAME, read_now, read_versions

_CALIBRATE_EVERY = 5  # for int8, every fifth review is used for calibration instead of comparison


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        checkpoint: folder of an encoder classifier, or its hub id.
        output_dir: folder to write; an earlier export there is replaced.
        val_path: validation reviews for the comparison.
        task: name or YAML file; None: the task that the checkpoint was trained on.
        quantise: `none` (float32), `dynamic` or `static` (int8).
        limits: that the export must keep.
        max_samples: maximum number of validation reviews; None for all.
        opset: ONNX opset version.
        seed: for sampling the reviews.
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
    """Export a checkpoint and return the content of export.json.

    Raises:
        ConfigError: when an option is invalid, a package is missing, or the folder holds something else.
        DataError: when the validation reviews cannot be used.
        EngineError: when the checkpoint cannot be loaded, or the export answers differently.
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
            "The only validation review is needed for calibration, and none is left for the comparison",
            where=options.val_path,
            expected="at least two reviews for int8",
            next_step="provide more reviews, or pass --quantise none",
        )
    with EncoderEngine(options.checkpoint, task, name="the checkpoint", device="cpu") as engine:
        expected = engine.predict(reviews)
    with replace_directory(options.output_dir, partial(refuse_foreign_folder, proof_name=EXPORT_NAME)) as folder:
        facts = write_float32(options, task, folder) | {"task": chosen.to_json()}
        gate = ParityCheck(options, task, reviews, expected)
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
    """Check the options before anything is loaded.

    Raises:
        ConfigError: for the first invalid option.
    """
    if options.quantise not in QUANTISE:
        raise ConfigError(f"--quantise is {options.quantise!r}", expected=", ".join(QUANTISE))
    if options.opset < OPSET:
        raise ConfigError(f"--opset is {options.opset}", expected=f"{OPSET} or higher")
    check_limits(options.limits)
    check_model(options.checkpoint)
    require_packages("onnx", "onnxruntime", "onnxscript")
    refuse_overwriting_inputs(
        [options.output_dir], [options.checkpoint, options.val_path, options.task], "--output_dir"
    )
    refuse_foreign_folder(options.output_dir, EXPORT_NAME)


def write_float32(options: ExportOptions, task: Task, folder: Path) -> dict[str, Any]:
    """Write the float32 graph, the tokenizer and the settings; return the first entries of export.json.

    Raises:
        ConfigError: when the model has no fast tokenizer, or cannot be exported.
        EngineError: when the checkpoint cannot be loaded.
    """
    with show_progress("Writing the ONNX graph"):
        loaded = load_classifier(options.checkpoint, task)
        tokenizer, config = loaded.tokenizer, loaded.model.config
        tokenizer.save_pretrained(folder)
        if not (folder / TOKENIZER_NAME).is_file():
            raise ConfigError("This model has no fast tokenizer", where=options.checkpoint, expected=TOKENIZER_NAME)
        config.save_pretrained(folder)
        write_graph(loaded.model, folder, options.opset)
    write_model_task(task, folder)
    card = Path(options.checkpoint) / CARD_NAME
    if card.is_file() and not leads_outside(card):  # the leak check needs to know the training data
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
    return write_file_hashes(folder, facts)


def quantise_folder(folder: Path, kind: Quantise, calibration: Sequence[Review], facts: dict[str, Any]) -> None:
    """Replace the float32 graph in the folder by an int8 graph."""
    encoder = TextEncoder(folder / TOKENIZER_NAME, facts["text"])
    rows = encoder.encode([review.text for review in calibration])
    batches = [encoder.pad([rows[at] for at in batch]) for batch in split_by_tokens(rows, BATCH_TOKENS)]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        quantise_graph(folder, kind, batches, Path(scratch))
    write_file_hashes(folder, facts)


def write_file_hashes(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write export.json with the current hashes of the files, and return its content."""
    facts["files"] = {name: hash_file(folder / name) for name in (GRAPH_NAME, WEIGHTS_NAME, TOKENIZER_NAME)}
    write_json(folder / EXPORT_NAME, facts)
    return facts


@dataclass(frozen=True, slots=True)
class ParityCheck:
    """Compares an export's answers with its checkpoint's.

    Attributes:
        options: of the export.
        task: of the checkpoint.
        reviews: (n,) validation reviews.
        expected: (n,) the checkpoint's answers.
    """

    options: ExportOptions
    task: Task
    reviews: Sequence[Review]
    expected: Sequence[Prediction]

    def compare(self, folder: Path, what: str, limits: ParityLimits) -> Parity:
        """Return how the export in a folder differs from the checkpoint.

        Raises:
            EngineError: when the difference is beyond the limits.
        """
        with OnnxEngine(str(folder), self.task, name=what) as engine:
            answers = engine.predict(self.reviews)
        parity = compare_answers(self.reviews, self.expected, answers, limits)
        parity.refuse_beyond_limits(
            where=self.options.checkpoint,
            what=what,
            next_step="export with --quantise none, or raise --max_flips and --max_difference"
            if limits is self.options.limits
            else "report the model's architecture, whose export is not supported",
        )
        return parity
