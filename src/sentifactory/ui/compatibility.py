"""Which models, data sets and recipes go together, by the same rule as all commands, and why others do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentifactory.bilingual import Sentence, list_labels
from sentifactory.engines.registry import AUTO, split_by_prompt
from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.models.classifiers import has_declared_head
from sentifactory.system.json_text import read_json_object
from sentifactory.task.label_names import match_labels
from sentifactory.task.model_folder import find_task_record, read_model_task
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task, knows_labels
from sentifactory.task.task_file import load_task
from sentifactory.training.recipe.recipe import Recipe, is_encoder_recipe
from sentifactory.ui.error_sentences import describe_reason
from sentifactory.ui.prepared_data import find_missing_part


@dataclass(frozen=True, slots=True)
class Offer:
    """A list of choices.

    Attributes:
        names: those that fit what is chosen already.
        misfits: why each of the others does not.
    """

    names: tuple[str, ...]
    misfits: Mapping[str, Sentence]


def sort_out(choices: Mapping[str, Path], explain: Callable[[Path], Sentence | None]) -> Offer:
    """Return which choices fit.

    Args:
        choices: folders by name.
        explain: returns why one does not fit, or None.
    """
    misfits = {name: reason for name, folder in choices.items() if (reason := explain(folder)) is not None}
    return Offer(tuple(name for name in choices if name not in misfits), misfits)


def explain_models(tuned: Path, other: Path) -> Sentence | None:
    """Return why two models cannot be asked the same question; None where they can."""
    return _explain([tuned, other], None, read_labels(other), read_labels(tuned))


def explain_data(tuned: Path | None, data: Path) -> Sentence | None:
    """Return why a model cannot be tested on a data set; None where it can."""
    if (missing := find_missing_part(data, "test")) is not None or tuned is None:
        return missing
    return _explain([tuned], data, _read_data_labels(data), read_labels(tuned))


def _explain(
    models: Sequence[Path], data: Path | None, own: Sequence[str] | None, others: Sequence[str] | None
) -> Sentence | None:
    try:
        prompted, classifiers = split_by_prompt((AUTO, str(model)) for model in models)
        chosen = choose_task(models=prompted, classifiers=classifiers, data=[data] if data else ())
        for folder in classifiers:
            check_head(Path(folder), chosen.task)
    except SentiFactoryError as error:
        if own and others and tuple(own) != tuple(others):
            return Sentence.write(
                f"its labels are {', '.join(own)}, and not {', '.join(others)}",
                f"其标签为{list_labels(own).zh}，而不是{list_labels(others).zh}",
            )
        return describe_reason(error)
    return None


def check_head(folder: Path, task: Task) -> None:
    """Check that a classifier which names its labels has those of a task.

    Raises:
        EngineError: when it has others.
    """
    names = read_head(folder)
    if names and not knows_labels(task, names):
        match_labels(dict(enumerate(names)), task, str(folder))


def read_head(folder: Path) -> list[str]:
    """Return the labels that a classifier's configuration names; [] for other models."""
    if not has_declared_head(str(folder), classifier=True):
        return []
    names = (read_json_object(folder / "config.json") or {}).get("id2label")
    return [str(names[key]) for key in sorted(names, key=str)] if isinstance(names, dict) else []


def read_labels(model: Path) -> Sequence[str] | None:
    """Return the labels that a model answers with; None where its folder does not say."""
    try:
        task = read_model_task(model)
    except ConfigError:
        return None
    return task.labels if task is not None else read_head(model) or None


def _read_data_labels(data: Path) -> list[str] | None:
    record = find_task_record(data)
    return None if record is None else [str(label) for label in record[1]["labels"]]


def explain_recipe(recipe: Recipe, data: Path) -> Sentence | None:
    """Return why a recipe cannot train on a data set; None where it can."""
    labels, settings = _read_data_labels(data), recipe.settings
    if (missing := find_missing_part(data, "train")) is not None:
        return missing
    if not is_encoder_recipe(recipe):
        if not (data / "train.jsonl").is_file():
            return Sentence("the data set holds no training texts for language models", "数据集没有语言模型的训练文件")
        if settings.get("eval_dataset") and not (data / "val.jsonl").is_file():
            return Sentence("it needs a validation part, which the data set lacks", "需要验证集，而数据集没有")
    try:
        named = load_task(str(settings["task"])) if settings.get("task") else None
        own = named or read_model_task(str(settings.get("model_name_or_path")))
    except ConfigError as error:
        return describe_reason(error)
    if own is None or labels is None or knows_labels(own, labels):
        return None
    return Sentence.write(
        f"it is for the labels {', '.join(own.labels)}, and the data set has {', '.join(labels)}",
        f"适用的标签为{list_labels(own.labels).zh}，而数据集的标签为{list_labels(labels).zh}",
    )
