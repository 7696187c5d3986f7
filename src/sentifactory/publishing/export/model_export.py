"""Exports a language model: merges a LoRA adapter into its base model, or converts weights to another dtype.

The new folder is written atomically, and only if the export agrees with the source on validation reviews (`parity`).
It includes the comparison, the run card and the calibration, so that it can be published with the same evidence.

Not covered: ONNX (see `publishing.onnx`, for encoders) and GGUF (see `publishing.gguf`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.corpus.splitting.sampling import take_sample
from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.registry import check_model
from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import CALIBRATION_NAME, read_own_calibration
from sentifactory.models.causal_models import load_network
from sentifactory.models.classifiers import has_declared_head
from sentifactory.models.complete_folder import refuse_unfinished
from sentifactory.models.first_base import find_first_base
from sentifactory.models.notices import copy_notices, leads_outside
from sentifactory.models.weights import ADAPTER_CONFIG, hash_weights, share_weights
from sentifactory.publishing.export.parity import (
    EXPORT_NAME,
    FLOAT32_LIMITS,
    ParityLimits,
    compare_answers,
    refuse_foreign_folder,
)
from sentifactory.records import Prediction, Review
from sentifactory.system.atomic import refuse_overwriting_inputs, replace_directory, write_json
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import hide_transformers_bars, say, show_progress
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import Task
from sentifactory.task.task_choice import ChosenTask, choose_task
from sentifactory.training.run.run_card import CARD_NAME

EXPORT_VERSION = 1
_SHARD_SIZE = "5GB"
# A 16-bit number keeps 8 (bfloat16) or 11 (float16) bits of each weight.
DTYPE_LIMITS = {
    "float32": FLOAT32_LIMITS,
    "float16": ParityLimits(flips=0.01, difference=0.005),
    "bfloat16": ParityLimits(flips=0.02, difference=0.02),
}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        model: folder of a checkpoint or of a LoRA adapter.
        output_dir: folder to write.
        dtype: of the new weights: float32, float16 or bfloat16.
        val_path: labelled validation reviews for the comparison.
        max_samples: maximum number of reviews to compare.
        task: name or YAML file of the task; None: the task that the model was trained on.
        seed: for sampling the reviews.
    """

    model: Path
    output_dir: Path
    dtype: str
    val_path: str
    max_samples: int = 200
    task: str | None = None
    seed: int = 42


def merge_adapter(options: ExportOptions) -> dict[str, Any]:
    """Merge a LoRA adapter into its base model; return the content of the new folder's export file.

    Raises:
        ConfigError: when a folder or option cannot be used.
        EngineError: when the merged model answers differently; nothing is written.
    """
    base = _read_base_name(options.model)
    _check_language_model(base)

    def load() -> Any:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(load_network(base, "float32"), str(options.model))
        return adapted.merge_and_unload(safe_merge=True)

    return _export(options, "merge", base, load)


def change_dtype(options: ExportOptions) -> dict[str, Any]:
    """Convert a model's weights to another dtype; return the content of the new folder's export file.

    Raises:
        ConfigError: when a folder or option cannot be used.
        EngineError: when the converted model answers differently; nothing is written.
    """
    if (options.model / ADAPTER_CONFIG).is_file():
        step = f"merge it first: sentifactory export merge {options.model} ..."
        raise ConfigError("This is a LoRA adapter, not a complete model", where=str(options.model), next_step=step)
    source = str(options.model)
    _check_language_model(source)
    return _export(options, "dtype", source, lambda: load_network(source, "auto"))


def _check_language_model(model: str) -> None:
    """Refuse an incomplete checkpoint, and a classifier, which would be loaded with a random language-model head.

    Raises:
        ConfigError: naming the problem.
    """
    check_model(model)
    if has_declared_head(model, classifier=True):
        raise ConfigError(
            "This is a classifier",
            where=model,
            expected="a language model",
            next_step=f"export it with: sentifactory export onnx {model}",
        )


