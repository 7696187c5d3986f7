"""The profile of a data set as one plain dictionary: what the page and the terminal show, and `--json` prints.

It holds no times and no absolute paths, so that the same data and seed give the same bytes.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.corpus.dataset.manifest import count_labels
from sentifactory.corpus.files.garbled_text import describe_garbled
from sentifactory.corpus.inspection.display_text import TEXT_LIMIT, describe_place, make_encodable, quote_text
from sentifactory.corpus.inspection.doubtful_labels import DEFAULT_FOLDS, DEFAULT_SEED, find_doubtful
from sentifactory.corpus.inspection.loaded_data import InspectedData, RejectedEntry
from sentifactory.corpus.inspection.overlap_listing import (
    DuplicateGroups,
    describe_duplicates,
    describe_leaks,
    group_duplicates,
)
from sentifactory.corpus.inspection.text_lengths import build_histogram, count_tokens, describe_lengths
from sentifactory.errors import DataError
from sentifactory.records import Review
from sentifactory.system.progress import say
from sentifactory.task.task import Task

SAMPLES_PER_LABEL = 10
REJECTED_EXAMPLES = 3
DOUBTFUL_SHOWN = 20
# For more reviews the search takes minutes and gigabytes; `data doubt` does it on request.
DOUBT_LIMIT = 60_000
UNLABELLED = "unlabelled"


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """Options of a profile.

    Attributes:
        seed: of the samples and of the folds of the search for doubtful labels.
        tokenizer: folder of a tokenizer, for lengths in tokens; None: characters only.
        n_doubtful: how many doubtful labels are shown.
        has_doubt: whether to search for doubtful labels.
    """

    seed: int = DEFAULT_SEED
    tokenizer: str | None = None
    n_doubtful: int = DOUBTFUL_SHOWN
    has_doubt: bool = True


def build_profile(data: InspectedData, options: ProfileOptions | None = None) -> dict[str, Any]:
    """Return the profile of a data set.

    Raises:
        ConfigError: when the tokenizer cannot be read.
    """
    options = options or ProfileOptions()
    reasons = Counter(row.reason for row in data.rejected_rows)
    copies = data.count_copies()
    n_kept = sum(map(len, data.parts.values())) - sum(copies.values())
    say(f"{data.name}: {n_kept} reviews; looking for duplicates")
    groups = group_duplicates([review.text for review in data.reviews()])
    return {
        "name": data.name,
        "is_prepared": data.is_prepared,
        "task": {"name": data.task.name, "labels": list(data.task.labels)},
        "rows": {
            "in": n_kept + len(data.rejected_rows),
            "kept": n_kept,
            "rejected": len(data.rejected_rows),
            "rejected_by_reason": dict(reasons.most_common()),
        },
        "parts": {name: _describe_part(data, name) for name in data.parts},
        "domains": _count_domains(data),
        "lengths": _describe_all_lengths(data, options),
        "repeats": describe_duplicates(data, groups),
        "leaks": describe_leaks(data),
        "suspect_texts": describe_garbled(data.reviews()),
        "rejected_examples": _pick_rejected(data.rejected_rows),
        "doubtful": _describe_doubtful(data, groups, options),
        "samples": _pick_samples(data, options.seed),
        "provenance": _describe_provenance(data, options),
    }


def count_all(reviews: Sequence[Review], task: Task) -> dict[str, int]:
    """Return the number of reviews of each label in the task's order, and of unlabelled ones if there are any."""
    n_unlabelled = sum(review.label is None for review in reviews)
    return count_labels(reviews, task) | ({UNLABELLED: n_unlabelled} if n_unlabelled else {})


def _describe_part(data: InspectedData, name: str) -> dict[str, Any]:
    reviews = data.parts[name]
    return {
        "file": data.files[name],
        "sha256": data.hashes[name],
        "rows": len(reviews),
        "copies": data.count_copies()[name],
        "labels": count_all(reviews, data.task),
    }


def _count_domains(data: InspectedData) -> dict[str, dict[str, dict[str, int]]]:
    """Return counts by domain, part and label, the largest domain first; {} if no review has a domain."""
    by_domain: dict[str, dict[str, list[Review]]] = {}
    for part, reviews in data.parts.items():
        for review in reviews:
            by_domain.setdefault(review.domain or "", {}).setdefault(part, []).append(review)
    if set(by_domain) <= {""}:
        return {}
    order = sorted(by_domain, key=lambda domain: (-sum(map(len, by_domain[domain].values())), domain))
    return {
        domain: {part: count_all(reviews, data.task) for part, reviews in by_domain[domain].items()}
        for domain in order
    }


