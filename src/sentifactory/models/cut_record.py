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
from sentifactory.models.first_base import RUN_CARD, find_first_base
from sentifactory.models.store import read_seal
from sentifactory.models.weights import hash_settings, hash_weights
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.formats import build_table, escape
from sentifactory.system.json_text import read_json_object
from sentifactory.system.network_settings import is_hub_id

RECORD_NAME = "sentifactory_cut.json"
CARD_NAME = "README.md"
RECORD_VERSION = 1
_KEPT_OF_RUN = ("recipe", "data", "earlier_training")  # what such a model learned from


def describe_source(model: str, folder: Path) -> dict[str, Any]:
    """Return what tells the source of a cut from every other model, and what is known of its terms.

    The terms are those of the first model: the one that was cut first, and that a tuned model was tuned from (`base`).

    Args:
        model: the folder or hub id, as it was given.
        folder: where its files are.
    """
    base = find_first_base(str(folder))
    place = Path(base).expanduser()
    is_tuned = base != str(folder)
    seal = read_seal(place)
    earlier = read_cut_record(place)
    origin = earlier.get("source") or {}
    run = read_json_object(folder / RUN_CARD) or origin.get(RUN_CARD)
    trained = {RUN_CARD: {key: run[key] for key in _KEPT_OF_RUN if key in run}} if isinstance(run, dict) else {}
    first = {
        "name": str(seal.get("name") or _name_model(base if is_tuned else model, place)),
        "package": str(seal.get("package") or ""),
        "licence": read_card_licence(place),
    }
    first |= {key: origin[key] for key in (*first, "base") if key in origin}
    if is_tuned:
        first |= {"name": _name_model(model, folder), "base": first.get("base") or first["name"]}
    cut = {"cut": earlier} if earlier else {}
    return first | {"weights": hash_weights(folder), "settings": hash_settings(folder)} | cut | trained


def _name_model(model: str, folder: Path) -> str:
    """Return the name of a model without its place on this machine."""
    path = Path(model).expanduser()
    return folder.resolve().name if path.is_dir() or path.is_absolute() else model


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
    base = source.get("base") or source["name"]
    head = [f"base_model: {base}"] if is_hub_id(base) else []
    head += [f"license: {source['licence']}"] if source["licence"] else []
    name = escape(source["name"])
    tuned = f" {name} was tuned from {escape(source['base'])}." if source.get("base") else ""
    terms = f"Its terms: {', '.join(notices)}." if notices else "Look up its terms where it was published."
    lines = [
        *(["---", *head, "---", ""] if head else []),
        f"# {name}, the lowest {layers} of {total} layers",
        "",
        f"**Modified:** `sentifactory model cut` made this model from {name} by leaving out the upper "
        f"{total - layers} of its {total} decoder layers. Embeddings, layers 1 to {layers}, final norm and output "
        f"projection are the numbers of the source.{tuned} Nothing was trained since: tune the model before you use "
        "it.",
        "",
        f"The licence of the source applies to this model and to every model that is tuned from it. {terms}",
        "",
        *build_table([["weights of the source", "SHA-256"], *([k, f"`{v}`"] for k, v in source["weights"].items())]),
        "",
    ]
    write_text(folder / CARD_NAME, "\n".join(lines))


def read_card_licence(folder: Path) -> str:
    """Return the licence in the head of a local model's README.md, "" where there is none.

    That of a folder that was trained into counts for nothing: training writes `license: other` for every model.
    """
    if (folder / RUN_CARD).is_file():
        return ""
    try:
        text = (folder / CARD_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head[1], re.MULTILINE) if head else None
    return found[1] if found else ""
