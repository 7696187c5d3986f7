"""Another loss, off by default: only the tokens that tell the labels apart are learnt, and not the answer's form.

Of `{"sentiment": 1}` and an end of turn, eight tokens, one states the label; the other seven are the same for every
review, and after a few steps they only dilute the mean. With this loss the gradient is that of the label alone: the
negative log-likelihood that the mode `score` weighs. It is not LLaMA-Factory's loss, and a model that was trained with
it alone has not learnt to write the answer: ask it by `score` or `constrain`.

Which tokens these are is read off the training data: the few different answers in it, and where they part
(`engines.answers`). The labels of all other tokens are hidden from the trainer by a transform of its data set, so that
means, gradient accumulation and accelerations count what is left. The evaluation during training keeps the loss of the
whole answer. Not covered: streamed data, and answers that are free text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sentifactory.engines.answers import build_answer_tree
from sentifactory.errors import ConfigError
from sentifactory.progress import say
from sentifactory.training.answer_loss import IGNORED_LABEL, LABEL, LOSSES
from sentifactory.training.token_rows import iter_token_rows
from sentifactory.training.watching import TrainerListener

# A task has a few answers; more than this are free text.
MOST_ANSWERS = 64

Tokens = tuple[int, ...]


def choose_listeners(loss: str) -> list[TrainerListener]:
    """Return the callbacks that a loss needs.

    Raises:
        ConfigError: when there is no such loss.
    """
    if loss not in LOSSES:
        raise ConfigError(f"There is no loss {loss!r}", where="loss", expected=" or ".join(LOSSES))
    return [LabelLoss()] if loss == LABEL else []


class LabelLoss(TrainerListener):
    """Leaves only the label's own tokens to the trainer."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hide the other labels, before the first batch is made.

        Raises:
            ConfigError: when the data have no few fixed answers.
        """
        dataset = getattr(kwargs["train_dataloader"], "dataset", None)
        if not {"input_ids", "labels"} <= set(getattr(dataset, "column_names", None) or ()):
            raise ConfigError("The loss of the label alone needs tokenised data that are not streamed", where="loss")
        spans = find_label_spans(read_answers(dataset))
        kept = sum(end - start for start, end in spans.values())
        say(
            f"Loss: {kept} of the {sum(map(len, spans))} tokens of the {len(spans)} different answers tell the labels."
        )

        def hide(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            return {**batch, "labels": [hide_form(labels, spans) for labels in batch["labels"]]}

        assert dataset is not None  # noqa: S101  (it has columns)
        dataset.set_transform(hide)


def read_answers(dataset: Any) -> set[Tokens]:
    """Return the different answers of a tokenised data set.

    Raises:
        ConfigError: when there are too many of them.
    """
    answers: set[Tokens] = set()
    for (row,) in iter_token_rows(dataset, "labels"):
        labels = row.tolist()
        answers |= {tuple(labels[start:end]) for start, end in find_runs(labels)}
        if len(answers) > MOST_ANSWERS:
            raise ConfigError(
                f"The training data hold more than {MOST_ANSWERS} different answers",
                where="loss",
                expected="the few answers of a task",
                next_step="train with the loss of the whole answer",
            )
    return answers


def find_runs(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield begin and end of every answer in a row of labels; a packed row holds several.

    Example:
        >>> list(find_runs([-100, 5, 6, -100, 7]))
        [(1, 3), (4, 5)]
    """
    start = None
    for place, label in enumerate([*labels, IGNORED_LABEL]):
        if label != IGNORED_LABEL and start is None:
            start = place
        if label == IGNORED_LABEL and start is not None:
            yield start, place
            start = None


def find_label_spans(answers: set[Tokens]) -> dict[Tokens, tuple[int, int]]:
    """Return begin and end, within each answer, of the tokens that tell it from the others.

    Raises:
        ConfigError: when all answers are alike.
        EngineError: when one answer is the beginning of another (a review that was cut off in its answer).

    Example:
        >>> find_label_spans({(7, 8, 0, 9), (7, 8, 1, 9)})[7, 8, 1, 9]
        (2, 3)
    """
    if len(answers) < 2:
        raise ConfigError(
            "All reviews of the training data have the same answer", where="loss", expected="two labels or more"
        )
    ordered = sorted(answers)
    tree = build_answer_tree(ordered)
    start = len(tree.lead)
    return {answer: (start, start + len(own)) for answer, own in zip(ordered, tree.endings, strict=True)}


def hide_form(labels: Sequence[int], spans: Mapping[Tokens, tuple[int, int]]) -> list[int]:
    """Return the labels (T,) with all but the label's own tokens ignored.

    Example:
        >>> hide_form([-100, 7, 8, 1, 9], {(7, 8, 1, 9): (2, 3)})
        [-100, -100, -100, 1, -100]
    """
    hidden = [IGNORED_LABEL] * len(labels)
    for start, end in find_runs(labels):
        first, last = spans[tuple(labels[start:end])]
        hidden[start + first : start + last] = labels[start + first : start + last]
    return hidden
