"""Which task is meant: the one rule for every command.

The option `--task` first; else what the models were taught, as their folders say; else what the manifest beside the
reviews says; else binary sentiment. What contradicts the choice is refused, and which task it is and why is said in
one line. Of a classifier only the labels count: it is shown no prompt.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sentifactory.errors import ConfigError
from sentifactory.model_task import TASK_NAME, find_task_record, read_model_task, read_recorded_task
from sentifactory.progress import say
from sentifactory.task import BINARY_SENTIMENT, Task
from sentifactory.task_files import has_same_labels, is_same_question, load_task, name_earlier, record_task

OPTION, MODEL, DATA, DEFAULT = "option", "model", "data", "default"
# Of `--task`, where models are asked.
TASK_HELP = (
    "What is asked: a name, or a YAML file such as those in examples/tasks.  [what the model was taught, else that of "
    "the manifest beside the reviews, else binary_sentiment]"
)


@dataclass(frozen=True, slots=True)
class ChosenTask:
    """A task, and who named it.

    Attributes:
        task: what is asked.
        source: `option`, `model`, `data` or `default`.
        where: the model's folder or the manifest that names it; "" for the other two.
        strangers: models that were taught other words, and will be asked these because --task says so.
    """

    task: Task
    source: str
    where: str = ""
    strangers: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return in one line which task it is and why."""
        why = {
            OPTION: "as --task says" + (f", in the words that {self.where} was taught" if self.where else ""),
            MODEL: f"which {self.where} was taught",
            DATA: f"for which the reviews were prepared ({self.where})",
            DEFAULT: "as neither --task nor a model nor a manifest beside the reviews names one",
        }
        return f"Task: {show_task(self.task)}, {why[self.source]}"

    def announce(self) -> Self:
        """Say which task it is, and which models were taught another one; return it."""
        say(self.describe())
        for model in self.strangers:
            say(f"WARNING: {model} was taught another task than {self.task.name}, and is asked in other words")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the whole task and who named it, for reports and run cards."""
        return {**record_task(self.task), "source": self.source, "where": self.where}


def show_task(task: Task) -> str:
    """Return name and labels of a task, for messages.

    Example:
        >>> show_task(BINARY_SENTIMENT)
        'binary_sentiment (negative, positive)'
    """
    return f"{task.name} ({', '.join(task.labels)})"


def choose_task(
    option: str | None = None,
    *,
    models: Sequence[str | Path] = (),
    classifiers: Sequence[str | Path] = (),
    data: Sequence[str | Path] = (),
    texts: Sequence[str | Path] = (),
) -> ChosenTask:
    """Return the task that is meant.

    Args:
        option: a built-in task or a YAML file, as the user names it; None where nothing was said.
        models: folders of language models, which are asked in the words of the task.
        classifiers: folders of models that are shown no prompt.
        data: files of labelled reviews, or folders of data sets.
        texts: likewise, whose labels are not looked at: the first that has a manifest names the task where nobody else
            does, and none contradicts.

    Raises:
        ConfigError: when there is no such task, a task in a folder cannot be used, or two of them contradict.
    """
    asked = load_task(option) if option is not None else None
    taught = _read_tasks(models)
    heads = _read_tasks(classifiers)
    if asked is not None:
        chosen = _check_option(asked, taught, heads)
    elif taught or heads:
        chosen = _agree(taught, heads)
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


def _check_option(asked: Task, taught: dict[str, Task], heads: dict[str, Task]) -> ChosenTask:
    """Return the task of the option, unless no model that was taught a task was taught this one.

    Raises:
        ConfigError: naming both tasks.
    """
    _refuse_other_heads(asked, heads, "--task says")
    if not taught or any(is_same_question(asked, task) for task in taught.values()):
        others = tuple(model for model, task in taught.items() if not is_same_question(asked, task))
        return ChosenTask(asked, OPTION, strangers=others)
    for model, task in taught.items():
        if task.name == name_earlier(asked) and has_same_labels(task, asked):
            others = tuple(other for other, its in taught.items() if not is_same_question(task, its))
            return ChosenTask(task, OPTION, model, others)
    model, task = next(iter(taught.items()))
    raise ConfigError(
        f"The model was taught the task {show_task(task)}, and --task says {show_task(asked)}"
        + (", which has the same labels and asks in other words" if task.labels == asked.labels else ""),
        where=str(Path(model) / TASK_NAME),
        next_step="leave out --task: the model is asked what it was taught",
    )


def _agree(taught: dict[str, Task], heads: dict[str, Task]) -> ChosenTask:
    """Return the task that all models were taught.

    Raises:
        ConfigError: when they were taught different ones.
    """
    model, task = next(iter((taught or heads).items()))
    _refuse_other_heads(task, heads, f"{model} was taught")
    for other, its in taught.items():
        if not is_same_question(task, its):
            raise ConfigError(
                f"The models were taught different tasks: {model} was taught {show_task(task)}, and {other} "
                f"{show_task(its)}" + (", in other words" if task.labels == its.labels else ""),
                expected="models of one task",
                next_step="say by --task which of the two all of them are asked",
            )
    return ChosenTask(task, MODEL, model)


def _refuse_other_heads(task: Task, heads: dict[str, Task], who: str) -> None:
    """Refuse classifiers that have other labels than a task: no prompt can make them answer it.

    Raises:
        ConfigError: naming the first.
    """
    for model, own in heads.items():
        if not knows_labels(task, own.labels):
            raise ConfigError(
                f"The classifier was taught the task {show_task(own)}, and {who} {show_task(task)}",
                where=str(Path(model) / TASK_NAME),
                expected="one task for all",
                next_step="leave out --task" if who.startswith("--") else "name models of one task",
            )


def knows_labels(task: Task, labels: Sequence[str]) -> bool:
    """Return whether each label is a name, or a synonym of a name, of just one label of the task."""
    words = task.synonyms or ((),) * len(task.labels)
    owners = {_fold(word): at for at, name in enumerate(task.labels) for word in (name, *words[at])}
    return sorted(owners.get(_fold(label), -1) for label in labels) == list(range(len(task.labels)))


def _fold(word: str) -> str:
    return unicodedata.normalize("NFKC", word).strip().casefold()


def _check_labels(chosen: ChosenTask, path: Path, record: dict[str, Any]) -> None:
    """Refuse reviews that were labelled for another task; other words for the same labels are the model's affair.

    Raises:
        ConfigError: naming both tasks.
    """
    labels = [str(label) for label in record["labels"]]
    try:
        its = read_recorded_task(path, record)
    except ConfigError:  # what it is called is known, and which labels it has
        is_same = labels == list(chosen.task.labels)
        answers = ""
    else:
        is_same = has_same_labels(its, chosen.task)
        answers = _show_answers(its) if sorted(labels) == sorted(chosen.task.labels) else ""
    if not is_same:
        own = _show_answers(chosen.task) if answers else ", ".join(chosen.task.labels)
        raise ConfigError(
            f"The reviews were labelled for the task {record['name']} ({answers or ', '.join(labels)}), and not for "
            f"{chosen.task.name} ({own})" + (f", which {chosen.where} was taught" if chosen.source == MODEL else ""),
            where=str(path),
            expected="reviews with the labels of the task",
            next_step="leave out --task (in a recipe: task)"
            if chosen.source == OPTION
            else "give reviews that were prepared for the task of the model"
            if chosen.source == MODEL
            else "give reviews of one task",
        )


def _show_answers(task: Task) -> str:
    return ", ".join(f"{answer} = {label}" for label, answer in zip(task.labels, task.answer_values, strict=True))
