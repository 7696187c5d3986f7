"""Other forms of a language model: a LoRA adapter merged into its base, weights of another dtype.

The new folder appears whole or not at all, and only when it says the same as the old one on validation reviews
(`parity`). It carries the proof, the run card and the calibration, so that it is published with the same evidence.

Not covered: ONNX (encoders have an export of their own), and GGUF. The registry has one package that converts, a
reprint of llama.cpp's script by a third party under that project's name; it was not fit to be relied on, and nothing
here could run its output to hold it against the original. llama.cpp's own `convert_hf_to_gguf.py` takes the folders
made here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.atomic import refuse_endangered, replace_directory, write_json
from sentifactory.corpus.sampling import read_labelled, take_sample
from sentifactory.engines.adapters import ADAPTER_CONFIG, load_network
from sentifactory.engines.calibration import CALIBRATION_NAME
from sentifactory.engines.registry import check_model
from sentifactory.engines.transformers import TransformersEngine
from sentifactory.errors import ConfigError
from sentifactory.model_task import write_model_task
from sentifactory.models.transformers_bars import hide_transformers_bars
from sentifactory.models.weights import hash_weights
from sentifactory.progress import say, show_progress
from sentifactory.publishing.evidence import EXPORT_NAME, read_own_calibration
from sentifactory.publishing.export_folder import refuse_foreign_folder
from sentifactory.publishing.parity import FLOAT32_LIMITS, ParityLimits, compare_answers
from sentifactory.records import Prediction, Review
from sentifactory.task import Task
from sentifactory.task_choice import ChosenTask, choose_task
from sentifactory.training.run_card import CARD_NAME

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
    """The options of an export, as the commands take them.

    Attributes:
        model: folder of a checkpoint, or of a LoRA adapter.
        output_dir: the new folder.
        dtype: of the new weights: float32, float16 or bfloat16.
        val_path: labelled validation reviews for the gate.
        max_samples: most reviews to ask.
        task: name or YAML file of what the model is asked; None: what it was taught.
        seed: chooses the reviews.
    """

    model: Path
    output_dir: Path
    dtype: str
    val_path: str
    max_samples: int = 200
    task: str | None = None
    seed: int = 42


def merge_adapter(options: ExportOptions) -> dict[str, Any]:
    """Merge a LoRA adapter into its base model; return what the new folder's proof says.

    Raises:
        ConfigError: when a folder or option cannot be used.
        EngineError: when the merged model does not say the same; nothing is written then.
    """
    base = _read_base_name(options.model)
    check_model(base)

    def load() -> Any:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(load_network(base, "float32"), str(options.model))
        return adapted.merge_and_unload(safe_merge=True)

    return _export(options, "merge", base, load)


def change_dtype(options: ExportOptions) -> dict[str, Any]:
    """Write a model with weights of another dtype; return what the new folder's proof says.

    Raises:
        ConfigError: when a folder or option cannot be used.
        EngineError: when it does not say the same in that dtype; nothing is written then.
    """
    if (options.model / ADAPTER_CONFIG).is_file():
        step = f"merge it first: sentifactory export merge {options.model} ..."
        raise ConfigError("This is a LoRA adapter, not a whole model", where=str(options.model), next_step=step)
    check_model(str(options.model))
    source = str(options.model)
    return _export(options, "dtype", source, lambda: load_network(source, "auto"))


def _export(options: ExportOptions, kind: str, tokenizer_from: str, load: Callable[[], Any]) -> dict[str, Any]:
    chosen, reviews = _check(options, tokenizer_from)
    task = chosen.task
    before = _ask(str(options.model), task, reviews, "before")
    source_weights = hash_weights(options.model)
    with replace_directory(options.output_dir) as place:
        with show_progress(f"Writing {options.dtype} weights"):
            _save(load(), options, tokenizer_from, place)
        parity = compare_answers(
            reviews, before, _ask(str(place), task, reviews, "after"), DTYPE_LIMITS[options.dtype]
        )
        parity.refuse_beyond_limits(str(options.model), f"The model in {options.dtype}", "take a wider --dtype")
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
        _carry_evidence(options.model, place, task, proof)
    say(f"{options.output_dir} is ready")
    return proof


def _ask(folder: str, task: Task, reviews: Sequence[Review], name: str) -> list[Prediction]:
    """Return a model's answers as they are, uncalibrated; its memory is free before the next one is loaded."""
    with TransformersEngine(folder, task, name=name, mode="score") as engine:
        return engine.predict(reviews)


def _check(options: ExportOptions, base: str) -> tuple[ChosenTask, list[Review]]:
    """Refuse what cannot work before a model is loaded; return the task and the reviews of the gate."""
    if options.dtype not in DTYPE_LIMITS:
        raise ConfigError(f"There is no dtype {options.dtype!r} here", expected=", ".join(DTYPE_LIMITS))
    refuse_endangered([options.output_dir], [options.model, base, options.val_path, options.task], "--output_dir")
    refuse_foreign_folder(options.output_dir, EXPORT_NAME)
    chosen = choose_task(options.task, models=[options.model], data=[options.val_path]).announce()
    everything, _ = read_labelled(options.val_path, chosen.task)
    return chosen, take_sample(everything, options.max_samples, options.seed)


def _save(model: Any, options: ExportOptions, tokenizer_from: str, place: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    with hide_transformers_bars():
        model.to(getattr(torch, options.dtype)).save_pretrained(place, max_shard_size=_SHARD_SIZE)
    has_own = (options.model / "tokenizer_config.json").is_file()
    source = str(options.model) if has_own else tokenizer_from
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(place)


def _carry_evidence(source: Path, place: Path, task: Task, proof: dict[str, Any]) -> None:
    """Put run card, task, proof and, bound to the new weights, the calibration into the new folder."""
    write_json(place / EXPORT_NAME, proof)
    if (source / CARD_NAME).is_file():
        shutil.copyfile(source / CARD_NAME, place / CARD_NAME)
    write_model_task(task, place)
    calibration = read_own_calibration(source, proof["source_weights"])
    if calibration is not None:
        write_json(place / CALIBRATION_NAME, calibration | {"weights": proof["weights"]})


def _read_base_name(folder: Path) -> str:
    """Return the base model that a LoRA adapter names.

    Raises:
        ConfigError: when the folder holds something else.
    """
    try:
        content = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        kind, base = content["peft_type"], content["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            "This is no LoRA adapter", where=str(folder), expected=f"a folder with {ADAPTER_CONFIG}"
        ) from error
    if kind != "LORA" or not base:
        raise ConfigError(
            f"This adapter is {kind} on {base!r}", where=str(folder), expected="a LoRA adapter on a model"
        )
    return str(base)
