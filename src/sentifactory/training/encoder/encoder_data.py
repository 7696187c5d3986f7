"""The training data of an encoder: token ids or features, class weights, and the order of the batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sentifactory.corpus.dataset.dataset_files import clean_as_trained
from sentifactory.corpus.reading.review_files import read_reviews
from sentifactory.engines.base import split_by_length
from sentifactory.errors import DataError
from sentifactory.models.classifiers import encode_texts, pad_batch
from sentifactory.records import Review
from sentifactory.system.progress import show_progress
from sentifactory.system.progress_file import begin_phase, count_done
from sentifactory.task.task import Task
from sentifactory.training.distillation.soft_labels import NO_LABEL
from sentifactory.training.encoder.encoder_recipe import EncoderSettings, list_review_files
from sentifactory.training.run.run_phases import FROZEN_LAYERS

# A teacher's probabilities (n_labels,) by text.
SoftLabels = Mapping[str, tuple[float, ...]]
# Texts are sorted by length within this many batches, so that batches differ from epoch to epoch.
_BATCHES_SORTED_TOGETHER = 50


def load_reviews(settings: EncoderSettings, key: str, task: Task) -> list[Review]:
    """Return the labelled reviews of `dataset` or `eval_dataset`; of each training file the first `max_samples` rows.

    Raises:
        DataError: when a file cannot be used, contains no text, or the training files lack a label of the task.
    """
    limit = settings.max_samples if key == "dataset" else None
    files = list_review_files(settings, key)
    rows = [review for file in files for review in clean_as_trained(read_reviews(file, task)[:limit], file)]
    reviews = [review for review in rows if review.text.strip() and review.label is not None]
    missing = [label for at, label in enumerate(task.labels) if all(review.label != at for review in reviews)]
    if files and (not reviews or (key == "dataset" and missing)):
        raise DataError(
            f"No review has the label {' or '.join(missing)}" if reviews else "No row has a text and a label",
            where=", ".join(map(str, files)),
            expected=f"reviews of {' and '.join(task.labels)}",
            code="labels-too-few",
        )
    return reviews


def encode_reviews(reviews: Sequence[Review], tokenizer: Any) -> list[dict[str, Any]]:
    """Return a row with token ids and label for each review."""
    ids = encode_texts(tokenizer, [review.text for review in reviews], tokenizer.model_max_length)
    return [{"input_ids": row, "labels": review.label} for row, review in zip(ids, reviews, strict=True)]


def count_cut(rows: Sequence[dict[str, Any]], reviews: Sequence[Review], tokenizer: Any) -> dict[str, int]:
    """Return the number of reviews, and how many of them the tokenizer truncates.

    Args:
        rows: (n,) from `encode_reviews`.
        reviews: (n,) of the rows.
        tokenizer: encoded them.
    """
    limit = tokenizer.model_max_length
    full = [review.text for row, review in zip(rows, reviews, strict=True) if len(row["input_ids"]) >= limit]
    n_cut = sum(len(ids) > limit for ids in encode_texts(tokenizer, full, limit + 1))
    return {"samples": len(rows), "cut": n_cut}


def add_soft_labels(rows: list[dict[str, Any]], reviews: Sequence[Review], soft: SoftLabels, tokenizer: Any) -> None:
    """Add a teacher's probabilities to rows with token ids, and rows for texts that only the teacher has labelled.

    Args:
        rows: (n,) of `encode_reviews`; each gets `soft_labels`, zeros where the teacher has none.
        reviews: (n,) of the rows.
        soft: the teacher's probabilities by text.
        tokenizer: encodes the added texts, which have no true label.
    """
    unknown = (0.0,) * len(next(iter(soft.values())))
    for row, review in zip(rows, reviews, strict=True):
        row["soft_labels"] = soft.get(review.text, unknown)
    known = {review.text for review in reviews}
    more = [Review(text, NO_LABEL) for text in soft if text not in known]
    for row, review in zip(encode_reviews(more, tokenizer), more, strict=True):
        rows.append({**row, "soft_labels": soft[review.text]})


def compute_features(
    rows: Sequence[dict[str, Any]], model: Any, tokenizer: Any, batch_size: int, device: Any
) -> list[dict[str, Any]]:
    """Return a row with the frozen encoder's output and the label for each row of token ids, in the same order.

    The encoder runs without dropout, once for each text: the head gets the same features in every epoch.
    """
    import torch

    features: dict[int, Any] = {}
    begin_phase(FROZEN_LAYERS, len(rows))
    model.to(device).eval()
    ids = [row["input_ids"] for row in rows]
    with show_progress("Frozen encoder", total=len(rows), unit="reviews") as progress, torch.inference_mode():
        for batch in split_by_length(ids, batch_size):
            tensors = (tensor.to(device) for tensor in pad_batch(tokenizer, [ids[at] for at in batch]))
            found = model.compute_features(*tensors).float().cpu()  # (B, H)
            features.update(zip(batch, found, strict=True))
            progress.advance(len(batch))
            count_done(len(features))
    # A copy outside of inference mode: the head's backward pass needs ordinary tensors.
    kept = [{key: value for key, value in row.items() if key != "input_ids"} for row in rows]
    return [{**row, "features": features[at].clone()} for at, row in enumerate(kept)]


def compute_class_weights(reviews: Sequence[Review], task: Task) -> list[float]:
    """Return the weight of each label (n_labels,), inversely proportional to its number of reviews.

    Example:
        >>> from sentifactory.task.task import BINARY_SENTIMENT
        >>> compute_class_weights([Review("a", 0), Review("b", 0), Review("c", 0), Review("d", 1)], BINARY_SENTIMENT)
        [0.6666666666666666, 2.0]
    """
    counts = [sum(review.label == label for review in reviews) for label in range(len(task.labels))]
    return [len(reviews) / (len(counts) * count) for count in counts]


class BatchCollator:
    """Builds a batch: texts padded to the longest one, or stacked features."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the tensors of a batch."""
        import torch

        batch = {"labels": torch.tensor([row["labels"] for row in rows])}
        if "soft_labels" in rows[0]:
            batch["soft_labels"] = torch.tensor([row["soft_labels"] for row in rows])  # (B, n_labels)
        if "features" in rows[0]:
            return {**batch, "features": torch.stack([row["features"] for row in rows])}
        ids, mask = pad_batch(self._tokenizer, [row["input_ids"] for row in rows])
        return {**batch, "input_ids": ids, "attention_mask": mask}


class ReviewSampler:
    """Orders the training reviews differently in each epoch, and identically when an epoch is repeated.

    Args:
        lengths: (n,) tokens of each review; reviews of a batch have similar lengths.
        batch_size: reviews per batch.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by the trainer."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of reviews."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield batches of indices of reviews; the incomplete batch comes last."""
        generator = random.Random(f"{self._seed}-{self._epoch}")  # noqa: S311 - an order, not a secret
        indices = list(range(len(self._lengths)))
        generator.shuffle(indices)
        size = self._batch_size * _BATCHES_SORTED_TOGETHER
        batches: list[list[int]] = []
        for start in range(0, len(indices), size):
            block = sorted(indices[start : start + size], key=lambda index: self._lengths[index])
            batches += [block[at : at + self._batch_size] for at in range(0, len(block), self._batch_size)]
        short = [batch for batch in batches if len(batch) < self._batch_size]
        full = [batch for batch in batches if len(batch) == self._batch_size]
        generator.shuffle(full)
        for batch in [*full, *short]:
            yield from batch
