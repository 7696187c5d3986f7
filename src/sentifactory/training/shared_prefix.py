"""Finds the token ids with which all prompts of a tokenised data set begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sentifactory.training.answer_loss import IGNORED_LABEL
from sentifactory.training.token_rows import iter_token_rows

# With fewer tokens in common (a system token, the beginning of a turn) there is nothing to share.
LEAST_TOKENS = 4


@dataclass(frozen=True, slots=True)
class TrainingTokens:
    """What the accelerations must know of the data.

    Attributes:
        prefix: ids that every sample begins with, and that no answer token is predicted from.
        kept_tokens: positions after the prefix whose trunk output is needed, over all samples.
        shapes: (samples, 3) of each sample that has an answer: its tokens, one more than its last position that
            predicts an answer token, and the number of these positions.
    """

    prefix: tuple[int, ...]
    kept_tokens: int
    shapes: Any = field(compare=False)


def read_tokens(dataset: Any) -> TrainingTokens:
    """Go once through a tokenised data set with the columns `input_ids` and `labels`."""
    import numpy as np

    prefix: Any = None
    shapes: list[tuple[int, int, int]] = []
    for ids, labels in iter_token_rows(dataset, "input_ids", "labels"):
        # Position t - 1 predicts the label at t; the label at 0 is predicted by nothing.
        answers = np.flatnonzero(labels[1:] != IGNORED_LABEL)
        if len(answers) == 0:
            continue
        shapes.append((len(ids), int(answers[-1]) + 1, len(answers)))
        beginning = ids[: answers[0]]
        if prefix is None:
            prefix = beginning.copy()
            continue
        shared = min(len(prefix), len(beginning))
        unequal = np.flatnonzero(prefix[:shared] != beginning[:shared])
        prefix = prefix[: unequal[0] if len(unequal) else shared]
    found = () if prefix is None or len(prefix) < LEAST_TOKENS else tuple(prefix.tolist())
    made = np.array(shapes, dtype=np.int64).reshape(-1, 3)
    return TrainingTokens(found, int((made[:, 1] - len(found)).sum()), made)
