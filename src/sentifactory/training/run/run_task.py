"""Determines the task of a run, which is saved with the model, so that it is asked what it was trained on.

For a run of LLaMA-Factory the training data decide: the manifest next to a data set, if its prompts match that task,
or prompts that match a built-in task. `--task` names the task where the data do not, and must not contradict them. An
earlier task of the base model is ignored. An encoder sees no prompt, so its data only need the labels of the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.json_text import parse_json, read_json, read_json_object
from sentifactory.system.progress import say
from sentifactory.task.model_folder import find_task_record, read_model_task, read_recorded_task
from sentifactory.task.task import BINARY_SENTIMENT, TASKS, TEXT_SLOT, Task
from sentifactory.task.task_choice import DATA, DEFAULT, MODEL, OPTION, ChosenTask, choose_task, show_task
from sentifactory.task.task_file import is_earlier_version, is_same_question, load_task
from sentifactory.training.recipe.recipe_checks import list_data_files

_ROWS_CHECKED = 50
_USER_NAMES, _MODEL_NAMES = ("user", "human"), ("assistant", "gpt", "model")


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """The task of a LLaMA-Factory run.

    Attributes:
        chosen: the task and its source; None where the data have no known task, or several.
        scored_by: the task whose answers are scored on the validation reviews.
        why: a line that names the task, or says why there is none.
    """

    chosen: ChosenTask | None
    scored_by: Task
    why: str

    @property
    def task(self) -> Task | None:
        """The task that is saved with the model."""
        return None if self.chosen is None else self.chosen.task

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the run card."""
        return {"name": None, "note": self.why} if self.chosen is None else self.chosen.to_json()


def find_training_task(settings: Mapping[str, Any], option: str | None) -> TrainingTask:
    """Return the task of a LLaMA-Factory recipe.

    Args:
        settings: of the recipe.
        option: the value of `--task`, a name or a YAML file.

    Raises:
        ConfigError: when the task does not exist, or the data contradict it.
    """
    option_task = load_task(option) if option is not None else None
    found_tasks: list[ChosenTask] = []
    mismatches: list[ConfigError] = []
    for name, file in list_data_files(settings, ["dataset"]):
        rows = list(_read_rows(file, _read_entry(settings, name)))
        found = _find_task(file, rows, option_task)
        if found is None and option_task is not None and rows:
            mismatches.append(_build_mismatch_error(option_task, str(file), rows[0].prompt))
        if found is not None and not any(is_same_question(found.task, other.task) for other in found_tasks):
            found_tasks.append(found)
    if mismatches and not found_tasks:
        raise mismatches[0]
    if option_task is None and not found_tasks:
        why = (
            "Task: the training data name none, and their prompts match no built-in one, so the model's folder will "
            "name none (name it with --task)"
        )
        return TrainingTask(None, BINARY_SENTIMENT, why)
    if option_task is None and len(found_tasks) > 1:
        names = "; ".join(show_task(one.task) for one in found_tasks)
        why = f"Task: the training data have several ({names}), so the model's folder will name none"
        return TrainingTask(None, found_tasks[0].task, why)
    chosen = found_tasks[0] if option_task is None else _reconcile_option(option_task, found_tasks)
    return TrainingTask(chosen, chosen.task, chosen.describe())


def _reconcile_option(option_task: Task, found_tasks: Sequence[ChosenTask]) -> ChosenTask:
    """Return the task of the option, unless the data have only other tasks.

    Raises:
        ConfigError: naming both tasks.
    """
    for one in found_tasks:
        is_earlier = is_earlier_version(one.task, option_task)
        if is_earlier or is_same_question(one.task, option_task):
            return ChosenTask(one.task if is_earlier else option_task, OPTION)
    if found_tasks:
        raise ConfigError(
            f"The training data have the task {show_task(found_tasks[0].task)}, and --task is "
            f"{show_task(option_task)}",
            where=found_tasks[0].where,
            next_step="leave out --task",
            code="task-of-data",
        )
    return ChosenTask(option_task, OPTION)


def _build_mismatch_error(option_task: Task, where: str, prompt: str) -> ConfigError:
    opening = option_task.prompt_template.partition("\n")[0]
    return ConfigError(
        f"The prompts of the training data are not those of the task {option_task.name} ({opening[:60]!r}): they "
        f"begin with {prompt[:60]!r}",
        where=where,
        next_step="name the task of these prompts with --task, or leave it out",
        code="task-of-data",
    )


