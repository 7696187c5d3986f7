"""The manifest of a prepared data set: what went in, what came out, and that every row is accounted for."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.scales import Scale
from sentifactory.records import Review
from sentifactory.task import Task
from sentifactory.task_files import record_task

# What decides about the outputs besides our own code: the same versions give the same bytes.
_DECIDING_PACKAGES = ("numpy", "rapidfuzz", "rensa")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that reviews were read from.

    Attributes:
        file: its name as the user gave it, or within its package.
        sha256: of its bytes.
        n_rows: rows read from it, empty ones included.
        scale: what its label column holds; None for a package, whose labels are known.
    """

    file: str
    sha256: str
    n_rows: int
    scale: Scale | None = None


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def count_labels(reviews: Sequence[Review], task: Task) -> dict[str, int]:
    """Return the number of reviews under each of the task's labels, in their order."""
    counts = Counter(review.label for review in reviews)
    return {name: counts[position] for position, name in enumerate(task.labels)}


def describe_part(reviews: Sequence[Review], task: Task) -> dict[str, Any]:
    """Return rows and labels of a part, copies (of up-sampling) where there are any, and labels by domain."""
    described: dict[str, Any] = {"rows": len(reviews), "labels": count_labels(reviews, task)}
    n_copies = len(reviews) - len({id(review) for review in reviews})
    if n_copies:
        described["copies"] = n_copies
    by_domain: dict[str, list[Review]] = {}
    for review in reviews:
        if review.domain is not None:
            by_domain.setdefault(review.domain, []).append(review)
    if by_domain:
        described["domains"] = {
            domain: {"rows": len(by_domain[domain]), "labels": count_labels(by_domain[domain], task)}
            for domain in sorted(by_domain)
        }
    return described


def count_rows(n_in: int, kept: Sequence[Review], reasons: Mapping[Reason, int]) -> dict[str, Any]:
    """Return the account of all rows.

    Args:
        n_in: rows of all inputs.
        kept: the rows of all parts; one that stands in several parts or several times in one counts once.
        reasons: number of rejected rows by reason.

    Raises:
        RuntimeError: when rows were lost or doubled, which is a defect of ours.
    """
    n_kept = len({id(review) for review in kept})
    n_rejected = sum(reasons.values())
    if n_in != n_kept + n_rejected:
        raise RuntimeError(f"{n_in} rows came in, but {n_kept} were kept and {n_rejected} rejected")
    return {
        "in": n_in,
        "kept": n_kept,
        "rejected": n_rejected,
        "rejected_by_reason": {str(reason): reasons.get(reason, 0) for reason in Reason},
    }


def build_manifest(
    *, settings: Mapping[str, Any], task: Task, task_file: str | None, packages: Mapping[str, str], **chapters: Any
) -> dict[str, Any]:
    """Return the manifest. It holds no time and no machine's path of its own: two runs give the same bytes.

    Args:
        settings: name, source, seed, sizes: all that the user chose.
        task: what the training data asks.
        task_file: the YAML file that describes it, as the user named it; None for a built-in task.
        packages: versions of the packages that data came from.
        chapters: inputs, cleaning, rows, near_repeats, parts, leak_check, outputs: in the order in which they stand.
    """
    versions = {name: version(name) for name in _DECIDING_PACKAGES}
    described = record_task(task)
    if task_file is not None:
        described |= {"file": task_file, "sha256": hash_file(Path(task_file))}
    return {
        **settings,
        "task": described,
        "versions": {
            "sentifactory": sentifactory.__version__,
            "python": platform.python_version(),
            **versions,
            **packages,
        },
        **chapters,
    }
