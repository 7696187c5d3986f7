"""Label accuracy and macro-F1 on the validation reviews, computed from LLaMA-Factory's own evaluation.

LLaMA-Factory evaluates the loss and, on request, token accuracy; neither is the share of reviews that get the right
label. To compute the loss it runs the model over each review with its correct answer. The logits of that pass at the
position where the answers fork contain the score of every label, so no further computation is needed, and all
accelerations apply. Only where labels fork at several positions (words of several tokens) a second pass scores the
other answers. The label is the one that the engines' mode `score` would choose. With several processes each scores its
reviews; accelerate gathers the labels, and drops the reviews that the sampler repeats to give every process as many.
Not covered: several devices in one process, packing, generated text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sentifactory.engines.answer_tokens import Path
from sentifactory.training.acceleration.answer_logits import IGNORED_LABEL
from sentifactory.training.acceleration.sharding import find_sharding
from sentifactory.training.label_loss.label_answers import LabelAnswers
from sentifactory.training.run.progress_callback import LABEL_ACCURACY, MACRO_F1

_NO_LABEL = -1


def find_obstacle_to_labels(settings: Mapping[str, Any], args: Any) -> str | None:
    """Return why the labels of validation reviews cannot be scored in this run, or None."""
    if settings.get("stage", "sft") != "sft":
        return f"the stage {settings['stage']} has no labels"
    if settings.get("packing") or settings.get("neat_packing"):
        return "several reviews are packed into one row"
    if settings.get("streaming"):
        return "streamed data cannot be inspected beforehand"
    if settings.get("predict_with_generate"):
        return "predict_with_generate compares generated text"
    if args.n_gpu > 1:
        return "one process trains on several devices"
    if (kind := find_sharding(args)) and args.world_size > 1:
        return f"it is not proven with {kind}"
    return None


class LabelScores:
    """Collects the predicted labels of one evaluation.

    Args:
        answers: the answers in the tokenised data.
    """

    def __init__(self, answers: LabelAnswers) -> None:
        self.answers = answers
        self._pairs: list[tuple[int, int | None]] = []

    def reset(self) -> None:
        """Discard the previous evaluation."""
        self._pairs = []

    def add_batch(
        self, model: Any, inputs: Mapping[str, Any], logits: Any, gather: Callable[[Any], Any] | None = None
    ) -> None:
        """Add the predicted labels of a batch, and those of the batches of the other processes.

        Args:
            model: runs a second time where one pass does not score every label.
            inputs: `input_ids`, `attention_mask` and `labels`, each (B, T).
            logits: (B, T, V), or (1, R, V) for the positions that predict an answer token and some that are not used.
            gather: returns the rows of all processes for those of this one, without repeated reviews.
        """
        import torch

        labels = inputs["labels"]
        tree = self.answers.tree
        if self.answers.is_one_path:
            owners = [(review, tree.longest_paths[0]) for review in range(len(labels))]
            scores = self._read_fork_scores(labels, logits, owners, len(tree.lead))
        else:
            rows, owners = self._expand_paths(inputs)
            scores = self._read_fork_scores(rows["labels"], model(**rows).logits, owners, 0)
        pairs = torch.full((len(labels), 2), _NO_LABEL, dtype=torch.int64)
        for place, (row, score) in enumerate(zip(labels.cpu(), scores, strict=True)):
            pairs[place, 0] = self.answers.label_of[tuple(row[row != IGNORED_LABEL].tolist())]
            if (chosen := self._choose(score)) is not None:
                pairs[place, 1] = chosen
        if gather is not None:
            pairs = gather(pairs.to(labels.device))
        self._pairs += [(truth, None if chosen == _NO_LABEL else chosen) for truth, chosen in pairs.tolist()]

    def compute_metrics(self, prefix: str) -> dict[str, float]:
        """Return accuracy and macro-F1 over the task's labels, under their names in the log."""
        import numpy as np

        from sentifactory.metrics.bootstrap import score_tables

        if not self._pairs:
            return {}
        n_labels = len(self.answers.task.labels)
        table = np.zeros((1, n_labels, n_labels + 1), dtype=int)  # the last column: no label
        for truth, answer in self._pairs:
            table[0, truth, n_labels if answer is None else answer] += 1
        figures = score_tables(table)
        return {
            f"{prefix}_{MACRO_F1}": float(figures["macro_f1"][0]),
            f"{prefix}_{LABEL_ACCURACY}": float(figures["accuracy"][0]),
        }

    def _choose(self, scores: dict[tuple[Path, int], float]) -> int | None:
        """Return the most likely label, or None where a score is not finite."""
        sums = self.answers.tree.sum_scores(scores)
        return self.answers.labels[sums.index(max(sums))] if all(map(math.isfinite, sums)) else None

    def _read_fork_scores(
        self, labels: Any, logits: Any, owners: Sequence[tuple[int, Path]], first: int
    ) -> list[dict[tuple[Path, int], float]]:
        """Return the log-probability of every token at every fork for each review.

        Args:
            labels: (R, T) of the rows.
            logits: the model's output for them.
            owners: (R,) review and path of each row.
            first: number of answer tokens in a row before the first fork.
        """
        answered = labels[:, 1:] != IGNORED_LABEL
        is_packed = logits.shape[:2] != labels.shape  # by AnswerLogits
        flat = logits[0] if is_packed else logits[:, :-1][answered]
        counts = answered.sum(1)
        starts = (counts.cumsum(0) - counts).tolist()
        forks = [(row, depth) for row, (_, path) in enumerate(owners) for depth in range(len(path) + 1)]
        chosen = flat[[starts[row] + first + depth for row, depth in forks]].float()
        chosen = chosen.log_softmax(-1)
        found: list[dict[tuple[Path, int], float]] = [{} for _ in range(1 + owners[-1][0])]
        for place, (row, depth) in enumerate(forks):
            review, path = owners[row]
            tokens = list(self.answers.tree.forks[path[:depth]])
            for token, value in zip(tokens, chosen[place, tokens].tolist(), strict=True):
                found[review][path[:depth], token] = value
        return found

    def _expand_paths(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[int, Path]]]:
        """Return a batch with a row for each review and path of the tree, in which only forks are labelled."""
        import torch

        tree = self.answers.tree
        ids, labels = inputs["input_ids"], inputs["labels"]
        mask = inputs.get("attention_mask")
        bodies: list[list[int]] = []
        owners: list[tuple[int, Path]] = []
        for review, row in enumerate(labels.tolist()):
            beginning = next(place for place, label in enumerate(row) if label != IGNORED_LABEL)
            prompt = ids[review, :beginning]
            if mask is not None:
                prompt = prompt[mask[review, :beginning] != 0]
            for path in tree.longest_paths:
                # Any token will do at the last fork: only the positions before it are read.
                bodies.append([*prompt.tolist(), *tree.lead, *path, tree.forks[path][0]])
                owners.append((review, path))
        width = max(map(len, bodies))
        rows = {
            "input_ids": torch.zeros(len(bodies), width, dtype=ids.dtype),
            "attention_mask": torch.zeros(len(bodies), width, dtype=torch.long),
            "labels": torch.full((len(bodies), width), IGNORED_LABEL),
        }
        for row, (body, (_, path)) in enumerate(zip(bodies, owners, strict=True)):
            rows["input_ids"][row, : len(body)] = torch.tensor(body)
            rows["attention_mask"][row, : len(body)] = 1
            asked = slice(len(body) - len(path) - 1, len(body))
            rows["labels"][row, asked] = rows["input_ids"][row, asked]
        return {key: value.to(ids.device) for key, value in rows.items()}, owners