def choose_encoder_task(option: str | None, files: Sequence[Path], base_model: str) -> ChosenTask:
    """Return the task whose labels an encoder learns, and report it.

    Args:
        option: the recipe's `task`; None where it has none.
        files: of training and validation reviews.
        base_model: the model to train; its own task is used where nothing else names one.

    Raises:
        ConfigError: when the task does not exist, or the data were labelled for another one.
    """
    chosen = choose_task(option, data=files)
    own = read_model_task(base_model)
    if own is not None and chosen.source == DEFAULT:
        chosen = ChosenTask(own, MODEL, base_model)
    chosen.announce()
    _announce_replacement(own, chosen.task, base_model)
    return chosen


def announce_training_task(training_task: TrainingTask, base_model: str) -> None:
    """Report the task of a run, and whether it replaces the base model's."""
    say(training_task.why)
    if training_task.task is not None:
        _announce_replacement(read_model_task(base_model), training_task.task, base_model)


def _announce_replacement(own: Task | None, task: Task, base_model: str) -> None:
    if own is not None and not is_same_question(own, task):
        say(f"{base_model} was trained on the task {show_task(own)}: this run replaces it by {show_task(task)}")


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: str
    answer: str
    has_system: bool


def _find_task(file: Path, rows: Sequence[_Row], option_task: Task | None) -> ChosenTask | None:
    """Return the task of a data file; None where it is unknown.

    Raises:
        ConfigError: when the manifest's task cannot be loaded, and no option names one.
    """
    found = find_task_record(file)
    if found is not None:
        path, record = found
        try:
            task = read_recorded_task(path, record)
        except ConfigError:
            if option_task is None:
                raise
        else:
            if not rows or _matches_task(task, rows):
                return ChosenTask(task, DATA, str(path))
    candidates = [*([option_task] if option_task is not None else ()), *TASKS.values()]
    recognised = (task for task in candidates if rows and _matches_task(task, rows))
    return next((ChosenTask(task, DATA, str(file)) for task in recognised), None)


def _matches_task(task: Task, rows: Sequence[_Row]) -> bool:
    """Return whether most rows have the prompt and the answers of a task."""
    before, after = task.prompt_template.split(TEXT_SLOT)
    n_matching = sum(
        row.prompt.startswith(before)
        and row.prompt.endswith(after)
        and not row.has_system
        and task.parse_answer(row.answer) is not None
        for row in rows
    )
    return 2 * n_matching > len(rows)


def _read_entry(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the entry of a data set in dataset_info.json."""
    register = read_json_object(Path(str(settings.get("dataset_dir", "data"))) / "dataset_info.json") or {}
    entry = register.get(name)
    return entry if isinstance(entry, dict) else {}


def _read_rows(file: Path, entry: Mapping[str, Any]) -> Iterator[_Row]:
    """Yield the first chat or alpaca rows of a data file."""
    columns, tags = (part if isinstance(part, dict) else {} for part in (entry.get("columns"), entry.get("tags")))
    for row in islice(_iter_objects(file), _ROWS_CHECKED):
        chat = next((row[key] for key in (columns.get("messages"), "messages", "conversations") if key in row), None)
        read = _read_chat(chat, tags) if isinstance(chat, list) else _read_alpaca(row, columns)
        if read is not None:
            has_system = read.has_system or bool(row.get(str(columns.get("system", "system"))))
            yield _Row(read.prompt, read.answer, has_system)


def _iter_objects(file: Path) -> Iterator[dict[str, Any]]:
    try:
        if file.suffix == ".json":
            content = read_json(file)
            yield from (row for row in content if isinstance(row, dict))
        elif file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as stream:
                yield from (row for row in map(parse_json, filter(str.strip, stream)) if isinstance(row, dict))
    except (OSError, ValueError, TypeError):
        return  # LLaMA-Factory will report the problem


def _read_chat(chat: Sequence[Any], tags: Mapping[str, Any]) -> _Row | None:
    turns = [
        (
            turn.get(tags.get("role_tag", "from"), turn.get("role")),
            turn.get(tags.get("content_tag", "value"), turn.get("content")),
        )
        for turn in chat
        if isinstance(turn, dict)
    ]
    user_names, model_names = (*_USER_NAMES, tags.get("user_tag")), (*_MODEL_NAMES, tags.get("assistant_tag"))
    prompt = next((content for who, content in turns if who in user_names and isinstance(content, str)), None)
    answer = next((content for who, content in turns if who in model_names and isinstance(content, str)), "")
    return None if prompt is None else _Row(prompt, answer, any(who == "system" for who, _ in turns))


def _read_alpaca(row: Mapping[str, Any], columns: Mapping[str, Any]) -> _Row | None:
    names = (("prompt", "instruction"), ("query", "input"), ("response", "output"))
    prompt, query, answer = (row.get(str(columns.get(key, usual))) for key, usual in names)
    if not isinstance(prompt, str):
        return None
    return _Row(f"{prompt}\n{query}" if query else prompt, answer if isinstance(answer, str) else "", False)
