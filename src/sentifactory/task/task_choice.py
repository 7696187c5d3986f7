"""Chooses the task, by one rule for every command.

The option `--task` comes first, then the task in the models' folders, then that in the manifest of the reviews, then
binary sentiment. Contradictions are refused, and one line on stderr names the task and the reason. A classifier gets
no prompt, so only its labels count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sentifactory.bilingual import list_labels
from sentifactory.errors import ConfigError
from sentifactory.system.progress import say
from sentifactory.task.fitting_task import describe_answers
from sentifactory.task.model_folder import TASK_NAME, find_task_record, read_model_task, read_recorded_task
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import (
    fold_word,
    has_same_labels,
    is_earlier_version,
    is_same_question,
    load_task,
    record_task,
)

OPTION, MODEL, DATA, DEFAULT = "option", "model", "data", "default"
# Help of `--task` for commands that ask models.
TASK_HELP = (
    "The task: a name, or a YAML file such as those in examples/tasks.  [the task of the model, else that of the "
    "reviews' manifest, else binary_sentiment]"
)


@dataclass(frozen=True, slots=True)
class ChosenTask:
    """A task, and what chose it.

    Attributes:
        task: what is asked.
        source: `option`, `model`, `data` or `default`.
        where: the model's folder or the manifest that names the task; "" for the other two sources.
        unfamiliar: models that were trained with another prompt and are asked with this one because of --task.
    """

    task: Task
    source: str
    where: str = ""
    unfamiliar: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one line that names the task and the reason for it."""
        why = {
            OPTION: "given by --task" + (f", with the prompt of {self.where}" if self.where else ""),
            MODEL: f"the task of {self.where}",
            DATA: f"for which the reviews were prepared ({self.where})",
            DEFAULT: "the default: neither --task nor a model nor a manifest of the reviews names one",
        }
        return f"Task: {show_task(self.task)}, {why[self.source]}"

    def announce(self) -> Self:
        """Write to stderr which task it is, and which models were trained for another one; return the task."""
        say(self.describe())
        for model in self.unfamiliar:
            say(f"WARNING: {model} was trained for another task than {self.task.name} and does not know this prompt")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the whole task and what chose it, for reports and run cards."""
        return {**record_task(self.task), "source": self.source, "where": self.where}


def show_task(task: Task, language: str = "en") -> str:
    """Return name and labels of a task, for messages in English or Chinese (`zh`).

    Example:
        >>> show_task(BINARY_SENTIMENT)
        'binary_sentiment (negative, positive)'
    """
    if language == "zh":
        return f"{task.name}（{list_labels(task.labels).zh}）"
    return f"{task.name} ({', '.join(task.labels)})"


def choose_task(
    option: str | None = None,
    *,
    models: Sequence[str | Path] = (),
    classifiers: Sequence[str | Path] = (),
    data: Sequence[str | Path] = (),
    texts: Sequence[str | Path] = (),
) -> ChosenTask:
    """Return the chosen task.

    Args:
        option: a built-in task or a YAML file, as the user names it; None where the option was not given.
        models: folders of language models, which are asked with the prompt of the task.
        classifiers: folders of classifiers, which get no prompt.
        data: files of labelled reviews, or folders of data sets.
        texts: likewise, without using their labels: the first with a manifest names the task if nothing else does, and
            none of them can contradict.

    Raises:
        ConfigError: when there is no such task, a task in a folder cannot be used, or two of them contradict.
    """
    asked = load_task(option) if option is not None else None
    trained = _read_tasks(models)
    heads = _read_tasks(classifiers)
    if asked is not None:
        chosen = _check_option(asked, trained, heads)
    elif trained or heads:
        chosen = _agree(trained, heads)
    else:
        chosen = None
    for path, record in filter(None, map(find_task_record, data)):
        if chosen is None:
            chosen = ChosenTask(read_recorded_task(path, record), DATA, str(path))
        _check_labels(chosen, path, record)
    for path, record in filter(None, map(find_task_record, texts if chosen is None else ())):
        return ChosenTask(read_recorded_task(path, record), DATA, str(path))
    return chosen or ChosenTask(BINARY_SENTIMENT, DEFAULT)


def _read_tasks(models: Sequence[str | Path]) -> dict[str, Task]:
    tasks = {str(model): read_model_task(model) for model in models if str(model)}
    return {model: task for model, task in tasks.items() if task is not None}


def _check_option(asked: Task, trained: dict[str, Task], heads: dict[str, Task]) -> ChosenTask:
    """Return the task of the option, unless models have tasks and none of them has this one.

    Raises:
        ConfigError: naming both tasks.
    """
    _refuse_other_heads(asked, heads, "--task is")
    if not trained or any(is_same_question(asked, task) for task in trained.values()):
        others = tuple(model for model, task in trained.items() if not is_same_question(asked, task))
        return ChosenTask(asked, OPTION, unfamiliar=others)
    for model, task in trained.items():
        if is_earlier_version(task, asked):
            others = tuple(other for other, its in trained.items() if not is_same_question(task, its))
            return ChosenTask(task, OPTION, model, others)
    model, task = next(iter(trained.items()))
    raise ConfigError(
        f"The model was trained for the task {show_task(task)}, and --task is {show_task(asked)}"
        + (", which has the same labels and another prompt" if task.labels == asked.labels else ""),
        where=str(Path(model) / TASK_NAME),
        next_step="leave out --task to use the task of the model",
        code="task-conflict",
    )


def _agree(trained: dict[str, Task], heads: dict[str, Task]) -> ChosenTask:
    """Return the task that all models were trained for.

    Raises:
        ConfigError: when they were trained for different ones.
    """
    model, task = next(iter((trained or heads).items()))
    _refuse_other_heads(task, heads, f"that of {model} is")
    for other, its in trained.items():
        if not is_same_question(task, its):
            raise ConfigError(
                f"The models were trained for different tasks: {model} for {show_task(task)}, and {other} for "
                f"{show_task(its)}" + (" with another prompt" if task.labels == its.labels else ""),
                expected="models of one task",
                next_step="choose by --task which of the two all of them are asked",
                code="task-conflict",
            )
    return ChosenTask(task, MODEL, model)


def _refuse_other_heads(task: Task, heads: dict[str, Task], chosen_by: str) -> None:
    """Refuse classifiers whose labels differ from those of the task: no prompt can make them answer it.

    Raises:
        ConfigError: naming the first one.
    """
    for model, own in heads.items():
        if not knows_labels(task, own.labels):
            raise ConfigError(
                f"The classifier was trained for the task {show_task(own)}, and {chosen_by} {show_task(task)}",
                where=str(Path(model) / TASK_NAME),
                expected="one task for all",
                next_step="leave out --task" if chosen_by.startswith("--") else "name models of one task",
                code="task-conflict",
            )


def knows_labels(task: Task, labels: Sequence[str]) -> bool:
    """Return whether the labels match those of the task one to one, by name or synonym."""
    words = task.synonyms or ((),) * len(task.labels)
    owners = {fold_word(word): at for at, name in enumerate(task.labels) for word in (name, *words[at])}
    return sorted(owners.get(fold_word(label), -1) for label in labels) == list(range(len(task.labels)))


def _check_labels(chosen: ChosenTask, path: Path, record: dict[str, Any]) -> None:
    """Refuse reviews that were labelled for another task; only labels and answers count, not the prompt.

    Raises:
        ConfigError: naming both tasks.
    """
    labels = [str(label) for label in record["labels"]]
    try:
        its = read_recorded_task(path, record)
    except ConfigError:  # the record still has its name and labels
        is_same = labels == list(chosen.task.labels)
        answers = ""
    else:
        is_same = has_same_labels(its, chosen.task)
        answers = describe_answers(its) if sorted(labels) == sorted(chosen.task.labels) else ""
    if not is_same:
        own = describe_answers(chosen.task) if answers else ", ".join(chosen.task.labels)
        raise ConfigError(
            f"The reviews were labelled for the task {record['name']} ({answers or ', '.join(labels)}), and not for "
            f"{chosen.task.name} ({own})" + (f", the task of {chosen.where}" if chosen.source == MODEL else ""),
            where=str(path),
            expected="reviews with the labels of the task",
            next_step="leave out --task (in a recipe: task)"
            if chosen.source == OPTION
            else "give reviews that were prepared for the task of the model"
            if chosen.source == MODEL
            else "give reviews of one task",
            code="task-of-reviews",
        )
