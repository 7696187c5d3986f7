"""An encoder that was exported to ONNX, run by ONNX Runtime; neither torch nor transformers is loaded.

`sentifactory export onnx` makes the folder. Its `export.json` says how a text becomes tokens, which labels the columns
stand for, and for which files that holds. Batches hold reviews of like length, as many as fit into a number of tokens
with padding, so that short reviews are answered many at a time and long ones do not fill the memory.

With int8, activations are quantised by the range that they have in a batch, so an answer depends a little on the other
reviews of its batch. Which reviews stand together does not depend on the order in which they are given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sentifactory.corpus.manifest import hash_file
from sentifactory.engines.base import ClosingEngine, OnAnswer, classify
from sentifactory.engines.batches import answer_batches
from sentifactory.engines.text_encoder import TextEncoder, split_by_tokens
from sentifactory.engines.vllm_process import list_usable_cores
from sentifactory.errors import EngineError
from sentifactory.models.classifier_labels import match_labels
from sentifactory.progress import hide_progress, show_progress
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

EXPORT_NAME = "export.json"
GRAPH_NAME = "model.onnx"
# The weights lie apart: ONNX Runtime maps that file into memory, and of the table of embeddings only the rows that a
# text needs are ever read.
WEIGHTS_NAME = "model.onnx.data"
TOKENIZER_NAME = "tokenizer.json"
FORMAT_VERSION = 1
# Enough for the processor's matrix units, and little enough for its caches.
BATCH_TOKENS = 1024


class OnnxEngine(ClosingEngine):
    """An exported text classifier in this process, on the CPU.

    Args:
        model_path: folder that `sentifactory export onnx` has written.
        task: says which labels there are.
        name: what the model is called in progress lines and reports.
        threads: that work on one batch; None: as many as the export found fastest on a machine with as many cores as
            this process may use, else one for each of them.
        batch_tokens: tokens of a batch, padding included.

    Raises:
        EngineError: when the folder is no whole export, its files have changed, or the model has other labels.
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

        The latency of a review is that of its batch. A review over the model's longest input is cut at its end.
        """
        rows = self._encoder.encode([review.text for review in reviews])
        batches = list(split_by_tokens(rows, self._batch_tokens))
        # A single batch is over before a display could be read.
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
    """Return whether a folder is one that `sentifactory export onnx` has written."""
    return (Path(folder).expanduser() / EXPORT_NAME).is_file()


def read_export(folder: Path) -> dict[str, Any]:
    """Return what an export says about itself.

    Raises:
        EngineError: when there is none, or it is of another version.
    """
    try:
        facts = json.loads((folder / EXPORT_NAME).read_text(encoding="utf-8"))
        version = facts["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError(
            f"There is no {EXPORT_NAME} that can be read",
            where=str(folder),
            expected="a folder that `sentifactory export onnx` has written",
            next_step="export the checkpoint: sentifactory export onnx CHECKPOINT",
        ) from error
    if version != FORMAT_VERSION:
        raise EngineError(
            f"The export is of format {version}",
            where=str(folder / EXPORT_NAME),
            expected=f"format {FORMAT_VERSION}",
            next_step="export the checkpoint again with this version",
        )
    return dict(facts)


def check_files(folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuse files that are not those whose answers were compared with the checkpoint's.

    Raises:
        EngineError: naming the first one.
    """
    for name, stated in facts["files"].items():
        path = folder / name
        if not path.is_file() or hash_file(path) != stated:
            raise EngineError(
                f"{name} is missing" if not path.is_file() else f"{name} is not the file that was exported",
                where=str(path),
                expected=f"the file with the SHA-256 that stands in {EXPORT_NAME}",
                next_step="copy the whole folder again, or export the checkpoint again",
            )


def choose_threads(facts: Mapping[str, Any]) -> int:
    """Return the number of threads for this machine; see `OnnxEngine`.

    Left alone, ONNX Runtime takes one for each core of the whole machine, whatever a container may use of it.
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
            "The package onnxruntime is not installed", where=str(graph), next_step="pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Every batch has a shape of its own: memory planned for the shapes before would only be kept.
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors are of many kinds, and have no common base
        raise EngineError(
            f"ONNX Runtime cannot load the model ({str(error).strip().splitlines()[0]})",
            where=str(graph),
            next_step="export the checkpoint again",
        ) from error