def _export(options: ExportOptions, kind: str, tokenizer_from: str, load: Callable[[], Any]) -> dict[str, Any]:
    chosen, reviews = _check(options, kind, tokenizer_from)
    task = chosen.task
    before = _ask(str(options.model), task, reviews, "before")
    source_weights = hash_weights(options.model)
    check_folder = partial(refuse_foreign_folder, proof_name=EXPORT_NAME, kind=kind)
    with replace_directory(options.output_dir, check_folder) as place:
        with show_progress(f"Writing {options.dtype} weights"):
            _save(load(), options, tokenizer_from, place)
        parity = compare_answers(
            reviews, before, _ask(str(place), task, reviews, "after"), DTYPE_LIMITS[options.dtype]
        )
        parity.refuse_beyond_limits(str(options.model), f"The model in {options.dtype}", "use a wider --dtype")
        proof = {
            "version": EXPORT_VERSION,
            "kind": kind,
            "dtype": options.dtype,
            "source": str(options.model),
            "source_weights": source_weights,
            "weights": hash_weights(place),
            "task": chosen.to_json(),
            "parity": parity.to_dict() | {"val_path": options.val_path},
        }
        copy_evidence(options.model, place, task, proof)
    say(f"{options.output_dir} is ready")
    return proof


def _ask(folder: str, task: Task, reviews: Sequence[Review], name: str) -> list[Prediction]:
    """Return a model's uncalibrated answers; its memory is freed before the next model is loaded."""
    with TransformersEngine(folder, task, name=name, mode="score") as engine:
        return engine.predict(reviews)


def _check(options: ExportOptions, kind: str, base: str) -> tuple[ChosenTask, list[Review]]:
    """Check the options before a model is loaded; return the task and the reviews for the comparison."""
    if options.dtype not in DTYPE_LIMITS:
        raise ConfigError(f"Unknown dtype {options.dtype!r}", where="--dtype", expected=", ".join(DTYPE_LIMITS))
    refuse_overwriting_inputs(
        [options.output_dir], [options.model, base, options.val_path, options.task], "--output_dir"
    )
    refuse_foreign_folder(options.output_dir, EXPORT_NAME, kind)
    chosen = choose_task(options.task, models=[options.model], data=[options.val_path]).announce()
    everything, _ = read_labelled(options.val_path, chosen.task)
    return chosen, take_sample(everything, options.max_samples, options.seed)


def _save(model: Any, options: ExportOptions, tokenizer_from: str, place: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    with hide_transformers_bars():
        model.to(getattr(torch, options.dtype)).save_pretrained(place, max_shard_size=_SHARD_SIZE)
    share_weights(place)
    has_own = (options.model / "tokenizer_config.json").is_file()
    source = str(options.model) if has_own else tokenizer_from
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(place)


def copy_evidence(source: Path, place: Path, task: Task, proof: dict[str, Any]) -> None:
    """Write what belongs to a model into its new form's folder.

    That is the comparison, the run card, the task, the calibration (for the new weights' hashes), and the files with
    the terms: those of the model and those of the model that it was tuned from.

    Args:
        source: folder of the model.
        place: the new folder, with its weights.
        task: that the model was taught.
        proof: content of the export file, with `source_weights` and `weights`.
    """
    write_json(place / EXPORT_NAME, proof)
    first = Path(find_first_base(str(source))).expanduser()
    copy_notices((folder for folder in (source, first) if folder.is_dir()), place)
    card = source / CARD_NAME
    if card.is_file() and not leads_outside(card):
        shutil.copyfile(card, place / CARD_NAME)
    write_model_task(task, place)
    calibration = read_own_calibration(source, proof["source_weights"])
    if calibration is not None:
        write_json(place / CALIBRATION_NAME, calibration | {"weights": proof["weights"]})


def _read_base_name(folder: Path) -> str:
    """Return the base model that a LoRA adapter names.

    Raises:
        ConfigError: when the folder is not a LoRA adapter, or its training has not finished.
    """
    refuse_unfinished(folder, str(folder))
    content = read_json_object(folder / ADAPTER_CONFIG) or {}
    try:
        kind, base = content["peft_type"], content["base_model_name_or_path"]
    except KeyError as error:
        raise ConfigError(
            "This is not a LoRA adapter", where=str(folder), expected=f"a folder with {ADAPTER_CONFIG}"
        ) from error
    if kind != "LORA" or not base:
        raise ConfigError(
            f"This adapter has the type {kind} and the base model {base!r}",
            where=str(folder),
            expected="a LoRA adapter that names its base model",
        )
    return str(base)
