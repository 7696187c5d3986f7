"""The ladder: every model on the same test reviews, from the commonest label to a tuned language model.

Each rung runs in a process of its own, one after the other, so that its memory is its own and its speed is measured in
the same run. What is missing on this machine is said to be missing; a rung that fails is said to have failed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sentifactory.engines.base import Mode
from sentifactory.engines.registry import check_mode
from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.evaluation.kept_rungs import KeptRungs
from sentifactory.evaluation.memory import MemoryWatch
from sentifactory.evaluation.metrics import compute_metrics
from sentifactory.evaluation.probabilities import score_probabilities
from sentifactory.evaluation.provenance import describe_command, describe_machine, describe_versions
from sentifactory.evaluation.review_sets import ReviewOptions, ReviewSets, read_review_sets
from sentifactory.evaluation.rungs import RungAnswers, RungMissingError, RungSetting, list_rungs
from sentifactory.evaluation.significance import compare_paired, correct_family
from sentifactory.evaluation.verdict import Sentence, warn_of_strangers
from sentifactory.progress import say
from sentifactory.records import Prediction, Review
from sentifactory.supervisor import PR_SET_PDEATHSIG, call_prctl
from sentifactory.task import Task
from sentifactory.task_choice import ChosenTask, choose_task

LADDER_VERSION = 2
# Every rung is compared with this one: it is cheap, and a model that does not beat it is not worth its price.
REFERENCE = "tfidf"


@dataclass(frozen=True, slots=True)
class LadderOptions:
    """The options of a ladder; see `RungSetting` and the options of a comparison of the same names."""

    csv_path: str
    train_csv: str
    base_model: str | None = None
    freeze_model: str | None = None
    lora_model: str | None = None
    encoder_models: tuple[str, ...] = ()
    engine: str = "vllm"
    mode: Mode = "score"
    shots: int = 4
    task: str | None = None
    max_samples: int | None = None
    train_samples: int | None = None
    seed: int = 42
    allow_leaks: bool = False


def climb_ladder(options: LadderOptions, keep_in: Path | None = None) -> dict[str, Any]:
    """Run every rung and return the ladder as plain JSON values.

    Args:
        options: see there.
        keep_in: folder in which rungs that have ended are kept, so that the same ladder continues; None: nowhere.

    Raises:
        ConfigError: when an option cannot be used, or the folder not written.
        DataError: when a file of reviews cannot be used, or test reviews were seen in training.
    """
    check_mode(options.mode)
    if options.shots < 1:
        raise ConfigError(f"--shots is {options.shots}", expected="1 or more")
    chosen = find_task(options).announce()
    task = chosen.task
    sets = read_review_sets(
        ReviewOptions(
            csv_paths=(options.csv_path,),
            train_csv=options.train_csv,
            train_samples=options.train_samples,
            max_samples=options.max_samples,
            seed=options.seed,
            allow_leaks=options.allow_leaks,
        ),
        task,
    )
    setting = RungSetting(
        task=task,
        train=sets.train,
        test=sets.tests[0].reviews,
        engine=options.engine,
        mode=options.mode,
        base_model=options.base_model,
        freeze_model=options.freeze_model,
        lora_model=options.lora_model,
        shots=options.shots,
        seed=options.seed,
        encoder_models=options.encoder_models,
    )
    kept = KeptRungs(keep_in, setting)
    rungs: dict[str, dict[str, Any]] = {}
    answered: dict[str, list[Prediction]] = {}
    for key, (title, _) in list_rungs(setting).items():
        earlier = kept.read(key)
        say(f"ladder: {title.en}" + (f" (ended in an earlier run, kept in {keep_in})" if earlier else ""))
        outcome, peak_bytes = earlier or run_apart(key, setting)
        if isinstance(outcome, Sentence):
            rungs[key] = {"title": asdict(title), "missing": asdict(outcome), "note": None}
            say(f"ladder: {title.en} is missing: {outcome.en}")
            continue
        if earlier is None:
            kept.keep(key, outcome, peak_bytes)
        answered[key] = outcome.predictions
        rungs[key] = {"title": asdict(title), **describe_rung(outcome, setting.test, task, options.seed, peak_bytes)}
    add_comparisons(rungs, answered, setting.test, options.seed)
    ladder = build_ladder(rungs, options, chosen, sets)
    if kept.n_used:
        ladder["warnings"].append(asdict(describe_continued(kept.n_used, len(rungs))))
    return ladder


def find_task(options: LadderOptions) -> ChosenTask:
    """Return what all rungs are asked.

    Raises:
        ConfigError: when there is no such task, or the models and the reviews do not agree on one.
    """
    named = (options.freeze_model, options.lora_model, options.base_model)
    return choose_task(
        options.task,
        models=[model for model in named if model is not None],
        classifiers=options.encoder_models,
        data=[options.csv_path, options.train_csv],
    )


def run_apart(key: str, setting: RungSetting) -> tuple[RungAnswers | Sentence, int | None]:
    """Run one rung in a process of its own; return its answers, or why there are none, and its peak of bytes."""
    context = multiprocessing.get_context("spawn")
    with (
        MemoryWatch(os.getpid()) as watch,
        ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool,
    ):
        try:
            outcome = pool.submit(run_rung, key, setting).result()
        except BrokenProcessPool:
            outcome = Sentence(
                "Its process was killed, most likely for lack of memory.", "其进程被终止，很可能是内存不足。"
            )
    return outcome, watch.peak_bytes


def run_rung(key: str, setting: RungSetting) -> RungAnswers | Sentence:
    """Run one rung in this process; return its answers, or why there are none."""
    try:
        plan = list_rungs(setting)[key][1](setting)
        started = time.monotonic()
        with plan.open_engine() as engine:
            ready = time.monotonic()
            predictions = engine.predict(setting.test)
            done = time.monotonic()
            facts = plan.facts | (plan.measure(engine) if plan.measure else {})
    except RungMissingError as missing:
        return missing.why
    except SentiFactoryError as error:
        return Sentence.write(f"It failed: {error.describe()}", f"运行失败：{error.what}。")
    if facts.pop("trained_here", False):
        facts["train_s"] = ready - started
    return RungAnswers(predictions, ready - started, done - ready, facts, plan.note)


def _end_with_parent() -> None:
    call_prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def describe_rung(
    answers: RungAnswers, reviews: list[Review], task: Task, seed: int, peak_bytes: int | None
) -> dict[str, Any]:
    """Return the figures of a rung as plain JSON values."""
    truth = [review.label for review in reviews if review.label is not None]
    labels = [prediction.label for prediction in answers.predictions]
    probability = score_probabilities(truth, answers.predictions, task.labels, seed=seed)
    return {
        "metrics": compute_metrics(truth, labels, task.labels, seed=seed).to_dict(),
        "ece_equal_mass": probability.ece_equal_mass if probability else None,
        "ece_by_chance": probability.ece_by_chance if probability else None,
        "nll": probability.nll if probability else None,
        "n_missing": probability.n_missing if probability else None,
        "start_s": answers.start_s,
        "reviews_per_s": len(reviews) / answers.predict_s if answers.predict_s > 0 else None,
        "peak_bytes": peak_bytes,
        "note": asdict(answers.note) if answers.note else None,
        **answers.facts,
    }


def describe_continued(n_kept: int, n_rungs: int) -> Sentence:
    """Return that speeds were not all measured side by side."""
    return Sentence.write(
        f"{n_kept} of the {n_rungs} rungs were measured in an earlier run of this command that was cut off: compare "
        "speeds with that in mind.",
        f"{n_rungs} 个模型中有 {n_kept} 个是在本命令先前中断的运行中测得的：比较速度时请留意。",
    )


def add_comparisons(
    rungs: dict[str, dict[str, Any]], answered: Mapping[str, list[Prediction]], reviews: list[Review], seed: int
) -> None:
    """Give every rung its paired test against `REFERENCE`, on the same reviews.

    The data say which of them is looked at, the best one first: all of them are one family, corrected by Holm.
    """
    if REFERENCE not in answered:
        return
    rights = {
        key: [prediction.label == review.label for prediction, review in zip(predictions, reviews, strict=True)]
        for key, predictions in answered.items()
    }
    tests = correct_family(
        {key: compare_paired(rights[REFERENCE], right, seed=seed) for key, right in rights.items() if key != REFERENCE}
    )
    for key in rights:
        rungs[key][f"against_{REFERENCE}"] = tests[key].to_dict() if key in tests else None


def build_ladder(
    rungs: dict[str, dict[str, Any]], options: LadderOptions, chosen: ChosenTask, sets: ReviewSets
) -> dict[str, Any]:
    """Return the ladder as plain JSON values; the warnings stand first."""
    return {
        "warnings": [asdict(warning) for warning in (*warn_of_strangers(chosen), *sets.warnings)],
        "ladder_version": LADDER_VERSION,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": chosen.to_json(),
        "data": {"test": sets.tests[0].facts, **sets.facts},
        "rungs": rungs,
        "settings": {
            "engine": options.engine,
            "mode": options.mode,
            "shots": options.shots,
            "seed": options.seed,
            "max_samples": options.max_samples,
            "train_samples": options.train_samples,
        },
        "versions": describe_versions([options.engine]),
        "machine": describe_machine(),
        "command": describe_command(),
    }
