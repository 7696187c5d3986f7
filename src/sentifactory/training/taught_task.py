"""Which task a run teaches: what goes into the model's folder, so that the model is asked what it was taught.

For a run of LLaMA-Factory the training data decide: the manifest beside a data set, as long as its prompts are in the
words of that task, or prompts in which a built-in task is recognised. `--task` says which it is where the data do not,
and must not contradict them. What the base model was taught before does not count. For an encoder, which is shown no
prompt, a file of labels is all that a data set needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.json_object import read_json_object
from sentifactory.model_task import find_task_record, read_model_task, read_recorded_task
from sentifactory.progress import say
from sentifactory.task import BINARY_SENTIMENT, TASKS, TEXT_SLOT, Task
from sentifactory.task_choice import DATA, DEFAULT, MODEL, OPTION, ChosenTask, choose_task, show_task
from sentifactory.task_files import has_same_labels, is_same_question, load_task, name_earlier
from sentifactory.training.recipe_checks import list_data_files

_ROWS_SEEN = 50
_USERS, _MODELS = ("user", "human"), ("assistant", "gpt", "model")


@dataclass(frozen=True, slots=True)
class TaughtTask:
    """What a run of LLaMA-Factory teaches.

    Attributes:
        chosen: the task and who named it; None where the data teach none that is known, or several.
        scored_by: the task by whose answers validation reviews are scored.
        why: in one line, which it is or why there is none.
    """

    chosen: ChosenTask | None
    scored_by: Task
    why: str

    @property
    def task(self) -> Task | None:
        """What the model's folder will say."""
        return None if self.chosen is None else self.chosen.task

    def to_json(self) -> dict[str, Any]:
        """Return what the run card says."""
        return {"name": None, "note": self.why} if self.chosen is None else self.chosen.to_json()


def find_taught_task(settings: Mapping[str, Any], option: str | None) -> TaughtTask:
    """Return what a recipe of LLaMA-Factory teaches.

    Args:
        settings: the recipe.
        option: the task's name or YAML file, as the user gives it.

    Raises:
        ConfigError: when there is no such task, or the data contradict it.
    """
    asked = load_task(option) if option is not None else None
    known: list[ChosenTask] = []
    others: list[ConfigError] = []
    for name, file in list_data_files(settings, ["dataset"]):
        rows = list(_read_rows(file, _read_entry(settings, name)))
        found = _find_task(file, rows, asked)
        if found is None and asked is not None and rows:
            others.append(_describe_other_words(asked, str(file), rows[0].prompt))
        if found is not None and not any(is_same_question(found.task, other.task) for other in known):
            known.append(found)
    if others and not known:
        raise others[0]
    if asked is not None:
        return _take_asked(asked, known)
    if not known:
        why = "Task: the training data name none, and their prompts are of no built-in one: the model's folder will "
        return TaughtTask(None, BINARY_SENTIMENT, f"{why}name none (--task says which it is)")
    if len(known) > 1:
        names = "; ".join(show_task(one.task) for one in known)
        why = f"Task: the training data teach several ({names}): the model's folder will name none"
        return TaughtTask(None, known[0].task, why)
    return TaughtTask(known[0], known[0].task, known[0].describe())


def _take_asked(asked: Task, known: Sequence[ChosenTask]) -> TaughtTask:
    """Return the task of the option, unless the data are known to teach others alone.

    Raises:
        ConfigError: naming both tasks.
    """
    for one in known:
        is_earlier = one.task.name == name_earlier(asked) and has_same_labels(one.task, asked)
        if is_earlier or is_same_question(one.task, asked):
            chosen = ChosenTask(one.task if is_earlier else asked, OPTION)
            return TaughtTask(chosen, chosen.task, chosen.describe())
    if known:
        raise ConfigError(
            f"The training data teach the task {show_task(known[0].task)}, and --task says {show_task(asked)}",
            where=known[0].where,
            next_step="leave out --task",
        )
    chosen = ChosenTask(asked, OPTION)
    return TaughtTask(chosen, asked, chosen.describe())


def _describe_other_words(asked: Task, where: str, prompt: str) -> ConfigError:
    opening = asked.prompt_template.partition("\n")[0]
    return ConfigError(
        f"The training data are not asked in the words of the task {asked.name} ({opening[:60]!r}): they begin "
        f"{prompt[:60]!r}",
        where=where,
        next_step="give the task of these words by --task, or leave it out",
    )


