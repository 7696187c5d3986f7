"""Reviews as an encoder is trained on them: token ids or features, class weights, and the order of the batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sentifactory.corpus.export import clean_as_trained
from sentifactory.corpus.readers import read_reviews
from sentifactory.engines.transformers import split_by_length
from sentifactory.errors import DataError
from sentifactory.models.classifier_texts import encode_texts, pad_batch
from sentifactory.progress import show_progress
from sentifactory.records import Review
from sentifactory.task import Task
from sentifactory.training.distilling import NO_LABEL
from sentifactory.training.encoder_recipe import EncoderSettings, list_review_files

# A teacher's probabilities (n_labels,) by text.
SoftLabels = Mapping[str, tuple[float, ...]]
# Texts are sorted within so many batches, not over the whole file, so that the batches differ from pass to pass.
_BATCHES_SORTED_TOGETHER = 50


def load_reviews(settings: EncoderSettings, key: str, task: Task) -> list[Review]:
    """Return the labelled reviews of `dataset` or `eval_dataset`, of each file the first `max_samples` rows.

    Raises:
        DataError: when a file cannot be used, holds no text, or the training files lack a label of the task.
    """
    limit = settings.max_samples if key == "dataset" else None
    files = list_review_files(settings, key)
    rows = [review for file in files for review in clean_as_trained(read_reviews(file, task)[:limit], file)]
    reviews = [review for review in rows if review.text.strip() and review.label is not None]
    missing = [label for at, label in enumerate(task.labels) if all(review.label != at for review in reviews)]
    if files and (not reviews or (key == "dataset" and missing)):
        raise DataError(
            f"No review is {' or '.join(missing)}" if reviews else "No row has a text and a label",
            where=", ".join(map(str, files)),
            expected=f"reviews of {' and '.join(task.labels)}",
        )
    return reviews


def encode_reviews(reviews: Sequence[Review], tokenizer: Any) -> list[dict[str, Any]]:
    """Return a row with token ids and label for each review."""
    ids = encode_texts(tokenizer, [review.text for review in reviews], tokenizer.model_max_length)
    return [{"input_ids": row, "labels": review.label} for row, review in zip(ids, reviews, strict=True)]


def count_cut(rows: Sequence[dict[str, Any]], reviews: Sequence[Review], tokenizer: Any) -> dict[str, int]:
    """Return how many reviews there are, and how many of them the tokenizer's limit cuts.

    Args:
        rows: (n,) of `encode_reviews`.
        reviews: (n,) those of the rows.
        tokenizer: that encoded them.
    """
    limit = tokenizer.model_max_length
    full = [review.text for row, review in zip(rows, reviews, strict=True) if len(row["input_ids"]) >= limit]
    n_cut = sum(len(ids) > limit for ids in encode_texts(tokenizer, full, limit + 1))
    return {"samples": len(rows), "cut": n_cut}


def add_soft_labels(rows: list[dict[str, Any]], reviews: Sequence[Review], soft: SoftLabels, tokenizer: Any) -> None:
    """Give rows with token ids the probabilities of a teacher, and add rows for the texts that it alone has labelled.

    Args:
        rows: (n,) of `encode_reviews`; each gets `soft_labels`, zeros where the teacher was not asked.
        reviews: (n,) those of the rows.
        soft: the teacher's probabilities by text.
        tokenizer: encodes the texts that are added; these have no true label.
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
    """Return a row with the frozen trunk's output and the label for each row of token ids, in the same order.

    The trunk runs without dropout, once for each text: what the head gets is the same in every pass.
    """
    import torch

    features: dict[int, Any] = {}
    model.to(device).eval()
    ids = [row["input_ids"] for row in rows]
    with show_progress("Frozen trunk", total=len(rows), unit="reviews") as progress, torch.inference_mode():
        for batch in split_by_length(ids, batch_size):
            tensors = (tensor.to(device) for tensor in pad_batch(tokenizer, [ids[at] for at in batch]))
            found = model.compute_features(*tensors).float().cpu()  # (B, H)
            features.update(zip(batch, found, strict=True))
            progress.advance(len(batch))
    # A copy outside of inference mode: the head's backward pass needs ordinary tensors.
    kept = [{key: value for key, value in row.items() if key != "input_ids"} for row in rows]
    return [{**row, "features": features[at].clone()} for at, row in enumerate(kept)]


def compute_class_weights(reviews: Sequence[Review], task: Task) -> list[float]:
    """Return for each label how much its reviews weigh (n_labels,), so that all labels weigh alike together.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
        >>> compute_class_weights([Review("a", 0), Review("b", 0), Review("c", 0), Review("d", 1)], BINARY_SENTIMENT)
        [0.6666666666666666, 2.0]
    """
    counts = [sum(review.label == label for review in reviews) for label in range(len(task.labels))]
    return [len(reviews) / (len(counts) * count) for count in counts]


class BatchCollator:
    """Makes a batch: texts padded to the longest one in it, or features stacked."""

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
    """The order of the training reviews: another one in each pass, the same whenever a pass is begun again.

    Args:
        lengths: (n,) tokens of each review; the reviews of a batch are of like length. Empty features have the same.
        batch_size: reviews of a step on one device.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the pass; the trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of reviews."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield the places of the reviews; the batch that is not full comes last."""
        dice = random.Random(f"{self._seed}-{self._epoch}")  # noqa: S311 - an order, not a secret
        places = list(range(len(self._lengths)))
        dice.shuffle(places)
        size = self._batch_size * _BATCHES_SORTED_TOGETHER
        batches: list[list[int]] = []
        for start in range(0, len(places), size):
            near = sorted(places[start : start + size], key=lambda place: self._lengths[place])
            batches += [near[at : at + self._batch_size] for at in range(0, len(near), self._batch_size)]
        short = [batch for batch in batches if len(batch) < self._batch_size]
        whole = [batch for batch in batches if len(batch) == self._batch_size]
        dice.shuffle(whole)
        for batch in [*whole, *short]:
            yield from batch
