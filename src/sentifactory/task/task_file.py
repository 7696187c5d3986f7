"""Loads a task by its name or from a YAML file, and describes it for manifests, run cards and reports.

The tasks in `task.TASKS` are built in. Their files under `examples/tasks` are equal to them (a test compares them) and
serve as templates.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.yaml_text import read_yaml_text
from sentifactory.task.task import NAMED_TASKS, TASKS, TEXT_SLOT, Task

_KEYS = ("name", "answer_key", "prompt", "labels")
_LABEL_KEYS = ("name", "answer", "synonyms")
_MAX_SHOWN = 40
# Far above what a person writes: every review is asked with the whole prompt and scored once for each label.
MAX_LABELS = 1000
_MAX_PROMPT_CHARS = 100_000
_MAX_WORD_CHARS = 200
_MAX_SYNONYMS = 1000
_MAX_NUMBER = 10**15
# What labelled files and the service's statistics count in addition to the labels.
_RESERVED_NAMES = ("unsure", "bad_rows", "rows")
# These tokens start or end a turn of some chat template, also inside the prompt.
_CONTROL_TOKEN = re.compile(r"<\|[^|\s]+\|>|</?(?:s|bos|eos|start_of_turn|end_of_turn|image|video|audio)>")


def load_task(name_or_path: str | Path) -> Task:
    """Return a built-in task by its name, or the task that a YAML file describes.

    Raises:
        ConfigError: when there is no such task; for a file it lists every problem.

    Example:
        >>> load_task("binary_sentiment").labels
        ('negative', 'positive')
    """
    name = str(name_or_path)
    if (task := NAMED_TASKS.get(name)) is not None:
        return task
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(
            f"There is no task {name!r}",
            where="--task",
            expected=f"{', '.join(NAMED_TASKS)}, or a YAML file such as examples/tasks/three_classes.yaml",
            code="task-unknown",
        )
    return read_task(path)


def read_task(path: Path) -> Task:
    """Return the task that a YAML file describes.

    Raises:
        ConfigError: with every problem of the file.
    """
    import yaml

    try:
        content = yaml.safe_load(read_yaml_text(path))
    except FileNotFoundError:
        raise ConfigError(
            "The task file does not exist", where=str(path), next_step="check the path", code="task-file"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"The task file cannot be read ({error.strerror})", where=str(path), code="task-file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            "The task file is not UTF-8", where=str(path), next_step="save it as UTF-8", code="task-file"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            f"This is not valid YAML ({getattr(error, 'problem', None) or error})",
            where=f"{path}, line {mark.line + 1}" if mark else str(path),
            code="task-file-yaml",
        ) from error
    return build_task(content, str(path))


def build_task(content: Any, where: str) -> Task:
    """Return the task that the content of a file describes.

    Args:
        content: of the file.
        where: the file, for the error.

    Raises:
        ConfigError: with every problem.
    """
    problems, task = _read_content(content)
    if task is None:
        raise ConfigError(
            f"The task has {len(problems)} problem{'s' * (len(problems) > 1)}: " + "; ".join(problems),
            where=where,
            next_step="compare it with examples/tasks/binary_sentiment.yaml",
            code="task-invalid",
        )
    return task


def _read_content(content: Any) -> tuple[list[str], Task | None]:
    """Return the problems of a file's content, and the task if there are none."""
    if not isinstance(content, dict):
        kind = type(content).__name__
        return [f"the file must be a mapping with the keys {', '.join(_KEYS)}, and is a {kind}"], None
    problems = [f"unknown key {_show(key)}; the keys are {', '.join(_KEYS)}" for key in content if key not in _KEYS]
    problems += [f"the key {key!r} is missing" for key in _KEYS if key not in content]
    problems += _check_words(content)
    labels = content.get("labels")
    if "labels" in content:
        problems += _check_labels(labels)
    if problems or not isinstance(labels, list):
        return problems, None
    synonyms = tuple(tuple(label.get("synonyms") or ()) for label in labels)
    try:
        task = Task(
            name=content["name"],
            labels=tuple(label["name"] for label in labels),
            answer_key=content["answer_key"],
            answer_values=tuple(label["answer"] for label in labels),
            prompt_template=content["prompt"],
            synonyms=synonyms if any(synonyms) else (),
        )
    except ValueError as error:
        return [str(error)], None
    unread = [name for at, name in enumerate(task.labels) if task.parse_answer(task.render_answer(at)) != at]
    if unread:
        return [f"the answers for {', '.join(unread)} cannot be distinguished from those in the prompt"], None
    return [], task


