"""The manifest of a prepared data set and its summary: inputs, outputs, and an account of every row."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.corpus.dataset.dataset_files import is_registered
from sentifactory.corpus.dataset.dataset_info import name_dataset
from sentifactory.corpus.files.garbled_text import word_garbled
from sentifactory.records import Reason, Review
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.task import Task
from sentifactory.task.task_file import record_task

# The outputs depend on these packages: the same versions give the same bytes.
_DECIDING_PACKAGES = ("numpy", "rapidfuzz", "rensa")


def count_labels(reviews: Sequence[Review], task: Task) -> dict[str, int]:
    """Return the number of reviews under each of the task's labels, in their order."""
    counts = Counter(review.label for review in reviews)
    return {name: counts[position] for position, name in enumerate(task.labels)}


def describe_part(reviews: Sequence[Review], task: Task) -> dict[str, Any]:
    """Return rows and labels of a part, copies (from up-sampling) if there are any, and labels by domain."""
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
        kept: the rows of all parts; one that occurs several times counts once.
        reasons: number of rejected rows by reason.

    Raises:
        RuntimeError: when rows were lost or duplicated, which is a bug.
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
    """Return the manifest. It holds no times and no absolute paths: two runs give the same bytes.

    Args:
        settings: name, source, seed, sizes: all that the user chose.
        task: renders the training data.
        task_file: the YAML file that describes it, as the user named it; None for a built-in task.
        packages: versions of the packages that the data came from.
        chapters: inputs, cleaning, rows, near_repeats, parts, leak_check, outputs: in this order.
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


def summarise_manifest(manifest: dict[str, Any], output_dir: str) -> str:
    """Return what `data prepare` prints; leaks that were kept are in the first line."""
    rows, parts, leaks = manifest["rows"], manifest["parts"], manifest["leak_check"]
    reasons = ", ".join(f"{reason} {n}" for reason, n in rows["rejected_by_reason"].items() if n) or "none"
    labels = manifest["task"]["labels"]
    lines = []
    if leaks["exact"] or leaks["near"]:
        lines.append(
            f"LEAKS KEPT AS ASKED: {leaks['exact']} exact and {leaks['near']} near duplicates "
            "between the official splits"
        )
    lines += [f"Warning: {english}" for english, _ in word_garbled(manifest.get("suspect_texts", {}))]
    lines.append(f"{rows['in']} rows read = {rows['kept']} kept + {rows['rejected']} left out ({reasons})")
    files: dict[str, list[str]] = {}
    for one in manifest["inputs"]:
        if one["read_as"]:
            files.setdefault(one["read_as"], []).append(one["file"])
    if files:
        lines.append("Read as " + "; ".join(f"{said} ({', '.join(names)})" for said, names in files.items()))
    width = max(8, *(len(part) + 1 for part in parts))
    columns = [max(12, len(label) + 2) for label in (*labels, "all")]
    lines.append(
        " " * width + "".join(f"{label:>{column}}" for label, column in zip([*labels, "all"], columns, strict=True))
    )
    for part, counts in parts.items():
        numbers = [*(counts["labels"][label] for label in labels), counts["rows"]]
        copies = f"  ({counts['copies']} of them copies)" if "copies" in counts else ""
        cells = "".join(f"{number:>{column}}" for number, column in zip(numbers, columns, strict=True))
        lines.append(f"{part:{width}}{cells}{copies}")
    near = manifest["near_repeats"]
    lines.append(
        f"Near duplicates: {near['rows']} rows in {near['groups']} groups, each within one part; "
        f"leaks between the parts: {leaks['exact']} exact, {leaks['near']} near"
    )
    folder = f"{output_dir}/{manifest['name']}"
    lines.append(f"Written to {folder}: {', '.join(manifest['outputs'])}, manifest.json")
    registered = [
        name_dataset(manifest["name"], part)
        for part in parts
        if is_registered(part) and f"{part}.jsonl" in manifest["outputs"]
    ]
    lines.append(f"Registered in {output_dir}/dataset_info.json: {', '.join(registered)}")
    return "\n".join(lines)
