"""Computes label probabilities from token probabilities, with a prefix tree over the answers' token sequences.

`{"sentiment": 0}` and `{"sentiment": 1}` share their first and last tokens: only the tokens in between distinguish the
labels, one or more per label. The probability of a label is the product of the conditional probabilities of its own
tokens. Not covered: other tokenisations of the same answer; only the tokenizer's own, which training uses, counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

from sentifactory.errors import EngineError
from sentifactory.records import Prediction
from sentifactory.task.task import Task

Path = tuple[int, ...]
# (path, token) to the natural logarithm of the token's probability after that path.
EdgeScores = Mapping[tuple[Path, int], float]


@dataclass(frozen=True)
class AnswerTree:
    """A prefix tree of the token sequences of a task's answers.

    Attributes:
        lead: the common prefix of all answers.
        endings: (n_labels,) the tokens that identify each label; none is a prefix of another.
    """

    lead: Path
    endings: tuple[Path, ...]

    @cached_property
    def forks(self) -> dict[Path, tuple[int, ...]]:
        """The inner nodes: every path after `lead` that needs probabilities, with its possible next tokens."""
        found: dict[Path, dict[int, None]] = {}
        for ending in self.endings:
            for place, token in enumerate(ending):
                found.setdefault(ending[:place], {})[token] = None
        return {path: tuple(tokens) for path, tokens in found.items()}

    @cached_property
    def longest_paths(self) -> tuple[Path, ...]:
        """The deepest forks; forward passes over them cover all forks."""
        forks = self.forks
        return tuple(path for path in forks if not any(path == other[: len(path)] != other for other in forks))

    def sum_scores(self, scores: EdgeScores) -> tuple[float, ...]:
        """Return the log-likelihood of each label's own tokens, (n_labels,)."""
        return tuple(
            sum(scores[ending[:place], token] for place, token in enumerate(ending)) for ending in self.endings
        )

    def decode_greedily(self, scores: EdgeScores) -> int:
        """Return the label that greedy decoding, constrained to the answers, ends at."""
        path: Path = ()
        while path not in self.endings:
            best = max(self.forks[path], key=lambda token: scores[path, token])
            path = (*path, best)
        return self.endings.index(path)


def build_answer_tree(sequences: Sequence[Sequence[int]]) -> AnswerTree:
    """Return the prefix tree of token sequences.

    Args:
        sequences: (n_labels,) the tokens of each answer.

    Raises:
        EngineError: when one answer's tokens equal or begin another's.

    Example:
        >>> build_answer_tree([[7, 8, 0, 9], [7, 8, 1, 1, 9]])
        AnswerTree(lead=(7, 8), endings=((0,), (1, 1)))
    """
    answers = [tuple(sequence) for sequence in sequences]
    if not _are_apart(answers):
        raise EngineError(
            "The model's tokenizer cannot distinguish the answers of the task",
            expected="answers of which none is a prefix of another in tokens",
            next_step="choose other answer values for the task",
            code="answers-alike",
        )
    n_lead = count_common(answers)
    endings = [answer[n_lead:] for answer in answers]
    # Drop the common suffix, unless a shorter label needs it to end.
    while len({ending[-1:] for ending in endings}) == 1 and _are_apart([ending[:-1] for ending in endings]):
        endings = [ending[:-1] for ending in endings]
    return AnswerTree(answers[0][:n_lead], tuple(endings))


def _are_apart(paths: Sequence[Path]) -> bool:
    return not any(one == other[: len(one)] for i, one in enumerate(paths) for j, other in enumerate(paths) if i != j)


def count_common(sequences: Sequence[Sequence[int]]) -> int:
    """Return the length of the common prefix of all sequences."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False)))


def normalise_scores(log_likelihoods: Sequence[float]) -> tuple[float, ...]:
    """Return the softmax of log-likelihoods.

    Example:
        >>> [round(share, 2) for share in normalise_scores([math.log(0.1), math.log(0.3)])]
        [0.25, 0.75]
    """
    highest = max(log_likelihoods)
    if highest == -math.inf:  # no label is possible: uniform
        return (1 / len(log_likelihoods),) * len(log_likelihoods)
    weights = [math.exp(score - highest) for score in log_likelihoods]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def read_scores(tree: AnswerTree, scores: EdgeScores, task: Task, mode: str, latency_s: float) -> Prediction:
    """Return the prediction in mode `score` or `constrain` from the log-probabilities at all forks.

    NaN among them counts as no answer.
    """
    if any(map(math.isnan, scores.values())):
        return Prediction(None, latency_s=latency_s)
    if mode == "constrain":
        label = tree.decode_greedily(scores)
        return Prediction(label, raw=task.render_answer(label), latency_s=latency_s)
    log_likelihoods = tree.sum_scores(scores)
    probabilities = normalise_scores(log_likelihoods)
    label = log_likelihoods.index(max(log_likelihoods))
    return Prediction(label, probabilities, latency_s=latency_s, log_likelihoods=log_likelihoods)
