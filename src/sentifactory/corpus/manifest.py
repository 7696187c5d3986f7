"""The manifest of a prepared data set: what went in, what came out, and that every row is accounted for."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.corpus.cleaning import Reason, Rejected
from sentifactory.records import Review, Split
from sentifactory.task import Task


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that reviews were read from.

    Attributes:
        file: its name as the user gave it, or within its package.
        sha256: of its bytes.
        n_rows: rows read from it, empty ones included.
    """

    file: str
    sha256: str
    n_rows: int


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def count_labels(reviews: Sequence[Review], task: Task) -> dict[str, int]:
    """Return the number of reviews under each of the task's labels, in their order."""
    counts = Counter(review.label for review in reviews)
    return {name: counts[position] for position, name in enumerate(task.labels)}


def build_manifest(
    *,
    task: Task,
    split: Split,
    rejected: Sequence[Rejected],
    inputs: Sequence[InputFile],
    outputs: dict[str, str],
    settings: dict[str, Any],
    packages: dict[str, str],
) -> dict[str, Any]:
    """Return the manifest. It holds no time and no machine's path of its own: two runs give the same bytes.

    Args:
        task: what the training data asks.
        split: the rows that were kept.
        rejected: the rows that were not, with reasons.
        inputs: the files read.
        outputs: SHA-256 by file name.
        settings: name, seed, sizes: all that the user chose.
        packages: versions of the packages that data came from.

    Raises:
        RuntimeError: when rows were lost or doubled, which is a defect of ours.
    """
    reasons = Counter(item.reason for item in rejected)
    n_in = sum(file.n_rows for file in inputs)
    n_kept = sum(map(len, split.parts().values()))
    if n_in != n_kept + len(rejected):
        raise RuntimeError(f"{n_in} rows came in, but {n_kept} were kept and {len(rejected)} rejected")
    return {
        **settings,
        "task": {"name": task.name, "labels": list(task.labels), "prompt_template": task.prompt_template},
        "versions": {"sentifactory": sentifactory.__version__, "python": platform.python_version(), **packages},
        "inputs": [{"file": file.file, "sha256": file.sha256, "rows": file.n_rows} for file in inputs],
        "rows": {
            "in": n_in,
            "kept": n_kept,
            "rejected": len(rejected),
            "rejected_by_reason": {str(reason): reasons[reason] for reason in Reason},
        },
        "parts": {
            name: {"rows": len(part), "labels": count_labels(part, task)} for name, part in split.parts().items()
        },
        "outputs": {name: {"sha256": sha256} for name, sha256 in sorted(outputs.items())},
    }
