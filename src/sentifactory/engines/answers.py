"""Where the token sequences of a task's answers part, and what the probabilities of those tokens say about a label.

`{"sentiment": 0}` and `{"sentiment": 1}` share their first tokens and their last: only the tokens in between tell the
labels apart. They may be one token or several, and as many as a label needs. The probability of a label is the product
of the probabilities of its own tokens, each after the tokens before it. Not covered: other ways of cutting the same
words into tokens; what counts is the one that training teaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

from sentifactory.errors import EngineError
from sentifactory.records import Prediction
from sentifactory.task import Task

Path = tuple[int, ...]
# Natural logarithm of the probability of a token after a path; both stand in the key.
EdgeScores = Mapping[tuple[Path, int], float]


@dataclass(frozen=True)
class AnswerTree:
    """The token sequences of a task's answers.

    Attributes:
        lead: the tokens that begin every answer.
        endings: (n_labels,) what tells each label from the others; none is the beginning of another.
    """

    lead: Path
    endings: tuple[Path, ...]

    @cached_property
    def forks(self) -> dict[Path, tuple[int, ...]]:
        """Every path after `lead` at which a probability is needed, with the tokens that go on from there."""
        found: dict[Path, dict[int, None]] = {}
        for ending in self.endings:
            for place, token in enumerate(ending):
                found.setdefault(ending[:place], {})[token] = None
        return {path: tuple(tokens) for path, tokens in found.items()}

    @cached_property
    def longest_paths(self) -> tuple[Path, ...]:
        """The forks that no other fork goes on from: whoever computes them passes through all forks."""
        forks = self.forks
        return tuple(path for path in forks if not any(path == other[: len(path)] != other for other in forks))

    def sum_scores(self, scores: EdgeScores) -> tuple[float, ...]:
        """Return the log-likelihood of each label's own tokens, (n_labels,)."""
        return tuple(
            sum(scores[ending[:place], token] for place, token in enumerate(ending)) for ending in self.endings
        )

    def walk_greedily(self, scores: EdgeScores) -> int:
        """Return the label at which greedy decoding arrives that may only write answers."""
        path: Path = ()
        while path not in self.endings:
            best = max(self.forks[path], key=lambda token: scores[path, token])
            path = (*path, best)
        return self.endings.index(path)


def build_answer_tree(sequences: Sequence[Sequence[int]]) -> AnswerTree:
    """Return where token sequences part.

    Args:
        sequences: (n_labels,) the tokens of each answer.

    Raises:
        EngineError: when two answers have the same tokens, or one is the beginning of another.

    Example:
        >>> build_answer_tree([[7, 8, 0, 9], [7, 8, 1, 1, 9]])
        AnswerTree(lead=(7, 8), endings=((0,), (1, 1)))
    """
    answers = [tuple(sequence) for sequence in sequences]
    if not _are_apart(answers):
        raise EngineError(
            "The model's tokenizer does not tell the answers of the task apart",
            expected="answers of which none is the beginning of another in tokens",
            next_step="give the task other answer values",
        )
    n_lead = count_common(answers)
    endings = [answer[n_lead:] for answer in answers]
    # What all end with tells nothing apart, unless a shorter label needs it to say that it is over.
    while len({ending[-1:] for ending in endings}) == 1 and _are_apart([ending[:-1] for ending in endings]):
        endings = [ending[:-1] for ending in endings]
    return AnswerTree(answers[0][:n_lead], tuple(endings))


def _are_apart(paths: Sequence[Path]) -> bool:
    return not any(one == other[: len(one)] for i, one in enumerate(paths) for j, other in enumerate(paths) if i != j)


def count_common(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all sequences have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False)))


def normalise_scores(log_likelihoods: Sequence[float]) -> tuple[float, ...]:
    """Return probabilities that sum to 1, in the ratio of likelihoods given by their logarithms.

    Example:
        >>> [round(share, 2) for share in normalise_scores([math.log(0.1), math.log(0.3)])]
        [0.25, 0.75]
    """
    highest = max(log_likelihoods)
    if highest == -math.inf:  # none of them is possible: nothing is known
        return (1 / len(log_likelihoods),) * len(log_likelihoods)
    weights = [math.exp(score - highest) for score in log_likelihoods]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def read_scores(tree: AnswerTree, scores: EdgeScores, task: Task, mode: str, latency_s: float) -> Prediction:
    """Return the prediction of the modes `score` and `constrain` from the log-probabilities at all forks.

    Where these are no numbers, the model has given no answer.
    """
    if any(map(math.isnan, scores.values())):
        return Prediction(None, latency_s=latency_s)
    if mode == "constrain":
        label = tree.walk_greedily(scores)
        return Prediction(label, raw=task.render_answer(label), latency_s=latency_s)
    log_likelihoods = tree.sum_scores(scores)
    probabilities = normalise_scores(log_likelihoods)
    label = log_likelihoods.index(max(log_likelihoods))
    return Prediction(label, probabilities, latency_s=latency_s, log_likelihoods=log_likelihoods)
