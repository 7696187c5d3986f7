"""Runs an encoder classifier in this process: one forward pass per batch gives the probabilities of all labels.

Batches contain reviews of similar length, to save padding; predictions are in the order of the reviews. The only mode
is `score`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sentifactory.engines.base import ClosingEngine, OnAnswer, answer_batches, classify, split_by_length
from sentifactory.errors import EngineError
from sentifactory.models.classifiers import encode_texts, find_max_length, load_classifier, pad_batch
from sentifactory.records import Prediction, Review
from sentifactory.system.hardware import choose_torch_device, empty_device_cache, is_device_full
from sentifactory.system.progress import say, show_progress
from sentifactory.task.label_names import match_labels
from sentifactory.task.task import Task


class EncoderEngine(ClosingEngine):
    """A text classifier in this process.

    Args:
        model_path: checkpoint folder, hub id, or `ms:owner/name`.
        task: with the labels.
        name: of the model in progress lines and reports.
        batch_size: reviews per batch.
        device: "cuda", "cpu", ...; None: a GPU if available.

    Raises:
        EngineError: when the model cannot be loaded or has other labels than the task.
    """

    def __init__(
        self, model_path: str, task: Task, *, name: str = "model", batch_size: int = 16, device: str | None = None
    ) -> None:
        self.name = name
        self._batch_size = batch_size
        self._device = device or choose_torch_device()
        with show_progress(f"Loading {name} on {self._device}"):
            loaded = load_classifier(model_path, task, device=self._device)
        self._columns = match_labels(loaded.model.config.id2label, task, model_path)
        self._tokenizer, self._model = loaded.tokenizer, loaded.model
        self._max_length = find_max_length(self._tokenizer, self._model.config)
        self.has_trained_head = loaded.has_trained_head
        if not self.has_trained_head:
            say(f"{name}: {model_path} is an encoder without a classification head: its answers are random")

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        The latency of a review is that of its batch. Reviews longer than the model's input are truncated.

        Raises:
            EngineError: when memory runs out.
        """
        rows = encode_texts(self._tokenizer, [review.text for review in reviews], self._max_length)
        return answer_batches(self.name, rows, split_by_length(rows, self._batch_size), self._answer, on_answer)

    def _answer(self, rows: Sequence[list[int]]) -> list[Prediction]:
        """Return the predictions for the token ids of one batch.

        Raises:
            EngineError: when memory runs out.
        """
        import torch

        start = time.monotonic()
        ids, mask = (tensor.to(self._device) for tensor in pad_batch(self._tokenizer, rows))  # (B, T)
        try:
            with torch.inference_mode():
                logits = self._model(input_ids=ids, attention_mask=mask).logits  # (B, n_labels)
        except (RuntimeError, MemoryError) as error:
            if not (isinstance(error, MemoryError) or is_device_full(error)):
                raise
            raise EngineError(
                f"Not enough memory for a batch of {len(rows)} reviews",
                where=self.name,
                next_step="run it with more memory",
                code="memory",
            ) from error
        shares = logits.float()[:, self._columns].softmax(dim=-1).tolist()
        latency_s = time.monotonic() - start
        return [classify(row, latency_s) for row in shares]

    def close(self) -> None:
        """Free the model's memory; may be called twice."""
        import gc

        self._model = None
        gc.collect()
        empty_device_cache(self._device)
