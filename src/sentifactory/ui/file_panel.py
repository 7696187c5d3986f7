"""The controls of an uploaded file: its first rows, the columns, task, star threshold and encoding.

They appear once a file is uploaded, filled with what the file itself suggests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sentifactory.bilingual import Picker, Sentence, name_label
from sentifactory.errors import SentiFactoryError
from sentifactory.ui.choice_lists import make_choice_list
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.offered_tasks import NEW_TASK, FileTasks, find_misfit, needs_threshold
from sentifactory.ui.page_words import DEFAULT_LANGUAGE, say
from sentifactory.ui.uploaded_file import COLUMN_CODES, FileChoices, UploadedFile
from sentifactory.ui.views import show_error, show_labels, show_upload

if TYPE_CHECKING:
    from sentifactory.task.task import Task
    from sentifactory.ui.page import PageBuilder

_ENCODINGS = ("utf-8", "gb18030", "big5", "utf-16")
DETECTED = ""


class FilePanel:
    """The controls of one upload.

    Args:
        builder: of the page.
        prefix: of the ids of the controls: `train` or `compare`.
        key: of the upload's label in WORDS.
        read_task: returns the task of what else is chosen, from the values of `others`; None: the user chooses it.
        others: the components that decide on that task.
    """

    def __init__(
        self,
        builder: PageBuilder,
        prefix: str,
        key: str,
        read_task: Callable[..., Task | None] | None = None,
        others: tuple[Any, ...] = (),
    ) -> None:
        gr = builder.gradio
        self._gradio, self._actions, self._read_task = gr, builder.actions, read_task
        self.file = builder.add(gr.File, key, type="filepath", elem_id=f"{prefix}-file")
        self.preview = gr.HTML(visible=False, elem_id=f"{prefix}-rows")
        with gr.Group(visible=False) as self.group:
            with gr.Row():
                self.text = self._add_choice(builder, "text_column", prefix)
                self.label = self._add_choice(builder, "label_column", prefix)
                self.encoding = self._add_choice(
                    builder, "encoding", prefix, choices=list_encodings(DEFAULT_LANGUAGE), value=DETECTED
                )
            with gr.Row():
                self.task = self._add_choice(builder, "task", prefix, visible=read_task is None)
                self.threshold = builder.add(
                    gr.Number, "star_threshold", visible=False, elem_id=f"{prefix}-star_threshold"
                )
        self.labels = gr.HTML(visible=False, elem_id=f"{prefix}-labels")
        self.inputs = [self.text, self.label, self.task, self.threshold, self.encoding]
        outputs = [self.preview, self.group, *self.inputs, self.labels]
        quiet: dict[str, Any] = {"show_progress": "minimal"}
        # Another file begins anew; the user's choices are kept while they are changed one by one.
        begin = [self.file, builder.language, *others]
        self.file.change(lambda file, *rest: self._show(file, [None] * 5, *rest), begin, outputs, **quiet)
        read = [self.file, *self.inputs, builder.language, *others]
        for component in self.inputs:
            listen = component.submit if component is self.threshold else component.input
            listen(lambda file, *rest: self._show(file, list(rest[:5]), *rest[5:]), read, outputs, **quiet)
        for component in (builder.language, *others):
            component.change(lambda file, *rest: self._show(file, list(rest[:5]), *rest[5:]), read, outputs, **quiet)

    @staticmethod
    def _add_choice(builder: PageBuilder, key: str, prefix: str, **options: Any) -> Any:
        options = {"choices": [], "value": None} | options
        return builder.add(make_choice_list(), key, elem_id=f"{prefix}-{key}", **options)

    def _show(self, file: str | None, chosen: list[Any], language: str, *others: Any) -> list[Any]:
        """Return the updates of all controls for a file and the choices so far."""
        gr = self._gradio
        if not file:
            hidden = gr.update(visible=False)
            return [hidden, hidden, *[gr.skip()] * 5, hidden]
        choices = read_choices(chosen)
        wanted = self._read_task(*others) if self._read_task is not None else None
        try:
            found, tasks = self._actions.inspect(file, choices, wanted)
        except SentiFactoryError as error:
            shown = gr.update(value=show_error(error), visible=True)
            if isinstance(error, PageError) and error.code in COLUMN_CODES:  # the columns stay to be changed
                return [*[gr.skip()] * 7, shown]
            hidden = gr.update(visible=False)  # what is shown of an earlier file; the encoding can be chosen still
            return [shown, gr.update(visible=True), *[hidden] * 4, gr.skip(), hidden]
        task = choices.task if choices.task in (*tasks.fitting, NEW_TASK) else tasks.chosen
        chosen_task = self._find_task(task, tasks, others)
        has_threshold = tasks.has_stars and chosen_task is not None and needs_threshold(found, chosen_task)
        columns = list(found.columns)
        return [
            gr.update(value=show_upload(found), visible=True),
            gr.update(visible=True),
            gr.update(choices=columns, value=found.text_column, visible=bool(columns)),
            gr.update(choices=columns, value=found.label_column, visible=bool(columns)),
            gr.update(choices=self._list_tasks(tasks, language), value=task, visible=self._read_task is None),
            gr.update(value=tasks.threshold, visible=has_threshold),
            gr.update(
                choices=list_encodings(language),
                value=choices.encoding or DETECTED,
                visible=found.encoding is not None,
            ),
            gr.update(value=self._show_labels(found, tasks, task, chosen_task), visible=True),
        ]

    def _find_task(self, name: str | None, tasks: FileTasks, others: tuple[Any, ...]) -> Task | None:
        if self._read_task is not None:
            return self._read_task(*others)
        offered = self._actions.find_tasks().get(name or "")
        return None if offered is None else offered.task

    def _show_labels(self, file: UploadedFile, tasks: FileTasks, name: str | None, task: Task | None) -> str:
        if self._read_task is None:
            return show_labels(file, tasks=tasks, task=name)
        reason = advice = None
        if task is not None and file.label_column is not None:
            reason = find_misfit(file, task, tasks.threshold)
        if reason is not None:
            advice = self._advise(file, tasks.threshold)
        none = FileTasks((), {}, (), tasks.has_stars, tasks.threshold, None)
        return show_labels(file, reason=reason, advice=advice, tasks=none)

    def _advise(self, file: UploadedFile, threshold: float | None) -> Sentence:
        """Return which models have the labels of a file that the chosen one does not have."""
        names = []
        for name in self._actions.find_models():
            with contextlib.suppress(SentiFactoryError):  # a task that cannot be read
                task = self._actions.find_model_task(name)
                if task is not None and find_misfit(file, task, threshold) is None:
                    names.append(name)
        if names:
            return Sentence.write(
                f"These tuned models have the labels of the file: {', '.join(names)}.",
                f"以下微调模型的标签与文件相符：{'、'.join(names)}。",
            )
        return Sentence(
            "No model here has the labels of the file. Train one with this file first.",
            "这里没有标签与文件相符的模型，请先用该文件训练一个。",
        )

    def _list_tasks(self, tasks: FileTasks, language: str) -> list[tuple[str, str]]:
        known = self._actions.find_tasks()
        pick = Picker(language)
        comma, colon = pick(", ", "、"), pick(": ", "：")
        listed = [
            (f"{comma.join(pick(*name_label(label)) for label in known[name].task.labels)} · {name}", name)
            for name in tasks.fitting
        ]
        if tasks.labels:
            listed.append((f"{say('new_task', language)}{colon}{comma.join(tasks.labels)}", NEW_TASK))
        return listed


def read_choices(values: list[Any]) -> FileChoices:
    """Return the choices in the values of the controls, in the order of `FilePanel.inputs`."""
    text, label, task, threshold, encoding = values
    return FileChoices(text or None, label or None, task or None, threshold, encoding or None)


def list_encodings(language: str) -> list[tuple[str, str]]:
    """Return the encodings to choose from, with their names in a language.

    Example:
        >>> list_encodings("en")[:2]
        [('detect', ''), ('UTF-8', 'utf-8')]
    """
    return [(say("encoding_auto", language), DETECTED), *((name.upper(), name) for name in _ENCODINGS)]
