"""Runs an encoder exported to ONNX with ONNX Runtime, without torch or transformers.

`sentifactory export onnx` writes the folder; its `export.json` holds the tokenizer settings, the labels of the columns
and the hashes of the files. Batches contain reviews of similar length up to a number of tokens, padding included.

In int8, activations are quantised by their range in the batch, so a prediction depends slightly on the other reviews
of its batch. Batches do not depend on the order of the reviews.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sentifactory.engines.base import ClosingEngine, OnAnswer, answer_batches, classify
from sentifactory.engines.local.text_encoder import TextEncoder, split_by_tokens
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.hardware import list_usable_cores
from sentifactory.system.json_text import read_json
from sentifactory.system.progress import hide_progress, show_progress
from sentifactory.task.label_names import match_labels
from sentifactory.task.task import Task

EXPORT_NAME = "export.json"
GRAPH_NAME = "model.onnx"
# Weights are in a separate file, which ONNX Runtime memory-maps: only the embedding rows in use are read.
WEIGHTS_NAME = "model.onnx.data"
TOKENIZER_NAME = "tokenizer.json"
FORMAT_VERSION = 1
# Large enough for efficient matrix products, small enough for the processor's caches.
BATCH_TOKENS = 1024


class OnnxEngine(ClosingEngine):
    """An exported text classifier in this process, on the CPU.

    Args:
        model_path: folder that `sentifactory export onnx` has written.
        task: with the labels.
        name: of the model in progress lines and reports.
        threads: per batch; None: the number that the export measured as fastest, if measured on as many usable cores
            as here, else one per usable core.
        batch_tokens: tokens per batch, padding included.

    Raises:
        EngineError: when the export is incomplete, its files have changed, or the model has other labels.
    """

    def __init__(
        self,
        model_path: str,
        task: Task,
        *,
        name: str = "model",
        threads: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.name = name
        self._batch_tokens = batch_tokens
        folder = Path(model_path)
        with show_progress(f"Loading {name}"):
            facts = read_export(folder)
            check_files(folder, facts)
            self._columns = match_labels(dict(enumerate(facts["labels"])), task, model_path)
            self._encoder = TextEncoder(folder / TOKENIZER_NAME, facts["text"])
            self.threads = threads or choose_threads(facts)
            self._session = open_session(folder / GRAPH_NAME, self.threads)

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        The latency of a review is that of its batch. Reviews longer than the model's input are truncated.
        """
        rows = self._encoder.encode([review.text for review in reviews])
        batches = list(split_by_tokens(rows, self._batch_tokens))
        # No progress display for a single batch.
        with hide_progress() if len(batches) < 2 else nullcontext():
            return answer_batches(self.name, rows, batches, self._answer, on_answer)

    def _answer(self, rows: Sequence[list[int]]) -> list[Prediction]:
        import numpy as np

        start = time.monotonic()
        ids, mask = self._encoder.pad(rows)  # (B, T)
        logits = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]  # (B, n_labels)
        chosen = logits[:, self._columns].astype(np.float64)
        shares = np.exp(chosen - chosen.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        latency_s = time.monotonic() - start
        return [classify(row, latency_s) for row in shares.tolist()]

    def close(self) -> None:
        """Free the model's memory; may be called twice."""
        self._session = None


def is_export(folder: str | Path) -> bool:
    """Return whether a folder was written by `sentifactory export onnx`."""
    return (Path(folder).expanduser() / EXPORT_NAME).is_file()


def read_export(folder: Path) -> dict[str, Any]:
    """Return the content of an export's export.json.

    Raises:
        EngineError: when it is missing or unreadable, or has another format version.
    """
    try:
        facts = read_json(folder / EXPORT_NAME)
        version = facts["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{EXPORT_NAME} is missing or cannot be read",
            where=str(folder),
            expected="a folder written by `sentifactory export onnx`",
            next_step="export the checkpoint: sentifactory export onnx CHECKPOINT",
            code="export-broken",
        ) from error
    if version != FORMAT_VERSION:
        raise EngineError(
            f"The export has format {version}",
            where=str(folder / EXPORT_NAME),
            expected=f"format {FORMAT_VERSION}",
            next_step="export the checkpoint again with this version",
            code="export-broken",
        )
    return dict(facts)


def check_files(folder: Path, facts: Mapping[str, Any]) -> None:
    """Check that the export's files are unchanged.

    Raises:
        EngineError: naming the first file that is missing or changed.
    """
    for name, stated in facts["files"].items():
        path = folder / name
        if not path.is_file() or hash_file(path) != stated:
            raise EngineError(
                f"{name} is missing" if not path.is_file() else f"{name} has changed since the export",
                where=str(path),
                expected=f"the file with the SHA-256 in {EXPORT_NAME}",
                next_step="copy the complete folder again, or export the checkpoint again",
                code="export-broken",
            )


def choose_threads(facts: Mapping[str, Any]) -> int:
    """Return the number of threads for this machine; see `OnnxEngine`.

    By default ONNX Runtime starts one per core of the machine, regardless of a container's quota.
    """
    cores = len(list_usable_cores())
    measured = facts.get("threads") or {}
    return int(measured["best"]) if measured.get("cores") == cores else cores


def open_session(graph: Path, threads: int) -> Any:
    """Return an ONNX Runtime session on the CPU.

    Raises:
        EngineError: when onnxruntime is missing or cannot load the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            "The package onnxruntime is not installed",
            where=str(graph),
            next_step="pip install onnxruntime",
            code="package-needed",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Every batch has another shape, so memory patterns would only accumulate.
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise EngineError(
            f"ONNX Runtime cannot load the model ({str(error).strip().splitlines()[0]})",
            where=str(graph),
            next_step="export the checkpoint again",
            code="export-broken",
        ) from error
