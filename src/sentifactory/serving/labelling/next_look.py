"""The command after a labelling, for users to copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.engines.model_identity import TFIDF
from sentifactory.serving.labelling.label_options import LabelRequest
from sentifactory.serving.labelling.row_files import BAD, UNSURE
from sentifactory.system.command_line import write_command
from sentifactory.task.fitting_task import find_fitting_tasks
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.task.task_choice import DATA
from sentifactory.training.run.next_comparison import SAMPLE_REVIEW


def suggest_after_labelling(request: LabelRequest, summary: Mapping[str, Any]) -> str | None:
    """Return the command that shows the labelled reviews; where none has a label, the same model's answer to a review.

    None where that answer would be to another task: one that only the manifest of the reviews names.

    Args:
        request: of the labelling.
        summary: its result.
    """
    labels = [label for label, count in summary["counts"].items() if count and label not in (BAD, UNSURE)]
    task = request.task or _name_task(summary["task"])
    if not labels or task is None:
        choice = request.choice
        is_tfidf = choice.engine_kind == TFIDF
        if task is None and not is_tfidf and summary["task"]["source"] == DATA:
            return None
        model = ("--train_csv" if is_tfidf else "--model", request.model)
        engine = None if is_tfidf else choice.vllm_url or choice.kind
        return write_command("predict", SAMPLE_REVIEW, model, ("--engine", engine), ("--task", task))
    columns = (("--text_column", summary["text_column"]), ("--label_column", summary["label_column"]))
    return write_command("data", "show", summary["output"], ("--task", task), *columns)


def _name_task(recorded: Mapping[str, Any]) -> str | None:
    """Return what `--task` calls the task of a labelling; None where it is neither built in nor in a known file."""
    if recorded["name"] == BINARY_SENTIMENT.name:
        return BINARY_SENTIMENT.name
    found = [name for name, task in find_fitting_tasks(recorded["labels"]) if list(task.labels) == recorded["labels"]]
    return found[0] if found else None
