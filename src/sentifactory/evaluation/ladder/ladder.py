"""Runs the ladder: every model answers the same test reviews, from the majority label to a tuned language model.

Each entry runs in its own process, one after the other, so that its memory and speed are its own. Entries that are not
available on this machine are listed as missing, and those that fail as failed.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.engines.local.stack_folder import is_stack
from sentifactory.engines.registry import (
    AUTO,
    CalibratedEngine,
    check_mode,
    check_model,
    choose_kind,
    is_address,
    is_scoring_kind,
)
from sentifactory.errors import ConfigError, EngineError, SentiFactoryError
from sentifactory.evaluation.ladder.ladder_adaptation import (
    adapt_entry,
    check_adaptation,
    check_adaptation_options,
    describe_adaptation,
)
from sentifactory.evaluation.ladder.ladder_entries import (
    EntryAnswers,
    EntryMissingError,
    LadderInputs,
    LadderOptions,
    list_addable,
    list_entries,
)
from sentifactory.evaluation.ladder.ladder_resume import FinishedEntries
from sentifactory.evaluation.report.shown_paths import hide_folders
from sentifactory.evaluation.scoring.adapted_scores import AdaptedScores, warn_of_unadapted
from sentifactory.evaluation.scoring.review_sets import ReviewOptions, ReviewSets, read_review_sets
from sentifactory.evaluation.scoring.scored_predictions import cross_fit_decided
from sentifactory.evaluation.scoring.small_test import warn_of_small_test
from sentifactory.evaluation.scoring.verdict import warn_of_unfamiliar_models
from sentifactory.metrics.label_metrics import compute_metrics
from sentifactory.metrics.probability_metrics import score_probabilities
from sentifactory.metrics.significance import PairedTest, compare_paired, correct_family
from sentifactory.records import Prediction, Review
from sentifactory.redaction import mask_text
from sentifactory.system.command_line import describe_command
from sentifactory.system.hardware import MemoryWatch, describe_machine
from sentifactory.system.own_process import end_with_parent
from sentifactory.system.progress import say
from sentifactory.system.stop_signals import StoppedError, raise_on_signals
from sentifactory.task.task import Task
from sentifactory.task.task_choice import ChosenTask, choose_task
from sentifactory.training.run.provenance import describe_versions

LADDER_VERSION = 2
# Every entry is compared with this one: it costs almost nothing, and a better model must be worth its cost.
REFERENCE = "tfidf"
# Until an entry's process has closed its engine.
STOP_WAIT_S = 30.0
# Wanted among the answers that are taken without a person.
TARGET_ACCURACY = 0.95


def run_ladder(options: LadderOptions, keep_in: Path | None = None) -> dict[str, Any]:
    """Run every entry and return the ladder as plain JSON values.

    Args:
        options: of the ladder.
        keep_in: folder for the answers of finished entries, from which the same ladder continues; None: nowhere.

    Raises:
        ConfigError: when an option cannot be used, or the folder cannot be written.
        DataError: when a file of reviews cannot be used, or training has seen test reviews.
        EngineError: when no entry gave an answer.
    """
    check_mode(options.mode)
    if options.shots < 1:
        raise ConfigError(f"--shots is {options.shots}", expected="1 or more", code="option-value")
    check_adaptation_options(options)
    warn_of_unusable(options)
    chosen = find_task(options).announce()
    task = chosen.task
    sets = read_review_sets(
        ReviewOptions(
            csv_paths=(options.csv_path,),
            train_csv=options.train_csv,
            models=options.list_models(),
            train_samples=options.train_samples,
            max_samples=options.max_samples,
            seed=options.seed,
            allow_leaks=options.allow_leaks,
            val_path=options.val_path,
            uses_saved_calibrations=options.mode != "generate" or options.stack_model is not None,
        ),
        task,
    )
    check_adaptation(options, sets.val)
    if options.adapt_prior:
        warn_of_unadapted(sets.tests)
    inputs = LadderInputs(options, task, sets.train, sets.tests[0].reviews, sets.val)
    kept = FinishedEntries(keep_in, inputs)
    entries: dict[str, dict[str, Any]] = {}
    answered: dict[str, list[Prediction]] = {}
    adapted: dict[str, AdaptedScores] = {}
    for key, (title, _) in list_entries(inputs).items():
        earlier = kept.read(key)
        say(f"ladder: {title.en}" + (f" (finished in an earlier run, kept in {keep_in})" if earlier else ""))
        outcome, peak_bytes = earlier or run_in_own_process(key, inputs)
        if isinstance(outcome, Sentence):
            entries[key] = {"title": asdict(title), "missing": asdict(outcome), "note": None}
            say(f"ladder: {title.en} is missing: {outcome.en}")
            continue
        if earlier is None:
            kept.keep(key, outcome, peak_bytes)
        answered[key] = outcome.predictions
        if options.adapt_prior and key != "majority":
            adapted[key] = adapt_entry(
                outcome.uncorrected,
                outcome.val_predictions,
                inputs,
                sets.facts["val"]["sha256"],
                TARGET_ACCURACY,
                options.stack_model if key == "stack" else None,
            )
        entries[key] = {
            "title": asdict(title),
            **describe_entry(outcome, inputs.test, task, options.seed, peak_bytes),
        }
    if not answered:
        why = entries[next(iter(entries))]["missing"]["en"]
        raise EngineError(
            f"No entry of the ladder gave an answer, the first because: {why}",
            where="eval ladder",
            next_step="fix that and run the same command",
        )
    add_comparisons(entries, answered, inputs.test)
    ladder = build_ladder(entries, options, chosen, sets)
    if adapted:
        after = {key: list(one.predictions) for key, one in adapted.items()}
        tests = compare_with_reference(after, inputs.test)
        ladder["adapted"] = describe_adaptation(adapted, tests, REFERENCE)
    if kept.n_used:
        ladder["warnings"].append(asdict(describe_continued(kept.n_used, len(entries))))
    return ladder


def find_task(options: LadderOptions) -> ChosenTask:
    """Return the task that all entries are asked.

    Raises:
        ConfigError: when there is no such task, or models and reviews have different ones.
    """
    named = (options.freeze_model, options.lora_model, options.base_model)
    asking, heads = [model for model in named if model is not None], list(options.encoder_models)
    if options.stack_model is not None and is_stack(options.stack_model):
        (heads if is_scoring_kind(choose_kind(AUTO, options.stack_model)) else asking).append(options.stack_model)
    return choose_task(
        options.task,
        models=asking,
        classifiers=heads,
        data=[options.csv_path, options.train_csv],
    )


def warn_of_unusable(options: LadderOptions) -> None:
    """Say before any work which of the models cannot be loaded: their entries will be missing from the ladder."""
    for model in options.encoder_models if is_address(options.engine) else options.list_models():
        try:
            check_model(model)
        except ConfigError as error:
            say(f"ladder: a model cannot be used and will be missing. {error.describe()}")


def run_in_own_process(key: str, inputs: LadderInputs) -> tuple[EntryAnswers | Sentence, int | None]:
    """Run one entry in its own process; return its answers, or why there are none, and its peak memory in bytes."""
    context = multiprocessing.get_context("spawn")
    with (
        MemoryWatch(os.getpid()) as watch,
        ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool,
    ):
        try:
            outcome = pool.submit(_run_stoppable_entry, key, inputs).result()
        except BrokenProcessPool:
            outcome = Sentence(
                "Its process was killed, most likely for lack of memory.", "其进程被终止，很可能是内存不足。"
            )
        except (KeyboardInterrupt, StoppedError):
            _stop_workers(pool)
            raise
    return outcome, watch.peak_bytes


def run_entry(key: str, inputs: LadderInputs) -> EntryAnswers | Sentence:
    """Run one entry in this process; return its answers, or why there are none."""
    try:
        plan = list_entries(inputs)[key][1](inputs)
        started = time.monotonic()
        with plan.open_engine() as engine:
            ready = time.monotonic()
            calibration, asked = None, engine
            if isinstance(engine, CalibratedEngine):
                calibration, asked = engine.calibration, engine.engine
            uncorrected = asked.predict(inputs.test)
            predictions = [calibration.correct(one) for one in uncorrected] if calibration else uncorrected
            done = time.monotonic()
            val_predictions = asked.predict(inputs.val) if inputs.val else []
            facts = plan.facts | (plan.measure(engine) if plan.measure else {})
    except EntryMissingError as missing:
        return missing.why
    except SentiFactoryError as error:
        return Sentence.write(f"It failed: {error.describe()}", f"运行失败：{error.what}。")
    return EntryAnswers(
        predictions,
        ready - started,
        done - ready,
        facts,
        plan.note,
        uncorrected if inputs.val else [],
        val_predictions,
    )


def _run_stoppable_entry(key: str, inputs: LadderInputs) -> EntryAnswers | Sentence:
    """Run an entry so that SIGTERM from the parent closes its engine, with a vLLM server."""
    with raise_on_signals():
        return run_entry(key, inputs)


def _stop_workers(pool: ProcessPoolExecutor) -> None:
    """End the processes of entries: gently, and after a while at once."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    pool.shutdown(wait=False)  # a worker that has ended its entry waits for the next one
    for worker in workers:
        worker.join(STOP_WAIT_S)
        worker.kill()


