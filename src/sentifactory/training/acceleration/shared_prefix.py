"""Finds the token ids that all prompts of a tokenised data set begin with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sentifactory.training.acceleration.answer_logits import IGNORED_LABEL, iter_token_rows

# Fewer tokens in common (such as the start of a turn) are not worth sharing.
MIN_TOKENS = 4


@dataclass(frozen=True, slots=True)
class TrainingTokens:
    """What the accelerations need to know about the data.

    Attributes:
        prefix: ids that every sample begins with; no answer token is predicted from them.
        cached_tokens: positions after the prefix whose frozen-layer output is needed, over all samples.
        shapes: (samples, 3), for each sample that has an answer: its number of tokens, one past its last position that
            predicts an answer token, and the number of such positions.
    """

    prefix: tuple[int, ...]
    cached_tokens: int
    shapes: Any = field(compare=False)


def read_tokens(dataset: Any) -> TrainingTokens:
    """Read a tokenised data set with the columns `input_ids` and `labels`."""
    import numpy as np

    prefix: Any = None
    shapes: list[tuple[int, int, int]] = []
    for ids, labels in iter_token_rows(dataset, "input_ids", "labels"):
        # Position t - 1 predicts the label at t; the label at 0 is predicted by nothing.
        answers = np.flatnonzero(labels[1:] != IGNORED_LABEL)
        if len(answers) == 0:
            continue
        shapes.append((len(ids), int(answers[-1]) + 1, len(answers)))
        prompt = ids[: answers[0]]
        if prefix is None:
            prefix = prompt.copy()
            continue
        shared = min(len(prefix), len(prompt))
        unequal = np.flatnonzero(prefix[:shared] != prompt[:shared])
        prefix = prefix[: unequal[0] if len(unequal) else shared]
    found = () if prefix is None or len(prefix) < MIN_TOKENS else tuple(prefix.tolist())
    sizes = np.array(shapes, dtype=np.int64).reshape(-1, 3)
    return TrainingTokens(found, int((sizes[:, 1] - len(found)).sum()), sizes)
