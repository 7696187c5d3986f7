"""Loads one source or several as what the gate works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sentifactory.corpus.intake import ReadOptions
from sentifactory.corpus.scales import refuse_mixed
from sentifactory.corpus.sources import LoadedSource, load_source
from sentifactory.errors import ConfigError
from sentifactory.records import Review
from sentifactory.task import Task


def load_sources(sources: Sequence[str], task: Task, options: ReadOptions) -> list[LoadedSource]:
    """Load sources; of several, each is a domain of its own name where its rows name none.

    Raises:
        DataError: when one cannot be used.
        ConfigError: when one of several has official splits, or an option does not fit, or not all of them.
    """
    loaded = [load_source(source, task, options) for source in sources]
    scales = [(file.file, file.scale) for one in loaded for file in one.inputs if file.scale is not None]
    refuse_mixed(scales, options.star_threshold, options.label_map)
    if len(loaded) == 1:
        return loaded
    for one in loaded:
        if one.official is not None:
            raise ConfigError(
                "The source has official splits, which are kept and cannot be joined with other sources",
                where=one.name,
                next_step="prepare it alone, or name one of its splits or files",
            )
    return [replace(one, reviews=[_name_domain(review, one.name) for review in one.reviews]) for one in loaded]


def _name_domain(review: Review, name: str) -> Review:
    return review if review.domain is not None else Review(review.text, review.label, review.source, name)


def list_inputs(loaded: Sequence[LoadedSource]) -> list[dict[str, Any]]:
    """Return the input files for the manifest."""
    return [
        {
            "file": file.file,
            "sha256": file.sha256,
            "rows": file.n_rows,
            "format": one.format,
            "encoding": one.encoding,
            "read_as": file.scale.said if file.scale else None,
        }
        for one in loaded
        for file in one.inputs
    ]
