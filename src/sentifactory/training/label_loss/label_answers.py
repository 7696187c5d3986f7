"""Maps the answers in tokenised data to labels, by the task's own parser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sentifactory.engines.answer_tokens import AnswerTree, build_answer_tree
from sentifactory.errors import ConfigError, EngineError
from sentifactory.task.task import Task
from sentifactory.training.acceleration.answer_logits import IGNORED_LABEL, iter_token_rows

Segment = tuple[int, ...]

# More distinct answers than this are free text.
_MAX_ANSWERS = 1000


@dataclass(frozen=True)
class LabelAnswers:
    """The answers of tokenised data.

    Attributes:
        task: defines the labels and the parser.
        labels: (n,) indices of the labels that have an answer.
        tree: of their answers, in the order of `labels`.
        label_of: the label of every answer in the validation data.
        is_one_path: whether the correct answer of every validation review contains all forks of the tree, so that one
            forward pass over it scores every label.
    """

    task: Task
    labels: tuple[int, ...]
    tree: AnswerTree
    label_of: Mapping[Segment, int]
    is_one_path: bool


def read_answers(train: Any, validation: Sequence[Any], tokenizer: Any, task: Task) -> LabelAnswers:
    """Find the answers in tokenised data sets with the column `labels`.

    Raises:
        ConfigError: when the answers are not labels of this task; the message is a clause.
    """
    in_validation: Counter[Segment] = Counter()
    for dataset in validation:
        in_validation += _count_segments(dataset)
    everywhere = in_validation + _count_segments(train)
    if not in_validation or max(len(in_validation), len(everywhere)) > _MAX_ANSWERS:
        raise ConfigError(f"the data contain {len(everywhere)} different answers", code="answers-of-task")
    parsed = {
        segment: task.parse_answer(tokenizer.decode(list(segment), skip_special_tokens=True)) for segment in everywhere
    }
    n_unparsed = sum(count for segment, count in in_validation.items() if parsed[segment] is None)
    if n_unparsed:
        total = sum(in_validation.values())
        raise ConfigError(
            f"{n_unparsed} of {total} validation answers state no label of the task {task.name}",
            code="answers-of-task",
        )
    # A label may have several spellings (truncated, other whitespace); the most frequent one is scored.
    answer_of: dict[int, Segment] = {}
    for segment, _ in everywhere.most_common():
        if (label := parsed[segment]) is not None:
            answer_of.setdefault(label, segment)
    labels = tuple(sorted(answer_of))
    if len(labels) < 2:
        raise ConfigError("all answers state the same label", code="answers-of-task")
    try:
        tree = build_answer_tree([answer_of[label] for label in labels])
    except EngineError as error:
        raise ConfigError(error.what, code="answers-of-task") from error
    label_of = {segment: label for segment in in_validation if (label := parsed[segment]) is not None}
    return LabelAnswers(task, labels, tree, label_of, _is_one_path(tree, label_of))


def _is_one_path(tree: AnswerTree, segments: Mapping[Segment, int]) -> bool:
    if len(tree.longest_paths) != 1:
        return False
    path = (*tree.lead, *tree.longest_paths[0])
    return all(segment[: len(path)] == path and len(segment) > len(path) for segment in segments)


def _count_segments(dataset: Any) -> Counter[Segment]:
    """Return the number of occurrences of each answer in a tokenised data set."""
    found: Counter[Segment] = Counter()
    for (labels,) in iter_token_rows(dataset, "labels"):
        found[tuple(labels[labels != IGNORED_LABEL].tolist())] += 1
        if len(found) > _MAX_ANSWERS:
            break
    return found
