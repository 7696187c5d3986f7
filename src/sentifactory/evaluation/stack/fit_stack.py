"""Fits a stack on validation reviews and writes its folder.

TF-IDF learns from the training reviews, the tuned model is taken as it is, and the combination is fitted on validation
reviews that neither has seen. The calibration, its threshold and the figures of the stack come from a cross-fit: each
validation review is scored by a combination that was fitted without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentifactory
from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.engines.base import Engine
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.engines.local.stack_folder import MEMBER_NAME, is_stack, write_stack
from sentifactory.engines.registry import (
    build_engine,
    check_engine,
    check_mode,
    choose_kind,
    is_address,
    split_by_prompt,
)
from sentifactory.errors import ConfigError
from sentifactory.evaluation.scoring.comparison_leaks import OTHER_VALIDATION, compare_with_training
from sentifactory.metrics.calibration import save_calibration
from sentifactory.metrics.calibration_fit import check_target_accuracy, fit_calibration, refuse_few
from sentifactory.metrics.combination import cross_fit, fit_combination
from sentifactory.metrics.number_formats import format_percent
from sentifactory.metrics.probability_metrics import find_known, stack_probabilities
from sentifactory.metrics.reliability import find_confidence, list_nll
from sentifactory.models.notices import list_notices
from sentifactory.models.weights import SETTING_FILES, hash_weights, list_weights
from sentifactory.records import Prediction, Review
from sentifactory.system.atomic import refuse_overwriting_inputs, replace_directory
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.progress import say, show_progress
from sentifactory.task.model_folder import TASK_NAME, write_model_task
from sentifactory.task.task import Task
from sentifactory.task.task_choice import ChosenTask, choose_task
from sentifactory.training.run.run_card import CARD_NAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What is copied of a model, beside its weights, settings and notices.
_COMPANIONS = ("*.index.json", "preprocessor_config.json", CARD_NAME, TASK_NAME)
_PARTS = ("tfidf", "model", "stack")


@dataclass(frozen=True, slots=True)
class StackOptions:
    """The options of `sentifactory model stack`.

    Attributes:
        model: folder of the tuned model.
        train_csv: training reviews of TF-IDF.
        val_path: validation reviews.
        output_dir: the folder of the stack; a new or an empty one.
        engine: of the model.
        task: name or YAML file of the task; None: the task of the model.
        target_accuracy: accuracy that answers above the threshold of the calibration must reach.
        seed: of TF-IDF and of the folds.
    """

    model: str
    train_csv: str
    val_path: str
    output_dir: Path
    engine: str = "auto"
    task: str | None = None
    target_accuracy: float = 0.95
    seed: int = 42


def make_stack(options: StackOptions) -> dict[str, Any]:
    """Fit a stack, write its folder, and return the facts in its stack.json.

    Raises:
        ConfigError: when an option or the model's folder cannot be used, or there are too few validation reviews.
        DataError: when a file of reviews cannot be used.
        LeakError: when a validation review is among the training reviews of TF-IDF or of the model.
        EngineError: when the model does not answer.
    """
    kind, chosen = check_options(options)
    task = chosen.announce().task
    for finding in compare_with_training([options.val_path], [options.model], [options.train_csv]):
        finding.refuse(next_step=OTHER_VALIDATION)
        say(f"Leak check: {finding.summarise()}")
    train, val = (read_labelled(path, task)[0] for path in (options.train_csv, options.val_path))
    refuse_few([review.label for review in val], options.val_path)
    refuse_absent_labels(val, task, options.val_path)
    tfidf = TfidfEngine(task, seed=options.seed).fit(train)
    with build_engine(kind, options.model, task, name="the model", mode="score", is_calibrated=False) as engine:
        truth, shares = ask_parts(val, [tfidf, engine], options)
    combination = fit_combination(truth, shares)
    crossed = cross_fit(truth, shares, options.seed)
    fitted_on = {"file": options.val_path, "sha256": hash_file(Path(options.val_path)), "reviews": len(truth)}
    trained_on = {"file": options.train_csv, "sha256": hash_file(Path(options.train_csv)), "reviews": len(train)}
    with replace_directory(options.output_dir, refuse_former) as place:
        copy_model(Path(options.model).expanduser(), place / MEMBER_NAME)
        facts = write_stack(
            place,
            tfidf.pipeline,
            combination,
            task,
            {
                "fitted_on": fitted_on,
                "trained_on": trained_on,
                "weights": dict(zip(_PARTS, combination.weights, strict=False)),
                "validation": dict(zip(_PARTS, (measure_part(truth, own) for own in (*shares, crossed)), strict=True)),
                "sentifactory": sentifactory.__version__,
            },
        )
        write_model_task(task, place)
        calibration = fit_calibration(
            truth.tolist(),
            crossed,
            task,
            content_free=None,
            target_accuracy=options.target_accuracy,
            fitted_on={**fitted_on, "missing": len(val) - len(truth)},
            weights=hash_weights(place),
        )
        save_calibration(calibration, place)
    return facts


def check_options(options: StackOptions) -> tuple[str, ChosenTask]:
    """Return the engine of the model and the task, after refusing what cannot work before a model is loaded.

    Raises:
        ConfigError: for the first option that cannot be used.
    """
    model = Path(options.model).expanduser()
    check_target_accuracy(options.target_accuracy)
    if is_address(options.engine) or is_stack(model):
        what = "The model is a stack already" if is_stack(model) else "A model at an address has no folder to copy"
        raise ConfigError(
            what, where=options.model, expected="the folder of a tuned model", next_step="name its folder here",
            code="stack-model",
        )  # fmt: skip
    check_engine(options.engine, options.model)
    if not model.is_dir():
        raise ConfigError(
            "The model is not on this machine, and the stack would hold a copy of it",
            where=options.model,
            expected="a folder",
            next_step="fetch it first",
            code="stack-model",
        )
    inputs = [options.model, options.train_csv, options.val_path, options.task]
    refuse_overwriting_inputs([options.output_dir], inputs, "--output_dir")
    refuse_former(options.output_dir)
    kind = choose_kind(options.engine, options.model)
    check_mode("score", kind)
    asking, heads = split_by_prompt([(kind, options.model)])
    data = [options.train_csv, options.val_path]
    return kind, choose_task(options.task, models=asking, classifiers=heads, data=data)


def refuse_absent_labels(val: Sequence[Review], task: Task, where: str) -> None:
    """Refuse validation reviews without some label: the combination would learn that nothing ever has it.

    Raises:
        ConfigError: naming the labels.
    """
    seen = {review.label for review in val}
    absent = [name for label, name in enumerate(task.labels) if label not in seen]
    if absent:
        raise ConfigError(
            f"No validation review is {' or '.join(absent)}, and the stack would hardly ever give that answer",
            where=where,
            expected="reviews of every label of the task",
            next_step="take other validation reviews, or name a task without this label with --task",
            code="calibration-too-few",
        )


def refuse_former(folder: Path) -> None:
    """Refuse to write where anything stands: a stack holds the weights of a model, and is not made over by accident.

    Raises:
        ConfigError: when it is a file, or a folder with anything in it.
    """
    if os.path.lexists(folder) and (not folder.is_dir() or folder.is_symlink() or any(folder.iterdir())):
        raise ConfigError(
            "Something stands here, and it would be replaced",
            where=str(folder),
            expected="a new or an empty folder",
            next_step="choose another --output_dir",
            code="output-foreign",
        )


def ask_parts(val: list[Review], engines: list[Engine], options: StackOptions) -> tuple[NDArray, list[NDArray]]:
    """Return what `align_answers` returns for the answers of all parts.

    Raises:
        ConfigError: when too few are answered.
        EngineError: when a part does not answer at all.
    """
    return align_answers(val, [engine.predict(val) for engine in engines], options.val_path)


def align_answers(
    val: Sequence[Review], answers: Sequence[Sequence[Prediction]], where: str
) -> tuple[NDArray, list[NDArray]]:
    """Return the labels (n,) of the reviews that all parts answered, and of each part its probabilities (n, n_labels).

    Args:
        val: (n_val,) validation reviews.
        answers: of each part (n_val,).
        where: the file of the reviews, for errors.

    Raises:
        ConfigError: when too few are answered.
    """
    import numpy as np

    known = np.logical_and.reduce([find_known(own) for own in answers])
    truth = np.array([review.label for review, is_known in zip(val, known, strict=True) if is_known], dtype=int)
    refuse_few(truth.tolist(), where)
    shares = []
    for own in answers:
        kept = stack_probabilities([answer for answer, is_known in zip(own, known, strict=True) if is_known])
        assert kept is not None  # noqa: S101 - every review that is kept has probabilities
        shares.append(kept)
    return truth, shares


def measure_part(truth: NDArray, shares: NDArray) -> dict[str, float]:
    """Return accuracy and negative log-likelihood (nats) on the validation reviews."""
    answers, _ = find_confidence(shares)
    return {"accuracy": float((answers == truth).mean()), "nll": float(list_nll(truth, shares).mean())}


def copy_model(source: Path, target: Path) -> None:
    """Copy what a model consists of: weights, settings, task, run card, and the notices of its licence.

    Raises:
        OSError: when a file cannot be copied.
    """
    companions = (file for pattern in _COMPANIONS for file in source.glob(pattern))
    settings = (source / name for name in SETTING_FILES)
    stated = (*list_weights(source), *list_notices(source), *settings, *companions)
    files = sorted({file for file in stated if file.is_file()})
    target.mkdir()
    with show_progress("Copying the model", total=len(files), unit="files") as progress:
        for file in files:
            shutil.copyfile(file, target / file.name)
            progress.advance()


def describe_stack(facts: dict[str, Any], folder: Path) -> str:
    """Return a few lines for the terminal: what each part has right of the validation reviews, and the weights."""
    figures, weights = facts["validation"], facts["weights"]
    n = facts["fitted_on"]["reviews"]
    names = {"tfidf": "TF-IDF", "model": "model", "stack": "stack, cross-fitted"}
    lines = [
        f"  {names[part]}: {format_percent(own['accuracy'])} right, log loss {own['nll']:.3f}"
        + (f", weight {weights[part]:.2f}" if part in weights else "")
        for part, own in figures.items()
    ]
    return "\n".join([f"{folder} is ready; on {n} validation reviews:", *lines])
