"""Where a cut model comes from: a record for programs and a card for people, both in its folder.

The record names the source by the hashes of its weights and settings. Publishing reads it, so that the terms of the
source are those of every model that is tuned from the cut one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.models.store import read_seal
from sentifactory.models.weights import hash_settings, hash_weights
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.formats import build_table, escape
from sentifactory.system.json_text import read_json_object
from sentifactory.system.network_settings import is_hub_id

RECORD_NAME = "sentifactory_cut.json"
CARD_NAME = "README.md"
RECORD_VERSION = 1
RUN_CARD = "run.json"  # of a model that was trained here
_KEPT_OF_RUN = ("recipe", "data", "earlier_training")  # what such a model learned from


def describe_source(model: str, folder: Path) -> dict[str, Any]:
    """Return what tells the source of a cut from every other model, and what is known of its terms.

    Args:
        model: the folder or hub id, as it was given.
        folder: where its files are.
    """
    seal = read_seal(folder)
    earlier = read_cut_record(folder)
    run = read_json_object(folder / RUN_CARD)
    trained = {RUN_CARD: {key: run[key] for key in _KEPT_OF_RUN if key in run}} if run is not None else {}
    own = {
        "name": str(seal.get("name") or (model if not Path(model).expanduser().is_dir() else folder.resolve().name)),
        "package": str(seal.get("package") or ""),
        "licence": read_card_licence(folder),
    }
    origin = earlier.get("source") or {}
    known = {key: origin[key] for key in own if key in origin}  # the terms are those of the first source
    cut = {"cut": earlier} if earlier else {}
    return own | known | {"weights": hash_weights(folder), "settings": hash_settings(folder)} | cut | trained


def write_record(folder: Path, source: dict[str, Any], layers: int, source_layers: int) -> dict[str, Any]:
    """Write the record of a cut model beside its finished weights and settings, and return it."""
    record = {
        "version": RECORD_VERSION,
        "sentifactory": sentifactory.__version__,
        "layers": layers,
        "source_layers": source_layers,
        "source": source,
        "weights": hash_weights(folder),
        "settings": hash_settings(folder),
    }
    write_json(folder / RECORD_NAME, record)
    return record


def read_cut_record(folder: str | Path) -> dict[str, Any]:
    """Return the record in a model's folder; {} where there is none that can be read."""
    record = read_json_object(Path(folder) / RECORD_NAME) or {}
    return record if isinstance(record.get("source"), dict) else {}


def count_layers(record: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return how many layers a cut model has, and how many the model had that was cut first; None for a whole one.

    Example:
        >>> first = {"layers": 12, "source_layers": 18, "source": {}}
        >>> count_layers(first), count_layers({"layers": 6, "source_layers": 12, "source": {"cut": first}})
        ((12, 18), (6, 18))
    """
    first = record
    while isinstance(earlier := first.get("source", {}).get("cut"), dict):
        first = earlier
    layers, total = record.get("layers"), first.get("source_layers")
    return (layers, total) if isinstance(layers, int) and isinstance(total, int) else None


def is_cut_of(folder: Path, source: dict[str, Any], layers: int) -> bool:
    """Return whether a folder holds the finished cut of a source to so many layers, unchanged."""
    record = read_cut_record(folder)
    return (
        record.get("version") == RECORD_VERSION
        and record.get("layers") == layers
        and {key: record["source"].get(key) for key in source} == source
        and (record.get("weights"), record.get("settings")) == (hash_weights(folder), hash_settings(folder))
    )


def write_card(folder: Path, record: dict[str, Any], notices: list[str]) -> None:
    """Write the page that says what was changed, as the licences of most models ask for.

    Args:
        folder: of the cut model.
        record: what `write_record` returned.
        notices: names of the licence files in the folder.
    """
    source, (layers, total) = record["source"], count_layers(record) or (0, 0)
    head = [f"base_model: {source['name']}"] if is_hub_id(source["name"]) else []
    head += [f"license: {source['licence']}"] if source["licence"] else []
    name = escape(source["name"])
    terms = f"Its terms: {', '.join(notices)}." if notices else "Look up its terms where it was published."
    lines = [
        *(["---", *head, "---", ""] if head else []),
        f"# {name}, the lowest {layers} of {total} layers",
        "",
        f"**Modified:** `sentifactory model cut` made this model from {name} by leaving out the upper "
        f"{total - layers} of its {total} decoder layers. Embeddings, layers 1 to {layers}, final norm and output "
        "projection are the numbers of the source. Nothing was trained since: tune the model before you use it.",
        "",
        f"The licence of the source applies to this model and to every model that is tuned from it. {terms}",
        "",
        *build_table([["weights of the source", "SHA-256"], *([k, f"`{v}`"] for k, v in source["weights"].items())]),
        "",
    ]
    write_text(folder / CARD_NAME, "\n".join(lines))


def read_card_licence(folder: Path) -> str:
    """Return the licence in the head of a local model's README.md, "" where there is none."""
    try:
        text = (folder / CARD_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head[1], re.MULTILINE) if head else None
    return found[1] if found else ""
