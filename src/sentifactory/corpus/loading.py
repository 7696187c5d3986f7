"""Loads one source or several as what the gate works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentifactory.corpus.intake import ReadOptions
from sentifactory.corpus.scales import refuse_mixed
from sentifactory.corpus.sources import LoadedSource, load_source
from sentifactory.errors import ConfigError
from sentifactory.records import Review
from sentifactory.task import Task


def load_sources(sources: Sequence[str], task: Task, options: ReadOptions) -> list[LoadedSource]:
    """Load sources; of several, each is a domain of its own name where its rows name none.

    Files of one name are told apart by their folders, or by their endings.

    Raises:
        DataError: when one cannot be used.
        ConfigError: when one is given twice, one of several has official splits, or an option does not fit all.
    """
    places = [str(Path(source).resolve()) if Path(source).exists() else source for source in sources]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise ConfigError("The source is given twice", where=sources[number], next_step="give it once")
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
    names = _tell_apart([one.name for one in loaded], places)
    return [
        replace(one, name=name, reviews=[_name_domain(review, name) for review in one.reviews])
        for one, name in zip(loaded, names, strict=True)
    ]


def _tell_apart(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """Return a name of its own for each source: of those that share one, with as many folders as it takes.

    Example:
        >>> _tell_apart(["train", "train", "jd"], ["/data/jd/train.csv", "/data/tb/train.csv", "/data/jd.csv"])
        ['jd/train', 'tb/train', 'jd']
    """
    told = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        same = [at for at, other in enumerate(names) if other == name]
        parts = [Path(places[at].replace(":", "/")).parts for at in same]
        for n_parts in range(1, max(map(len, parts)) + 1):
            tails = ["/".join(one[-n_parts:]) for one in parts]
            short = [tail.removesuffix(Path(tail).suffix) if Path(tail).suffix else tail for tail in tails]
            chosen = short if len(set(short)) == len(same) else tails
            if len(set(chosen)) == len(same) and not {*chosen} & {*names}:
                break
        for at, tail in zip(same, chosen, strict=True):
            told[at] = tail
    return told


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
