"""How well the model labels the validation reviews: accuracy and macro-F1, taken from LLaMA-Factory's own evaluation.

LLaMA-Factory's evaluation gives the loss, and token accuracy where it is asked for; neither says how many reviews get
the right label. To find the loss it runs the model over each review with its right answer. The logits of that very
pass, at the place where the answers part, hold the score of every label, so nothing is computed for it, and whatever
makes the pass cheap (frozen-trunk reuse, shared prefix, answer-only logits) holds here too. Only where labels part at
several places, such as words of several tokens, a second pass asks for the other answers. The label is that of the
engines' mode `score`. Not covered: several devices, packing, generated text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sentifactory.engines.answers import Path
from sentifactory.training.answer_loss import IGNORED_LABEL
from sentifactory.training.label_answers import LabelAnswers

MACRO_F1, LABEL_ACCURACY = "macro_f1", "label_accuracy"


def find_obstacle_to_labels(settings: Mapping[str, Any], args: Any) -> str | None:
    """Return why the labels of validation reviews cannot be scored in this run, or None."""
    if settings.get("stage", "sft") != "sft":
        return f"the stage {settings['stage']} has no labels"
    if settings.get("packing") or settings.get("neat_packing"):
        return "packed reviews stand behind each other in one row"
    if settings.get("streaming"):
        return "streamed data are not known before they come"
    if settings.get("predict_with_generate"):
        return "predict_with_generate compares generated text"
    if args.world_size > 1 or args.n_gpu > 1:
        return "it is proven on one device alone"
    return None


class LabelScores:
    """Collects the model's labels during one evaluation.

    Args:
        answers: of the tokenised data.
    """

    def __init__(self, answers: LabelAnswers) -> None:
        self.answers = answers
        self._pairs: list[tuple[int, int | None]] = []

    def begin(self) -> None:
        """Forget the evaluation before."""
        self._pairs = []

    def note_batch(self, model: Any, inputs: Mapping[str, Any], logits: Any) -> None:
        """Read the labels of a batch.

        Args:
            model: to ask again, where one pass does not say all.
            inputs: `input_ids`, `attention_mask` and `labels`, each (B, T).
            logits: (B, T, V), or (1, K + 1, V) for the K positions that predict an answer token and an idle one.
        """
        labels = inputs["labels"]
        tree = self.answers.tree
        if self.answers.is_one_path:
            owners = [(review, tree.longest_paths[0]) for review in range(len(labels))]
            scores = self._read_edges(labels, logits, owners, len(tree.lead))
        else:
            rows, owners = self._spread(inputs)
            scores = self._read_edges(rows["labels"], model(**rows).logits, owners, 0)
        for row, score in zip(labels.cpu(), scores, strict=True):
            truth = self.answers.label_of[tuple(row[row != IGNORED_LABEL].tolist())]
            self._pairs.append((truth, self._choose(score)))

    def finish(self, prefix: str) -> dict[str, float]:
        """Return accuracy and macro-F1 over the task's labels, by the names under which they are logged."""
        import numpy as np

        from sentifactory.evaluation.bootstrap import score_tables

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
        """Return the label with the highest likelihood, or None where the model gives no numbers."""
        sums = self.answers.tree.sum_scores(scores)
        return self.answers.labels[sums.index(max(sums))] if all(map(math.isfinite, sums)) else None

    def _read_edges(
        self, labels: Any, logits: Any, owners: Sequence[tuple[int, Path]], first: int
    ) -> list[dict[tuple[Path, int], float]]:
        """Return the log-probability of every token at every fork, for each review.

        Args:
            labels: (R, T) of the rows that the model ran over.
            logits: what it gave.
            owners: (R,) review and path of each row.
            first: number of answer tokens in a row before the first fork.
        """
        answered = labels[:, 1:] != IGNORED_LABEL
        is_packed = tuple(logits.shape[:2]) == (1, int(answered.sum()) + 1)
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

    def _spread(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[int, Path]]]:
        """Return a batch with a row for each review and path among the answers; forks alone are labelled."""
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
                # The last fork's own token is any: only what stands before it is read.
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