def describe_entry(
    answers: EntryAnswers, reviews: list[Review], task: Task, seed: int, peak_bytes: int | None
) -> dict[str, Any]:
    """Return the figures of an entry as plain JSON values."""
    truth = [review.label for review in reviews if review.label is not None]
    labels = [prediction.label for prediction in answers.predictions]
    probability = score_probabilities(truth, answers.predictions, task.labels, seed=seed)
    decided = cross_fit_decided(answers.predictions, reviews, TARGET_ACCURACY, seed)
    return {
        "metrics": compute_metrics(truth, labels, task.labels, seed=seed).to_dict(),
        "ece_equal_mass": probability.ece_equal_mass if probability else None,
        "ece_by_chance": probability.ece_by_chance if probability else None,
        "nll": probability.nll if probability else None,
        "n_missing": probability.n_missing if probability else None,
        "decided": decided.to_dict() if decided else None,
        "start_s": answers.start_s,
        "reviews_per_s": len(reviews) / answers.predict_s if answers.predict_s > 0 else None,
        "peak_bytes": peak_bytes,
        "note": asdict(answers.note) if answers.note else None,
        **answers.facts,
    }


def describe_continued(n_kept: int, n_entries: int) -> Sentence:
    """Return the warning that speeds were not all measured in the same run."""
    return Sentence.write(
        f"{n_kept} of the {n_entries} models were measured in an earlier, interrupted run of this command: their "
        "speeds may not be comparable.",
        f"{n_entries} 个模型中有 {n_kept} 个是在本命令先前中断的运行中测得的：比较速度时请留意。",
    )