def _check_words(content: dict[Any, Any]) -> list[str]:
    problems = []
    name, key, prompt = (content.get(field) for field in ("name", "answer_key", "prompt"))
    if "name" in content and not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", name)):
        problems.append(f"name must consist of a-z, 0-9 and _ and start with a letter, and is {_show(name)}")
    elif name in TASKS and content != describe_task(TASKS[str(name)]):
        problems.append(f"name is {name!r}, which is a built-in task with other content")
    if "answer_key" in content and not (isinstance(key, str) and key.strip()):
        problems.append(f"answer_key must be a word such as sentiment, and is {_show(key)}")
    problems += [
        f"{field} has {len(word):,} characters; at most {_MAX_WORD_CHARS} are allowed"
        for field, word in (("name", name), ("answer_key", key))
        if isinstance(word, str) and len(word) > _MAX_WORD_CHARS
    ]
    if "prompt" not in content:
        return problems
    if not isinstance(prompt, str):
        return [*problems, f"prompt must be text, and is {_show(prompt)}"]
    if len(prompt) > _MAX_PROMPT_CHARS:
        return [*problems, f"prompt has {len(prompt):,} characters; at most {_MAX_PROMPT_CHARS:,} are allowed"]
    if (n_slots := prompt.count(TEXT_SLOT)) != 1:
        problems.append(f"prompt must contain {TEXT_SLOT} exactly once, and contains it {n_slots} times")
    if prompt != prompt.strip():
        problems.append("prompt starts or ends with white space (write it after '|-')")
    problems += [f"prompt contains the control token {token}" for token in _CONTROL_TOKEN.findall(prompt)]
    return problems


