"""The prepared data sets that the page offers, and how an upload becomes one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from sentifactory.bilingual import Sentence
from sentifactory.corpus.dataset.dataset_files import write_reviews
from sentifactory.corpus.files.open_file import FILE_SUFFIXES
from sentifactory.corpus.reading.review_files import read_reviews
from sentifactory.task.model_folder import MANIFEST, find_task_record
from sentifactory.task.task import Task
from sentifactory.ui.column_guesses import LabelWords
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.offered_tasks import (
    NEW_TASK,
    OfferedTask,
    build_new_task,
    choose_tasks,
    find_misfit,
    name_task,
    needs_threshold,
    write_task,
)
from sentifactory.ui.page_words import WORDS
from sentifactory.ui.uploaded_file import FileChoices, inspect_upload
from sentifactory.ui.workspace import Workspace, choose_name, list_newest


def find_data(workspace: Workspace, roots: Sequence[Path]) -> dict[str, Path]:
    """Return the folders of the prepared data sets by name, the newest first.

    Those of the page have plain names; of the others the name begins with that of their root.
    """
    found = {folder: folder.name for folder in list_newest(workspace.data, MANIFEST)}
    for root in roots:
        if root.resolve() != workspace.data:
            found |= {folder: f"{root.resolve().name}/{folder.name}" for folder in list_newest(root, MANIFEST)}
    changed_at: dict[Path, int] = {}
    for folder in found:
        with contextlib.suppress(OSError):
            if find_task_record(folder) is not None:
                changed_at[folder] = (folder / MANIFEST).stat().st_mtime_ns
    return {found[folder]: folder for folder in sorted(changed_at, key=lambda folder: -changed_at[folder])}


def find_missing_part(folder: Path, part: str) -> Sentence | None:
    """Return that a data set lacks a part, `train` or `test`; None where it has it."""
    if (folder / f"{part}.csv").is_file():
        return None
    name = {"train": ("training", "训练集"), "test": ("test", "测试集")}[part]
    return Sentence.write(f"it has no {name[0]} part", f"没有{name[1]}")


def keep_upload(workspace: Workspace, file: str | None, name: str) -> Path:
    """Copy an uploaded file into the workspace, and return its path.

    Raises:
        PageError: when there is none, or its kind is not supported.
    """
    kinds = ", ".join(sorted(FILE_SUFFIXES))
    if not file:
        raise PageError("No file is chosen. Choose one first.", "尚未选择文件，请先选择。", code="file-not-chosen")
    if (suffix := Path(file).suffix.lower()) not in FILE_SUFFIXES:
        raise PageError(
            f"Files of the kind {suffix or 'without an ending'} cannot be read. Choose one of {kinds}.",
            f"无法读取{f' {suffix} 类型的' if suffix else '没有后缀的'}文件。请选择以下类型之一：{kinds}。",
            code="file-kind",
        )
    return workspace.keep_upload(file, name)


def prepare_upload(
    workspace: Workspace, source: Path, name: str, choices: FileChoices, tasks: Mapping[str, OfferedTask]
) -> None:
    """Prepare a data set from an upload.

    Args:
        workspace: of the page; the data set is written into it.
        source: the upload, in the workspace.
        name: of the data set.
        choices: columns, task, threshold and encoding; what is not chosen is guessed from the file.
        tasks: those that are offered.

    Raises:
        DataError: when the file cannot be used.
        ConfigError: when a choice does not fit it. No new task is left behind then.
    """
    from sentifactory.corpus.prepare import prepare_reviews

    file = inspect_upload(source, choices, LabelWords.collect(offered.task for offered in tasks.values()))
    found = choose_tasks(file, tasks, choices.star_threshold)
    wanted = choices.task or found.chosen
    if wanted is None or (wanted == NEW_TASK and not found.labels):
        raise PageError(
            "This label column has fewer than two labels, or too many. Choose another label column.",
            "该标签列的标签不足两种或过多，请选择其他标签列。",
            code="labels-missing",
        )
    path = None
    if wanted == NEW_TASK:
        task = build_new_task(found.labels, name_task(workspace.tasks, name))
        option = str(path := write_task(task, workspace.tasks))
    elif wanted not in tasks:
        raise PageError("Choose a task from the list.", "请从列表中选择任务。", code="task-unknown")
    elif (reason := found.misfits.get(wanted)) is not None:
        raise PageError(
            f"The task {wanted} does not fit this file: {reason.en}.",
            f"任务 {wanted} 不适合该文件：{reason.zh}。",
            code="task-of-file",
        )
    else:
        task, option = tasks[wanted].task, tasks[wanted].option
    has_threshold = found.has_stars and needs_threshold(file, task)
    _check_threshold(choices, is_needed=has_threshold)
    read = FileChoices(
        file.text_column, file.label_column, None, found.threshold if has_threshold else None, choices.encoding
    ).to_read_options()
    try:
        prepare_reviews(str(source), name=name, output_dir=workspace.data, task_name=option, read=read)
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise


def _check_threshold(choices: FileChoices, *, is_needed: bool) -> None:
    """Check that a star threshold is chosen where one is needed: the page suggests one, which the user may remove.

    Raises:
        PageError: when it is not.
    """
    if is_needed and choices.star_threshold is None:
        raise PageError(*WORDS["no_threshold"], code="stars-threshold-missing")


def convert_test_file(workspace: Workspace, file: str | None, choices: FileChoices, task: Task) -> Path:
    """Write the reviews of an uploaded test file in the form of our own files, and return its path.

    Raises:
        DataError: when a row of the file cannot be used.
        ConfigError: when a choice does not fit it.
    """
    source = keep_upload(workspace, file, f"test-{Path(file or '').stem}")
    with workspace.keep_if_used(source):
        return _convert_kept(source, choices, task)


def _convert_kept(source: Path, choices: FileChoices, task: Task) -> Path:
    found = inspect_upload(source, choices, LabelWords.collect([], task))
    has_threshold = found.label_column is not None and needs_threshold(found, task)
    threshold = choose_tasks(found, {}, choices.star_threshold).threshold if has_threshold else None
    _check_threshold(choices, is_needed=threshold is not None)
    if found.label_column is not None and (reason := find_misfit(found, task, threshold)) is not None:
        raise PageError(
            f"The labels of the file do not fit the task {task.name} of the models: {reason.en}.",
            f"文件的标签不适合模型的任务 {task.name}：{reason.zh}。",
            code="task-of-file",
        )
    read = FileChoices(found.text_column, found.label_column, None, threshold, choices.encoding).to_read_options()
    reviews = read_reviews(source, task, read)
    target = source.with_name(f"{choose_name(source.parent, f'{source.stem}-read')}.csv")
    write_reviews(target, reviews, task)
    return target