def choose_encoder_task(option: str | None, files: Sequence[Path], base_model: str) -> ChosenTask:
    """Return the task whose labels an encoder learns, and say which it is.

    Args:
        option: the recipe's `task`; None where it has none.
        files: of training and validation reviews.
        base_model: what is trained further; the labels that it was taught count where nobody else names any.

    Raises:
        ConfigError: when there is no such task, or the data were labelled for another one.
    """
    chosen = choose_task(option, data=files)
    own = read_model_task(base_model)
    if own is not None and chosen.source == DEFAULT:
        chosen = ChosenTask(own, MODEL, base_model)
    chosen.announce()
    _tell_replaced(own, chosen.task, base_model)
    return chosen


def tell_taught_task(taught: TaughtTask, base_model: str) -> None:
    """Say which task a run teaches, and that it takes the place of another one."""
    say(taught.why)
    if taught.task is not None:
        _tell_replaced(read_model_task(base_model), taught.task, base_model)


def _tell_replaced(own: Task | None, task: Task, base_model: str) -> None:
    if own is not None and not is_same_question(own, task):
        say(f"{base_model} was taught the task {show_task(own)}: this run teaches {show_task(task)} in its place")


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: str
    answer: str
    has_system: bool


def _find_task(file: Path, rows: Sequence[_Row], asked: Task | None) -> ChosenTask | None:
    """Return the task that a data file teaches; None where it is not known.

    Raises:
        ConfigError: when the manifest's task cannot be had, and none was asked for.
    """
    found = find_task_record(file)
    if found is not None:
        path, record = found
        try:
            task = read_recorded_task(path, record)
        except ConfigError:
            if asked is None:
                raise
        else:
            if not rows or _is_asked(task, rows):
                return ChosenTask(task, DATA, str(path))
    candidates = [*([asked] if asked is not None else ()), *TASKS.values()]
    recognised = (task for task in candidates if rows and _is_asked(task, rows))
    return next((ChosenTask(task, DATA, str(file)) for task in recognised), None)


def _is_asked(task: Task, rows: Sequence[_Row]) -> bool:
    """Return whether most rows ask in the words of a task and answer as it does."""
    before, after = task.prompt_template.split(TEXT_SLOT)
    n_asked = sum(
        row.prompt.startswith(before)
        and row.prompt.endswith(after)
        and not row.has_system
        and task.parse_answer(row.answer) is not None
        for row in rows
    )
    return 2 * n_asked > len(rows)


def _read_entry(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what dataset_info.json says of a data set."""
    register = read_json_object(Path(str(settings.get("dataset_dir", "data"))) / "dataset_info.json") or {}
    entry = register.get(name)
    return entry if isinstance(entry, dict) else {}


def _read_rows(file: Path, entry: Mapping[str, Any]) -> Iterator[_Row]:
    """Yield the first rows of a data file as far as they are chats or alpaca rows; of other kinds of files none."""
    columns, tags = (part if isinstance(part, dict) else {} for part in (entry.get("columns"), entry.get("tags")))
    for row in islice(_iter_objects(file), _ROWS_SEEN):
        chat = next((row[key] for key in (columns.get("messages"), "messages", "conversations") if key in row), None)
        read = _read_chat(chat, tags) if isinstance(chat, list) else _read_alpaca(row, columns)
        if read is not None:
            has_system = read.has_system or bool(row.get(str(columns.get("system", "system"))))
            yield _Row(read.prompt, read.answer, has_system)


def _iter_objects(file: Path) -> Iterator[dict[str, Any]]:
    try:
        if file.suffix == ".json":
            content = json.loads(file.read_text(encoding="utf-8"))
            yield from (row for row in content if isinstance(row, dict))
        elif file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as stream:
                yield from (row for row in map(json.loads, filter(str.strip, stream)) if isinstance(row, dict))
    except (OSError, ValueError, TypeError, RecursionError):
        return  # LLaMA-Factory says what is wrong with it


def _read_chat(chat: Sequence[Any], tags: Mapping[str, Any]) -> _Row | None:
    turns = [
        (
            turn.get(tags.get("role_tag", "from"), turn.get("role")),
            turn.get(tags.get("content_tag", "value"), turn.get("content")),
        )
        for turn in chat
        if isinstance(turn, dict)
    ]
    users, models = (*_USERS, tags.get("user_tag")), (*_MODELS, tags.get("assistant_tag"))
    prompt = next((words for who, words in turns if who in users and isinstance(words, str)), None)
    answer = next((words for who, words in turns if who in models and isinstance(words, str)), "")
    return None if prompt is None else _Row(prompt, answer, any(who == "system" for who, _ in turns))


def _read_alpaca(row: Mapping[str, Any], columns: Mapping[str, Any]) -> _Row | None:
    names = (("prompt", "instruction"), ("query", "input"), ("response", "output"))
    prompt, query, answer = (row.get(str(columns.get(key, usual))) for key, usual in names)
    if not isinstance(prompt, str):
        return None
    return _Row(f"{prompt}\n{query}" if query else prompt, answer if isinstance(answer, str) else "", False)
