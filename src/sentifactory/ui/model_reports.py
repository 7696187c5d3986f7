"""Finds the comparisons in which a model was tested, by the hashes of its weights, never by its name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.models.weights import hash_weights
from sentifactory.publishing.hub.evidence import read_report
from sentifactory.redaction import redact_paths

_MAX_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What a comparison says about one model.

    Attributes:
        file: report.json.
        page: the HTML beside it.
        name: folder and file, which tell reports apart.
        tested_on: name of the file of test reviews.
        reviews: number of test reviews.
        accuracy: of the model.
        interval: of the accuracy, 95 %: low and high.
        headline: what the report concludes.
        created_at: ISO 8601.
    """

    file: Path
    page: Path
    name: str
    tested_on: str
    reviews: int
    accuracy: float
    interval: tuple[float, float]
    headline: Sentence
    created_at: str


def find_reports(model: Path, roots: Mapping[str, Path]) -> dict[str, ModelReport]:
    """Return the comparisons of a model by name, the newest first.

    Args:
        model: folder of the model.
        roots: searched folders, by the prefix of the names of their reports.
    """
    files = [(prefix, root, file) for prefix, root in roots.items() for file in _walk_reports(root)]
    if not files:
        return {}
    weights = hash_weights(model)
    found: dict[Path, ModelReport] = {}
    for prefix, root, file in files:
        summary = _summarise(file, file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None
        side = next((one for one in (summary or {}).get("models", ()) if weights and one["weights"] == weights), None)
        if summary is None or side is None:
            continue
        inner = file.relative_to(root)
        name = f"{prefix}/{(inner.parent if inner.stem == 'report' else inner.with_suffix('')).as_posix()}"
        found.setdefault(
            file.resolve(),
            ModelReport(
                file, file.with_suffix(".html"), name.removesuffix("/."), summary["tested_on"], summary["reviews"],
                side["accuracy"], side["interval"], summary["headline"], summary["created_at"],
            ),
        )  # fmt: skip
    newest = sorted(found.values(), key=lambda report: report.created_at, reverse=True)
    return {report.name: report for report in newest}


def _walk_reports(root: Path) -> Iterator[Path]:
    """Yield the JSON files that have a page of the same name beside them, as reports do and models do not."""
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "checkpoint-"))]
        for name in sorted(names):
            if name.endswith(".json") and f"{name.removesuffix('.json')}.html" in names:
                yield Path(place) / name


@lru_cache(maxsize=512)
def _summarise(file: Path, _mtime_ns: int, n_bytes: int) -> dict[str, Any] | None:
    """Return what is needed of a report; None where the file is something else. Cached until the file changes."""
    report = read_report(file) if n_bytes <= _MAX_BYTES else None
    if report is None:
        return None
    try:
        test, headline = report["data"]["test"], report["verdict"]["headline"]
        models = []
        for side in ("tuned", "base"):
            metrics = report["models"][side]["metrics"]
            bounds = metrics["accuracy_interval"]
            models.append(
                {
                    "weights": report["models"][side].get("weights"),
                    "accuracy": float(metrics["accuracy"]),
                    "interval": (float(bounds["low"]), float(bounds["high"])),
                }
            )
        return {
            "tested_on": redact_paths(str(test["file"])),
            "reviews": int(test["asked"]),
            "headline": Sentence(headline["en"], headline["zh"]),
            "created_at": str(report["created_at"]),
            "models": models,
        }
    except (KeyError, TypeError, ValueError):  # a report that somebody edited
        return None
