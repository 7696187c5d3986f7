"""Two alternative losses, off by default, that learn the label sooner (`--loss label`, `--loss mixed`).

`{"sentiment": 1}` and the end of turn are eight tokens, of which one states the label; the other seven are the same
for every review, and after a few steps they only dilute the mean. The loss of a step is the mean negative
log-likelihood over the tokens that are learned in it, in all its batches:

- `label`: only the tokens that distinguish the labels. This is the quantity that the mode `score` compares. The model
  does not learn to write the answer: ask it in the mode `score` or `constrain`.
- `mixed`: one review in ten learns its whole answer, the others as with `label`, so the model also learns to write.
  It needs logits for 1.7 tokens of a review on average instead of eight, and no other loss function. It is close to
  weighting the tokens of the format in every review by a tenth of the label's, but not the same: a step divides by the
  number of its own tokens, so a token counts for less in a step with more whole answers. Over many steps a token of
  the format has, in expectation, 0.062 times the weight of a label token with 8 reviews a step, 0.078 times with 16,
  0.089 times with 32, and a tenth in the limit: E[k / (n + 7k)] / E[n / (n + 7k)] for n reviews a step, of which k,
  binomially distributed with probability 0.1, learn their whole answer.

Which reviews learn the whole answer depends only on a hash of the token ids of the prompt: not on order, batch, epoch,
packing, device or label. Neither is LLaMA-Factory's loss.

The tokens are found in the training data: the few distinct answers, and the positions at which they differ
(`engines.answer_tokens`). A transform of the data set masks the labels of all other tokens, so that means, gradient
accumulation, class weights and accelerations count only the rest. Evaluation during training keeps the loss of the
whole answer. Not covered: streamed data, free-text answers, and a prompt that is itself trained (`train_on_prompt`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sentifactory.engines.answer_tokens import build_answer_tree
from sentifactory.errors import ConfigError
from sentifactory.system.progress import say
from sentifactory.training.acceleration.answer_logits import (
    IGNORED_LABEL,
    LABEL,
    LOSSES,
    MIXED,
    WHOLE_ANSWER,
    iter_token_rows,
)
from sentifactory.training.run.progress_callback import BaseCallback

# More distinct answers than this are free text.
MAX_ANSWERS = 64
# With the loss `mixed`, one review in so many learns its whole answer.
REVIEWS_PER_WHOLE_ANSWER = 10
# For the run card.
DEFINITIONS = {
    WHOLE_ANSWER: "mean negative log-likelihood of all tokens of the answer",
    LABEL: "mean negative log-likelihood of the tokens that distinguish the labels",
    MIXED: "mean negative log-likelihood of the tokens that distinguish the labels, and of all tokens of the answer "
    f"for one review in {REVIEWS_PER_WHOLE_ANSWER} (blake2b-64 of its prompt's token ids, all little-endian 64-bit "
    f"integers, modulo {REVIEWS_PER_WHOLE_ANSWER} is 0)",
}

Tokens = tuple[int, ...]


def choose_callbacks(loss: str) -> list[BaseCallback]:
    """Return the callbacks that a loss needs.

    Raises:
        ConfigError: when there is no such loss.
    """
    if loss not in LOSSES:
        raise ConfigError(
            f"There is no loss {loss!r}", where="loss", expected=" or ".join(LOSSES), code="option-value"
        )
    return [] if loss == WHOLE_ANSWER else [LabelLossCallback(loss)]


class LabelLossCallback(BaseCallback):
    """Masks the labels of the tokens that are not learned.

    Args:
        loss: `label` or `mixed`.
    """

    def __init__(self, loss: str) -> None:
        self._loss = loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Install the transform, before the first batch is built.

        Raises:
            ConfigError: when the data are streamed or free text.
        """
        dataset = getattr(kwargs["train_dataloader"], "dataset", None)
        if not {"input_ids", "labels"} <= set(getattr(dataset, "column_names", None) or ()):
            raise ConfigError(
                f"--loss {self._loss} needs tokenised data that is not streamed", where="loss", code="option-value"
            )
        spans = find_label_spans(collect_answers(dataset))
        kept = sum(end - start for start, end in spans.values())
        total = sum(map(len, spans))
        say(f"Loss: {kept} of the {total} tokens of the {len(spans)} different answers distinguish the labels.")
        is_mixed = self._loss == MIXED
        if is_mixed:
            n_whole, n_reviews = count_whole_answers(dataset)
            say(f"Loss: {n_whole} of {n_reviews} reviews learn the whole answer, the others only these tokens.")

        def mask(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            rows = zip(batch["input_ids"], batch["labels"], strict=True)
            return {**batch, "labels": [mask_format(ids, labels, spans, is_mixed=is_mixed) for ids, labels in rows]}

        assert dataset is not None  # noqa: S101  (it has columns)
        dataset.set_transform(mask)


def collect_answers(dataset: Any) -> set[Tokens]:
    """Return the different answers of a tokenised data set.

    Raises:
        ConfigError: when there are too many of them.
    """
    answers: set[Tokens] = set()
    for (row,) in iter_token_rows(dataset, "labels"):
        labels = row.tolist()
        answers |= {tuple(labels[start:end]) for start, end in find_answer_spans(labels)}
        if len(answers) > MAX_ANSWERS:
            raise ConfigError(
                f"The training data contain more than {MAX_ANSWERS} different answers",
                where="loss",
                expected="the few answers of a task",
                next_step="train with --loss answer",
                code="answers-many",
            )
    return answers


def find_answer_spans(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield start and end of every answer in a row of labels; a packed row holds several.

    Example:
        >>> list(find_answer_spans([-100, 5, 6, -100, 7]))
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
    """Return start and end, within each answer, of the tokens that distinguish it from the others.

    Raises:
        ConfigError: when all answers are the same.
        EngineError: when one answer is a prefix of another (a truncated sample).

    Example:
        >>> find_label_spans({(7, 8, 0, 9), (7, 8, 1, 9)})[7, 8, 1, 9]
        (2, 3)
    """
    if len(answers) < 2:
        raise ConfigError(
            "All reviews of the training data have the same answer",
            where="loss",
            expected="two labels or more",
            code="labels-too-few",
        )
    ordered = sorted(answers)
    tree = build_answer_tree(ordered)
    start = len(tree.lead)
    return {answer: (start, start + len(own)) for answer, own in zip(ordered, tree.endings, strict=True)}


def mask_format(
    ids: Sequence[int], labels: Sequence[int], spans: Mapping[Tokens, tuple[int, int]], *, is_mixed: bool = False
) -> list[int]:
    """Return the labels (T,) with all tokens but the label's own ignored.

    Args:
        ids: (T,) token ids of a row, which may hold several reviews.
        labels: (T,) of the row.
        spans: from `find_label_spans`.
        is_mixed: whether the answers of some reviews (`learns_whole_answer`) are kept whole.

    Example:
        >>> mask_format([5, 7, 8, 1, 9], [-100, 7, 8, 1, 9], {(7, 8, 1, 9): (2, 3)})
        [-100, -100, -100, 1, -100]
    """
    hidden = [IGNORED_LABEL] * len(labels)
    for start, end, is_whole in find_reviews(ids, labels):
        first, last = (0, end - start) if is_mixed and is_whole else spans[tuple(labels[start:end])]
        hidden[start + first : start + last] = labels[start + first : start + last]
    return hidden


def find_reviews(ids: Sequence[int], labels: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """Yield for every review in a row: start and end of its answer, and whether `mixed` learns that answer whole."""
    prompt_start = 0
    for start, end in find_answer_spans(labels):
        yield start, end, learns_whole_answer(ids[prompt_start:start])
        prompt_start = end


def learns_whole_answer(prompt: Sequence[int]) -> bool:
    """Return whether the review with these prompt tokens learns its whole answer under the loss `mixed`.

    Example:
        >>> [number for number in range(20) if learns_whole_answer([2, 105, number])]
        [5, 14, 15, 17]
    """
    import numpy as np

    content = np.asarray(prompt, dtype="<i8").tobytes()
    number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return number % REVIEWS_PER_WHOLE_ANSWER == 0


def count_whole_answers(dataset: Any) -> tuple[int, int]:
    """Return how many reviews of a tokenised data set learn their whole answer, and how many there are."""
    are_whole = [
        is_whole
        for ids, labels in iter_token_rows(dataset, "input_ids", "labels")
        for _, _, is_whole in find_reviews(ids, labels.tolist())
    ]
    return sum(are_whole), len(are_whole)
