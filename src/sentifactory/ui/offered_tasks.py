"""The tasks that the page offers for a file, and new tasks made of the labels that the file holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentifactory.bilingual import Sentence, list_labels, name_label
from sentifactory.clean_text import drop_unseen
from sentifactory.corpus.files.columns import names_stars
from sentifactory.corpus.reading.label_column import FEW_CELLS, Column
from sentifactory.corpus.reading.label_reader import LabelReader, count_stars
from sentifactory.corpus.reading.label_scales import are_classes, read_cells, suggest_threshold
from sentifactory.errors import SentiFactoryError
from sentifactory.records import Reason
from sentifactory.system.atomic import write_text
from sentifactory.task.label_names import build_label_index, normalise_label
from sentifactory.task.task import TASKS, TEXT_SLOT, Task
from sentifactory.task.task_file import build_task, describe_task, fold_word, read_task
from sentifactory.ui.column_guesses import MAX_LABELS
from sentifactory.ui.error_sentences import describe_reason
from sentifactory.ui.sentiment_words import MOODS
from sentifactory.ui.uploaded_file import UploadedFile

# The choice of a new task with the labels of the file.
NEW_TASK = "new"
_WHOLE_NUMBER = re.compile(r"-?\d{1,6}")
# A label of fewer reviews cannot be split into training, validation and test parts.
_MIN_REVIEWS = 3
_MIN_SHARE = 0.005
_LISTED = 4


@dataclass(frozen=True, slots=True)
class OfferedTask:
    """A task of the list.

    Attributes:
        task: prompt and labels.
        option: what `--task` would be given: a built-in name, or the path of its file.
    """

    task: Task
    option: str


@dataclass(frozen=True, slots=True)
class FileTasks:
    """The tasks for a file.

    Attributes:
        fitting: names of the offered tasks whose labels the file holds.
        misfits: why each of the others is not offered.
        labels: the labels found, of which a new task is made; () where there are too many or too few.
        has_stars: whether numbers of the file can be read as stars.
        threshold: of stars, chosen or suggested; None where there are none.
        chosen: the fitting task that is chosen first, `NEW_TASK`, or None where there is nothing to choose.
    """

    fitting: tuple[str, ...]
    misfits: Mapping[str, Sentence]
    labels: tuple[str, ...]
    has_stars: bool
    threshold: float | None
    chosen: str | None


def find_tasks(folders: Sequence[Path]) -> dict[str, OfferedTask]:
    """Return the built-in tasks and those in the YAML files of some folders, by name."""
    found = {name: OfferedTask(task, name) for name, task in TASKS.items()}
    for folder in folders:
        for path in sorted(folder.glob("**/*.yaml")):
            try:
                if "answer_key:" not in path.read_text(encoding="utf-8"):
                    continue  # a recipe
                task = read_task(path)
            except (OSError, UnicodeDecodeError, SentiFactoryError):
                continue
            found.setdefault(task.name, OfferedTask(task, str(path)))
    return found


def choose_tasks(file: UploadedFile, tasks: Mapping[str, OfferedTask], threshold: float | None = None) -> FileTasks:
    """Return which of the tasks fit a file, and which is chosen first.

    Args:
        file: what was uploaded.
        tasks: those that are offered.
        threshold: of stars, as the user chose it; None: the usual one of the scale.
    """
    if file.label_column is None:  # chats, whose answers the readers find by themselves
        is_chat = not file.columns
        return FileTasks(tuple(tasks) if is_chat else (), {}, (), False, None, next(iter(tasks)) if is_chat else None)
    numbers = [stars for cell in file.cells if (stars := count_stars(cell)) is not None]
    n_numbers = sum(n for cell, n in file.cells.items() if count_stars(cell) is not None)
    n_filled = sum(n for cell, n in file.cells.items() if normalise_label(cell))
    has_stars = bool(numbers) and n_numbers >= (1 - FEW_CELLS) * n_filled and not are_classes(set(numbers))
    if has_stars and threshold is None:
        threshold = suggest_threshold(set(numbers))
    misfits: dict[str, Sentence] = {}
    for name, offered in tasks.items():
        reason = find_misfit(file, offered.task, threshold if has_stars else None)
        if reason is not None:
            misfits[name] = reason
    fitting = tuple(name for name in tasks if name not in misfits)
    labels = find_labels(file.cells)
    chosen = _choose_first(fitting, tasks, labels, has_stars=has_stars)
    return FileTasks(fitting, misfits, labels, has_stars, threshold if has_stars else None, chosen)


def _choose_first(
    fitting: Sequence[str], tasks: Mapping[str, OfferedTask], labels: Sequence[str], *, has_stars: bool
) -> str | None:
    """Return the task of sentiment for stars, otherwise one that has all labels of the file and no others."""
    if has_stars and fitting:
        return fitting[0]
    for name in fitting:
        index = build_label_index(tasks[name].task)
        if len({index.get(normalise_label(label)) for label in labels} - {None}) == len(tasks[name].task.labels):
            return name
    return NEW_TASK if labels else next(iter(fitting), None)


def find_misfit(file: UploadedFile, task: Task, threshold: float | None) -> Sentence | None:
    """Return why the labels of a file are not those of a task; None where they are."""
    column = Column(file.label_column, names_stars(file.label_column or ""), file.where)
    try:
        reader = LabelReader(task)
        if threshold is not None and reader.has_moods and not _are_labels(file.cells, reader):
            reader = LabelReader(task, star_threshold=threshold)
        meanings, _ = read_cells(file.cells, column, reader)
    except SentiFactoryError as error:
        return describe_reason(error)
    unknown = Counter({cell: file.cells[cell] for cell, label in meanings.items() if label == Reason.UNKNOWN_LABEL})
    n_filled = sum(n for cell, n in file.cells.items() if meanings[cell] != Reason.NO_LABEL)
    known = {label for label in meanings.values() if isinstance(label, int)}
    own = list_labels(task.labels)
    are_numbers = all(_WHOLE_NUMBER.fullmatch(normalise_label(cell)) for cell in file.cells if normalise_label(cell))
    if n_filled and unknown.total() <= FEW_CELLS * n_filled and len(known) > 1:
        if reader.threshold is not None or not are_numbers or len(known) == len(task.labels):
            return None
        # 0 and 1 are the labels of many tasks, and 1 does not mean the same in all of them.
        found = ", ".join(sorted({normalise_label(cell) for cell in file.cells} - {""}))
        answers = [
            ", ".join(
                f"{value} = {name_label(name)[at]}"
                for name, value in zip(task.labels, task.answer_values, strict=True)
            )
            for at in range(2)
        ]
        return Sentence.write(
            f"the file has only the numbers {found}, and its labels are {answers[0]}",
            f"文件中只有数字 {found}，而其标签为 {answers[1]}",
        )
    if not unknown:
        return Sentence.write(
            f"the file does not hold two of its labels ({own.en})", f"文件中没有它的两种标签（{own.zh}）"
        )
    words = ", ".join(f"{cell.strip()[:20]} ({n})" for cell, n in unknown.most_common(_LISTED))
    return Sentence.write(
        f"its labels are {own.en}; the file also has {words}",
        f"其标签为{own.zh}；文件中还有{words.replace(', ', '、')}",
    )


def needs_threshold(file: UploadedFile, task: Task) -> bool:
    """Return whether the numbers of a file are stars for a task, and not labels of it."""
    reader = LabelReader(task)
    return reader.has_moods and not _are_labels(file.cells, reader)


def _are_labels(cells: Mapping[str, int], reader: LabelReader) -> bool:
    filled = {cell: n for cell, n in cells.items() if normalise_label(cell)}
    n_own = sum(n for cell, n in filled.items() if isinstance(reader.find_own(cell), int))
    return n_own >= (1 - FEW_CELLS) * sum(filled.values())


def find_labels(cells: Mapping[str, int]) -> tuple[str, ...]:
    """Return the labels of a column, in a natural order: bad to good, ascending, or the most frequent first.

    Labels of very few reviews are typing errors, or too few to learn and to test.

    Example:
        >>> find_labels({"好评": 90, "差评": 80, "中评": 60, "好坪": 1})
        ('差评', '中评', '好评')
    """
    counts: Counter[str] = Counter()
    spellings: dict[str, str] = {}
    for cell, n in cells.items():
        if word := normalise_label(cell):
            counts[spellings.setdefault(word, drop_unseen(cell).strip())] += n
    least = max(_MIN_REVIEWS, _MIN_SHARE * counts.total())
    labels = [label for label, n in counts.most_common() if n >= least]
    if not 2 <= len(labels) <= MAX_LABELS:
        return ()
    moods = build_label_index(MOODS)
    words = [normalise_label(label) for label in labels]
    if all(word in moods for word in words):
        return tuple(sorted(labels, key=lambda label: moods[normalise_label(label)]))
    if all(_WHOLE_NUMBER.fullmatch(word) for word in words):
        return tuple(sorted(labels, key=lambda label: int(normalise_label(label))))
    return tuple(labels)


def build_new_task(labels: Sequence[str], name: str) -> Task:
    """Return a task with the labels of a file.

    Words for good, neutral and bad become the labels positive, neutral and negative, which charts and reports know;
    other labels keep their words. Whole numbers are their own answers.

    Args:
        labels: from `find_labels`.
        name: of the task.

    Raises:
        ConfigError: when two of the labels are one word, or a label cannot be one.

    Example:
        >>> build_new_task(("差评", "好评"), "mine").prompt_template.splitlines()[0]
        '判断评论的情感，差评为0，好评为1，只用JSON回答：{"label": 0} 或 {"label": 1}'
    """
    moods, words = build_label_index(MOODS), [normalise_label(label) for label in labels]
    are_moods = len({moods.get(word) for word in words} - {None}) == len(words)
    are_numbers = all(_WHOLE_NUMBER.fullmatch(word) for word in words)
    names = tuple(MOODS.labels[moods[word]] if are_moods else word for word in words)
    answers = tuple(int(word) if are_numbers else at for at, word in enumerate(words))
    meanings = "，".join(f"{label}为{answer}" for label, answer in zip(labels, answers, strict=True))
    *first, last = (f'{{"label": {answer}}}' for answer in answers)
    question = f"{'判断评论的情感' if are_moods else '判断评论属于哪一类'}，{meanings}"
    if are_numbers:
        question = f"判断评论属于哪一类：{'、'.join(map(str, answers))}"
    prompt = f"{question}，只用JSON回答：{'、'.join(first)} 或 {last}\n评论：{TEXT_SLOT}"
    synonyms = tuple(
        () if fold_word(label) == fold_word(own) else (label,) for label, own in zip(labels, names, strict=True)
    )
    return Task(name, names, "label", answers, prompt, synonyms if any(synonyms) else ())


def write_task(task: Task, folder: Path) -> Path:
    """Write the file of a new task into a folder, and return its path.

    Raises:
        ConfigError: when the task cannot be used; nothing is written then.
    """
    import yaml

    described = describe_task(task)
    build_task(described, task.name)
    path = folder / f"{task.name}.yaml"
    write_text(path, yaml.safe_dump(described, allow_unicode=True, sort_keys=False))
    return path


def name_task(folder: Path, wish: str) -> str:
    """Return a name for a task that no file of a folder has: of the letters that names of tasks may have.

    Example:
        >>> name_task(Path("/nowhere"), "My reviews"), name_task(Path("/nowhere"), "我的评论")
        ('my_reviews', 'own_labels')
    """
    stem = re.sub(r"[^a-z0-9]+", "_", wish.lower()).strip("_")
    stem = stem if re.match("[a-z]", stem) and stem not in TASKS else "own_labels"
    name, number = stem, 1
    while (folder / f"{name}.yaml").exists():
        number += 1
        name = f"{stem}_{number}"
    return name