def _check_labels(labels: Any) -> list[str]:
    if not isinstance(labels, list) or len(labels) < 2:
        return [f"labels must be a list of at least two labels, and is {_show(labels)}"]
    if len(labels) > MAX_LABELS:
        return [f"there are {len(labels):,} labels; at most {MAX_LABELS:,} are allowed"]
    problems: list[str] = []
    for number, label in enumerate(labels, start=1):
        problems += [f"label {number}: {problem}" for problem in _check_label(label)]
    if problems:
        return problems
    owners: dict[str, str] = {}
    for label in labels:  # answers, names and synonyms share one namespace: a file of reviews may use any of them
        for word in dict.fromkeys(map(fold_word, (label["answer"], label["name"], *(label.get("synonyms") or ())))):
            owner = owners.setdefault(word, label["name"])
            if owner != label["name"]:
                problems.append(f"{word!r} means both {owner} and {label['name']}")
    names = [label["name"] for label in labels]
    problems += [f"the label {name} occurs twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    return problems


def _check_label(label: Any) -> list[str]:
    if not isinstance(label, dict):
        return [f"it must be a mapping with name and answer, and is {_show(label)}"]
    problems = [
        f"unknown key {_show(key)}; the keys are {', '.join(_LABEL_KEYS)}" for key in label if key not in _LABEL_KEYS
    ]
    name, answer, synonyms = label.get("name"), label.get("answer"), label.get("synonyms")
    if not (isinstance(name, str) and name.strip()):
        problems.append(f"name must be text, and is {_show(name)} (YAML reads yes, no, on and off as true and false)")
    elif name.strip().casefold() in _RESERVED_NAMES:
        problems.append(f"name is {name!r}, which is reserved; choose another word")
    is_word = isinstance(answer, str) and bool(answer.strip())
    if not is_word and (isinstance(answer, bool) or not isinstance(answer, int)):
        problems.append(f"answer must be an integer or text, and is {_show(answer)}")
    if synonyms is not None and not (isinstance(synonyms, list) and all(isinstance(word, str) for word in synonyms)):
        problems.append(f"synonyms must be a list of texts, and is {_show(synonyms)}")
    elif synonyms is not None and len(synonyms) > _MAX_SYNONYMS:
        problems.append(f"there are {len(synonyms):,} synonyms; at most {_MAX_SYNONYMS:,} are allowed")
    words = [name, answer, *(synonyms if isinstance(synonyms, list) else ())]
    if any(isinstance(word, str) and len(word) > _MAX_WORD_CHARS for word in words):
        problems.append(f"one of its words has more than {_MAX_WORD_CHARS} characters")
    if isinstance(answer, int) and abs(answer) >= _MAX_NUMBER:
        problems.append(f"answer is {_show(answer)}, which has too many digits")
    return problems


def fold_word(word: int | str) -> str:
    """Return a word in the form in which the words of a task are compared."""
    return unicodedata.normalize("NFKC", str(word)).strip().casefold()


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…"


def describe_task(task: Task) -> dict[str, Any]:
    """Return the content of a task's YAML file."""
    synonyms: Sequence[tuple[str, ...]] = task.synonyms or [()] * len(task.labels)
    return {
        "name": task.name,
        "answer_key": task.answer_key,
        "prompt": task.prompt_template,
        "labels": [
            {"name": name, "answer": answer} | ({"synonyms": list(words)} if words else {})
            for name, answer, words in zip(task.labels, task.answer_values, synonyms, strict=True)
        ],
    }


def hash_task(task: Task) -> str:
    """Return the SHA-256 of everything in a task."""
    content = json.dumps(describe_task(task), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def record_task(task: Task) -> dict[str, Any]:
    """Return the record of a task in manifests, run cards and reports, from which `rebuild_task` restores it."""
    record: dict[str, Any] = {
        "name": task.name,
        "labels": list(task.labels),
        "answer_key": task.answer_key,
        "answer_values": list(task.answer_values),
        "prompt_template": task.prompt_template,
    }
    return record | ({"synonyms": [list(words) for words in task.synonyms]} if task.synonyms else {})


def rebuild_task(record: Mapping[str, Any], where: str) -> Task:
    """Return the task of a record from `record_task`; other keys of the record are ignored.

    Raises:
        ConfigError: with every problem of the record.
    """
    labels, answers = record.get("labels"), record.get("answer_values")
    if not isinstance(labels, list) or not isinstance(answers, list) or len(labels) != len(answers):
        raise ConfigError(
            f"labels is {_show(labels)} and answer_values is {_show(answers)}",
            where=where,
            expected="two lists of the same length",
            code="task-invalid",
        )
    synonyms = record.get("synonyms") or [[]] * len(labels)
    rows = zip(labels, answers, synonyms, strict=False)
    described = {
        "name": record.get("name"),
        "answer_key": record.get("answer_key"),
        "prompt": record.get("prompt_template"),
        "labels": [
            {"name": name, "answer": answer} | ({"synonyms": words} if words else {}) for name, answer, words in rows
        ],
    }
    return build_task(rename_earlier(described), where)


def rename_earlier(described: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a task; an earlier version of a built-in task gets another name.

    A model that was tuned with an earlier prompt of a built-in task keeps that prompt.
    """
    known = TASKS.get(str(described.get("name")))
    if known is None or described == describe_task(known):
        return described
    return {**described, "name": name_earlier(known)}


def name_earlier(task: Task) -> str:
    """Return the name of an earlier version of a task."""
    return f"{task.name}_of_the_model"


def is_same_question(one: Task, other: Task) -> bool:
    """Return whether two tasks have the same prompt and answers; names and synonyms do not matter."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("prompt_template", "labels", "answer_key", "answer_values")
    )


def has_same_labels(one: Task, other: Task) -> bool:
    """Return whether labels and answers of two tasks are the same, so that a labelled file serves both."""
    pairs = [sorted(zip(task.labels, map(str, task.answer_values), strict=True)) for task in (one, other)]
    return pairs[0] == pairs[1]


def is_earlier_version(task: Task, now: Task) -> bool:
    """Return whether a task is an earlier version of another one, with the same labels."""
    return task.name == name_earlier(now) and has_same_labels(task, now)