def _describe_all_lengths(data: InspectedData, options: ProfileOptions) -> dict[str, Any]:
    lengths = {"characters": _describe_unit(data, lambda texts: [len(text) for text in texts])}
    if options.tokenizer:
        folder = options.tokenizer
        lengths["tokens"] = _describe_unit(data, lambda texts: count_tokens(texts, folder))
        lengths["tokens"]["tokenizer"] = Path(folder).name
    return lengths


def _describe_unit(data: InspectedData, measure: Callable[[Sequence[str]], list[int]]) -> dict[str, Any]:
    """Return the lengths in one unit: statistics by part and by label, and the histogram by label."""
    reviews = data.reviews()
    lengths = measure([make_encodable(review.text) for review in reviews])
    by_part: dict[str, list[int]] = {part: [] for part in data.parts}
    by_label: dict[str, list[int]] = {label: [] for label in count_all(reviews, data.task)}
    for part, review, length in zip(data.part_of(), reviews, lengths, strict=True):
        by_part[part].append(length)
        by_label[UNLABELLED if review.label is None else data.task.labels[review.label]].append(length)
    return {
        "all": describe_lengths(lengths),
        "parts": {part: describe_lengths(values) for part, values in by_part.items()},
        "labels": {label: describe_lengths(values) for label, values in by_label.items()},
        "histogram": build_histogram(by_label),
    }


def _pick_rejected(rows: Sequence[RejectedEntry]) -> dict[str, list[dict[str, Any]]]:
    """Return the first rows of each reason, without equal texts."""
    picked: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        examples = picked.setdefault(row.reason, [])
        if len(examples) < REJECTED_EXAMPLES and all(row.text[:TEXT_LIMIT] != shown["text"] for shown in examples):
            examples.append({"file": row.file, "line": row.line, "detail": row.detail, **quote_text(row.text)})
    return picked


def _pick_samples(data: InspectedData, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return some reviews of each label: those with the lowest hash of text and seed, whatever their order.

    The hash differs from that of the split, or all samples would be test reviews.
    """

    def rank(item: tuple[str, Review]) -> bytes:
        text = item[1].text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=16, key=f"samples {seed}".encode()).digest()

    by_label: dict[str, dict[str, tuple[str, Review]]] = {label: {} for label in data.task.labels}
    for part, review in zip(data.part_of(), data.reviews(), strict=True):
        if review.label is not None:
            by_label[data.task.labels[review.label]].setdefault(review.text, (part, review))
    return {
        label: [
            {"part": part, **describe_place(review), **quote_text(review.text)}
            for part, review in heapq.nsmallest(SAMPLES_PER_LABEL, texts.values(), key=rank)
        ]
        for label, texts in by_label.items()
    }


def _describe_doubtful(data: InspectedData, groups: DuplicateGroups, options: ProfileOptions) -> dict[str, Any]:
    """Return the most doubtful labels, or why they were not searched."""
    reviews = data.reviews()
    if not options.has_doubt:
        return {"skipped": "by choice"}
    if len(reviews) > DOUBT_LIMIT:
        return {"skipped": "too many reviews", "limit": DOUBT_LIMIT}
    say(f"{data.name}: looking for doubtful labels")
    try:
        found = find_doubtful(reviews, data.task.labels, seed=options.seed, groups=groups.group_of.tolist())
    except DataError as error:
        return {"skipped": error.what}
    parts = data.part_of()
    return {
        "folds": DEFAULT_FOLDS,
        "seed": options.seed,
        "searched": found.n_searched,
        "agreement": found.agreement,
        "is_weak": found.is_weak,
        "contradicted": len(found.doubts),
        "probable": found.n_probable,
        "rows": [
            {
                "part": parts[doubt.position],
                **describe_place(doubt.review),
                **doubt.describe(data.task.labels),
                **quote_text(doubt.review.text),
            }
            for doubt in found.doubts[: options.n_doubtful]
        ],
    }


def _describe_provenance(data: InspectedData, options: ProfileOptions) -> dict[str, Any]:
    manifest: Mapping[str, Any] = data.manifest
    return {
        "manifest_sha256": data.manifest_sha256,
        "changed_files": data.changed_files() if data.is_prepared else [],
        "source": manifest.get("source", ""),
        "inputs": manifest.get("inputs", []),
        "rows_in_manifest": manifest.get("rows", {}).get("in") if data.is_prepared else None,
        "settings": {key: manifest[key] for key in manifest if not isinstance(manifest[key], dict)},
        "encoding": data.encoding,
        "prepared_with": manifest.get("versions", {}),
        "drawn_with": {"sentifactory": sentifactory.__version__, "seed": options.seed},
    }
