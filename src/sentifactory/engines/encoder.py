"""An encoder classifier in this process: one forward pass a batch, probabilities of all labels.

Batches hold reviews of like length, so that little is spent on padding; the answers come back in the order of the
reviews. There is one mode, `score`: such a model writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sentifactory.engines.base import ClosingEngine, OnAnswer, classify
from sentifactory.engines.batches import answer_batches
from sentifactory.engines.transformers import split_by_length
from sentifactory.errors import EngineError
from sentifactory.models.classifier_labels import match_labels
from sentifactory.models.classifier_texts import encode_texts, find_max_length, pad_batch
from sentifactory.models.classifiers import load_classifier
from sentifactory.progress import say, show_progress
from sentifactory.records import Prediction, Review
from sentifactory.task import Task


class EncoderEngine(ClosingEngine):
    """A text classifier in this process.

    Args:
        model_path: folder of a checkpoint, hub id, or `ms:owner/name`.
        task: says which labels there are.
        name: what the model is called in progress lines and reports.
        batch_size: reviews answered at the same time.
        device: "cuda", "cpu", ...; None: a GPU where there is one.

    Raises:
        EngineError: when the model cannot be loaded or has other labels than the task.
    """

    def __init__(
        self, model_path: str, task: Task, *, name: str = "model", batch_size: int = 16, device: str | None = None
    ) -> None:
        import torch

        self.name = name
        self._batch_size = batch_size
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        with show_progress(f"Loading {name} on {self._device}"):
            loaded = load_classifier(model_path, task, device=self._device)
        self._columns = match_labels(loaded.model.config.id2label, task, model_path)
        self._tokenizer, self._model = loaded.tokenizer, loaded.model
        self._max_length = find_max_length(self._tokenizer, self._model.config)
        self.has_trained_head = loaded.has_trained_head
        if not self.has_trained_head:
            say(f"{name}: {model_path} holds no classifier, only an encoder: its answers come from a random head")

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        The latency of a review is that of its batch. A review over the model's longest input is cut at its end.

        Raises:
            EngineError: when the memory does not suffice.
        """
        rows = encode_texts(self._tokenizer, [review.text for review in reviews], self._max_length)
        return answer_batches(self.name, rows, split_by_length(rows, self._batch_size), self._answer, on_answer)

    def _answer(self, rows: Sequence[list[int]]) -> list[Prediction]:
        """Return the predictions for the token ids of one batch.

        Raises:
            EngineError: when the memory does not suffice.
        """
        import torch

        start = time.monotonic()
        ids, mask = (tensor.to(self._device) for tensor in pad_batch(self._tokenizer, rows))  # (B, T)
        try:
            with torch.inference_mode():
                logits = self._model(input_ids=ids, attention_mask=mask).logits  # (B, n_labels)
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            raise EngineError(
                f"The memory does not suffice for {len(rows)} reviews at the same time",
                where=self.name,
                next_step="run it with more memory",
            ) from error
        shares = logits.float()[:, self._columns].softmax(dim=-1).tolist()
        latency_s = time.monotonic() - start
        return [classify(row, latency_s) for row in shares]

    def close(self) -> None:
        """Free the model's memory; may be called twice."""
        import gc

        import torch

        self._model = None
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
