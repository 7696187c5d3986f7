"""Which token sequences of tokenised data are the answers for which label, by the task's own parser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sentifactory.engines.answers import AnswerTree, build_answer_tree
from sentifactory.errors import ConfigError, EngineError
from sentifactory.task import Task
from sentifactory.training.answer_loss import IGNORED_LABEL
from sentifactory.training.token_rows import iter_token_rows

Segment = tuple[int, ...]

# With more different answers than this the data do not ask for a label.
_MOST_ANSWERS = 1000


@dataclass(frozen=True)
class LabelAnswers:
    """The answers of tokenised data.

    Attributes:
        task: the labels and the parser.
        labels: (n,) the labels that have an answer, as indices into the task's.
        tree: where their answers part; its endings stand in the order of `labels`.
        label_of: the label of every answer that stands in the validation data.
        is_one_path: whether the right answer of every validation review passes through all places at which labels
            part, so that one pass over reviews with their right answers says what is to be known.
    """

    task: Task
    labels: tuple[int, ...]
    tree: AnswerTree
    label_of: Mapping[Segment, int]
    is_one_path: bool


def read_answers(train: Any, validation: Sequence[Any], tokenizer: Any, task: Task) -> LabelAnswers:
    """Find the answers in tokenised data sets with the column `labels`.

    Raises:
        ConfigError: when the data do not answer with labels of this task; its words fit into a sentence.
    """
    in_validation: Counter[Segment] = Counter()
    for dataset in validation:
        in_validation += _count_segments(dataset)
    everywhere = in_validation + _count_segments(train)
    if not in_validation or max(len(in_validation), len(everywhere)) > _MOST_ANSWERS:
        raise ConfigError(f"the data hold {len(everywhere)} different answers")
    parsed = {
        segment: task.parse_answer(tokenizer.decode(list(segment), skip_special_tokens=True)) for segment in everywhere
    }
    unread = sum(count for segment, count in in_validation.items() if parsed[segment] is None)
    if unread:
        total = sum(in_validation.values())
        raise ConfigError(f"{unread} of {total} validation answers state no label of the task {task.name}")
    # A label may be written in several ways (cut off, other blanks); what counts is the one taught most often.
    usual: dict[int, Segment] = {}
    for segment, _ in everywhere.most_common():
        if (label := parsed[segment]) is not None:
            usual.setdefault(label, segment)
    labels = tuple(sorted(usual))
    if len(labels) < 2:
        raise ConfigError("all answers state the same label")
    try:
        tree = build_answer_tree([usual[label] for label in labels])
    except EngineError as error:
        raise ConfigError(error.what) from error
    label_of = {segment: label for segment in in_validation if (label := parsed[segment]) is not None}
    return LabelAnswers(task, labels, tree, label_of, _is_one_path(tree, label_of))


def _is_one_path(tree: AnswerTree, segments: Mapping[Segment, int]) -> bool:
    if len(tree.longest_paths) != 1:
        return False
    path = (*tree.lead, *tree.longest_paths[0])
    return all(segment[: len(path)] == path and len(segment) > len(path) for segment in segments)


def _count_segments(dataset: Any) -> Counter[Segment]:
    """Return how often each answer stands in a tokenised data set."""
    found: Counter[Segment] = Counter()
    for (labels,) in iter_token_rows(dataset, "labels"):
        found[tuple(labels[labels != IGNORED_LABEL].tolist())] += 1
        if len(found) > _MOST_ANSWERS:
            break
    return found