def add_comparisons(
    entries: dict[str, dict[str, Any]], answered: Mapping[str, list[Prediction]], reviews: list[Review]
) -> None:
    """Add to every entry its paired test against `REFERENCE` on the same reviews.

    Readers look at the best entry first, so the data choose the test: all of them are one family, corrected by Holm.
    """
    tests = compare_with_reference(answered, reviews)
    for key in answered if REFERENCE in answered else ():
        entries[key][f"against_{REFERENCE}"] = tests[key].to_dict() if key in tests else None


def compare_with_reference(answered: Mapping[str, list[Prediction]], reviews: list[Review]) -> dict[str, PairedTest]:
    """Return the paired test of each entry against `REFERENCE`, corrected as one family; {} where that is missing."""
    if REFERENCE not in answered:
        return {}
    rights = {
        key: [prediction.label == review.label for prediction, review in zip(predictions, reviews, strict=True)]
        for key, predictions in answered.items()
    }
    return correct_family(
        {key: compare_paired(rights[REFERENCE], right) for key, right in rights.items() if key != REFERENCE}
    )


def build_ladder(
    entries: dict[str, dict[str, Any]], options: LadderOptions, chosen: ChosenTask, sets: ReviewSets
) -> dict[str, Any]:
    """Return the ladder as plain JSON values, the warnings first, without the folders of this machine."""
    ladder = {
        "warnings": [
            asdict(warning)
            for warning in (
                *warn_of_unfamiliar_models(chosen),
                *sets.warnings,
                *warn_of_small_test(len(sets.tests[0].reviews)),
            )
        ],
        "ladder_version": LADDER_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": chosen.to_json(),
        "data": {"test": sets.tests[0].facts, **sets.facts},
        "rungs": entries,
        "addable": list_addable(options, chosen.task),
        "settings": {
            "engine": mask_text(options.engine),
            "mode": options.mode,
            "shots": options.shots,
            "seed": options.seed,
            "max_samples": options.max_samples,
            "train_samples": options.train_samples,
            **({"adapt_prior": True} if options.adapt_prior else {}),
        },
        "versions": describe_versions([options.engine]),
        "machine": describe_machine(),
        "command": describe_command(),
    }
    return dict(hide_folders(ladder))
