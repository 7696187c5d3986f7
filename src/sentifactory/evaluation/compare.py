"""The comparison: base and tuned on the same reviews, one engine after the other, and the cheap baselines beside them.

Each engine is started once and asked everything: all test files, and the validation reviews where there are any.
Everything that can be wrong with the options and the files is found before the first engine starts. The reviews are a
seeded sample that keeps the file's class shares; they are not balanced, so that accuracy is that of the file.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.engines.base import MAX_NEW_TOKENS, Mode
from sentifactory.engines.identity import KNOWN_BY_NAME, identify_engine, is_known_by_name
from sentifactory.engines.registry import build_engine, check_engine, check_mode, choose_kind, split_by_prompt
from sentifactory.engines.tfidf import TfidfEngine
from sentifactory.errors import ConfigError
from sentifactory.evaluation.baselines import MajorityEngine
from sentifactory.evaluation.judging import AskingPlan, choose_calibration, judge_test_set, save_calibrations
from sentifactory.evaluation.outcomes import Contender, ask_contenders
from sentifactory.evaluation.predicting import compute_fingerprint
from sentifactory.evaluation.provenance import describe_model
from sentifactory.evaluation.report import Comparison, build_report, check_report_place, write_report
from sentifactory.evaluation.review_sets import ReviewOptions, ReviewSets, read_review_sets
from sentifactory.evaluation.verdict import warn_of_strangers
from sentifactory.progress import say
from sentifactory.records import Review
from sentifactory.task import Task
from sentifactory.task_choice import ChosenTask, choose_task

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine

SIDES = ("base", "tuned")


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The options of a comparison, as the command takes them.

    Attributes:
        csv_path: test reviews; the verdict is about these.
        more_csv_paths: further files of test reviews, each reported with its difference from the first.
        val_path: validation reviews: calibrations are fitted on them and saved beside the models.
        target_accuracy: the accuracy that answers above the threshold of a calibration shall reach.
        base_model: folder, hub id, or name at an address.
        finetuned_model: likewise.
        output_file: where report.json goes; the page is written beside it.
        max_samples: most reviews to ask; None for all of the file.
        engine: `vllm`, `transformers`, `encoder`, `auto` (for each side the one of these two that fits its model), or
            an OpenAI-compatible address that serves both models.
        base_url: address of the base model alone; wins over `engine`.
        tuned_url: address of the tuned model alone; wins over `engine`.
        mode: `generate`, `constrain` or `score`.
        task: name or YAML file of the task; None: what the models were taught.
        train_csv: reviews that training saw: for TF-IDF, and to refuse test reviews among them.
        train_files: further files that training saw, besides those of the tuned model's run card.
        train_samples: only the first so many rows of `train_csv` train TF-IDF (LLaMA-Factory's `max_samples`).
        max_new_tokens: longest reply, in tokens.
        seed: chooses the sample.
        allow_leaks: compare although training has seen test reviews; the report then says so first.
    """

    csv_path: str
    base_model: str
    finetuned_model: str
    output_file: str
    more_csv_paths: tuple[str, ...] = ()
    val_path: str | None = None
    target_accuracy: float = 0.95
    max_samples: int | None = None
    engine: str = "vllm"
    base_url: str | None = None
    tuned_url: str | None = None
    mode: Mode = "generate"
    task: str | None = None
    train_csv: str | None = None
    train_files: tuple[str, ...] = ()
    train_samples: int | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    seed: int = 42
    allow_leaks: bool = False

    def model_of(self, side: str) -> str:
        """Return the model of a side."""
        return self.base_model if side == "base" else self.finetuned_model

    def engine_of(self, side: str) -> str:
        """Return the engine of a side: a local kind, or an address."""
        address = self.base_url if side == "base" else self.tuned_url
        return address or choose_kind(self.engine, self.model_of(side))


def run_comparison(options: CompareOptions) -> dict[str, Any]:
    """Compare, write report.json, its page and tables beside it, and return the report.

    Raises:
        ConfigError: when an option cannot be used.
        DataError: when a file of reviews cannot be used, or test reviews were seen in training.
        EngineError: when a model cannot be run. No report is written then.
    """
    return compare_on(read_reviews(options), options)


def read_reviews(options: CompareOptions) -> ReviewSets:
    """Return the reviews of a comparison; no model is needed for this.

    Raises:
        ConfigError: when an option cannot be used.
        DataError: when a file of reviews cannot be used, or test reviews were seen in training.
    """
    check_options(options)
    return read_review_sets(name_reviews(options), find_task(options).announce().task)


def compare_on(reviews: ReviewSets, options: CompareOptions) -> dict[str, Any]:
    """Do what `run_comparison` does after it has read the reviews.

    Args:
        reviews: from `read_reviews`.
        options: the same.

    Raises:
        EngineError: when a model cannot be run. No report is written then.
    """
    chosen = find_task(options)
    task = chosen.task
    contenders = [*build_baselines(reviews, options, task), *(build_side(side, options, task) for side in SIDES)]
    plan = AskingPlan(reviews)
    answers = ask_contenders(contenders, plan.everything)
    calibrations = {
        contender.name: choose_calibration(
            contender, answers[contender.name], plan, task, options.val_path, options.target_accuracy
        )
        for contender in contenders
    }
    results = [
        judge_test_set(test, rows, contenders, answers, calibrations, task, options.seed)
        for test, rows in zip(reviews.tests, plan.test_rows, strict=True)
    ]
    report = build_report(
        Comparison(
            chosen=chosen,
            results=results,
            data=reviews.facts,
            settings=describe_settings(options),
            warnings=[*warn_of_strangers(chosen), *reviews.warnings],
        )
    )
    page = write_report(report, options.output_file)
    if options.val_path is not None:
        save_calibrations(contenders, calibrations)
    for contender in contenders:
        if contender.journal is not None:
            contender.journal.unlink(missing_ok=True)  # every answer stands in the report
    say(f"Report: {options.output_file} and {page}")
    return report


def check_options(options: CompareOptions) -> None:
    """Refuse what cannot work, before anything is read or started.

    Raises:
        ConfigError: for the first option that cannot be used.
    """
    for name in ("max_samples", "train_samples", "max_new_tokens"):
        check_count(name, getattr(options, name))
    if options.train_samples is not None and options.train_csv is None:
        raise ConfigError("--train_samples needs --train_csv", next_step="give the training reviews as well")
    check_mode(options.mode)
    if not 0 < options.target_accuracy <= 1:
        raise ConfigError(
            f"--target_accuracy is {options.target_accuracy:g}", expected="a share above 0 and up to 1, such as 0.95"
        )
    inputs = [options.csv_path, *options.more_csv_paths, options.val_path, options.train_csv, *options.train_files]
    check_report_place(options.output_file, [*inputs, options.base_model, options.finetuned_model, options.task])
    for side in SIDES:
        check_engine(options.engine, options.model_of(side))
        check_engine(options.engine_of(side), options.model_of(side))
        check_mode(options.mode, options.engine_of(side))


def find_task(options: CompareOptions) -> ChosenTask:
    """Return what both sides are asked.

    Raises:
        ConfigError: when there is no such task, or the sides and the reviews do not agree on one.
    """
    asking, heads = split_by_prompt((options.engine_of(side), options.model_of(side)) for side in reversed(SIDES))
    data = [options.csv_path, *options.more_csv_paths, *filter(None, (options.val_path, options.train_csv))]
    return choose_task(options.task, models=asking, classifiers=heads, data=data)


def name_reviews(options: CompareOptions) -> ReviewOptions:
    """Return which reviews the options name."""
    return ReviewOptions(
        csv_paths=(options.csv_path, *options.more_csv_paths),
        val_path=options.val_path,
        train_csv=options.train_csv,
        train_samples=options.train_samples,
        max_samples=options.max_samples,
        seed=options.seed,
        train_files=options.train_files,
        tuned_model=options.finetuned_model,
        allow_leaks=options.allow_leaks,
    )


def check_count(option: str, value: int | None) -> None:
    """Refuse a count below 1.

    Raises:
        ConfigError: naming the option.
    """
    if value is not None and value < 1:
        raise ConfigError(f"--{option} is {value}", expected="1 or more", next_step="correct the option")


def build_baselines(reviews: ReviewSets, options: CompareOptions, task: Task) -> list[Contender]:
    """Return the contenders that cost nothing; TF-IDF only where there are training reviews."""
    majority = MajorityEngine(reviews.train or reviews.tests[0].reviews)
    answer = f"always {task.labels[majority.label]}"
    found = [Contender("majority", answer, "constant", lambda: majority)]
    if reviews.train:
        model = f"TF-IDF of 1 to 3 characters, logistic regression, {len(reviews.train)} reviews"
        found.append(Contender("tfidf", model, "scikit-learn", lambda: fit_tfidf(reviews.train, options, task)))
    return found


def fit_tfidf(train: list[Review], options: CompareOptions, task: Task) -> TfidfEngine:
    """Return TF-IDF trained on the training reviews."""
    return TfidfEngine(task, seed=options.seed).fit(train)


def build_side(side: str, options: CompareOptions, task: Task) -> Contender:
    """Return the contender `base` or `tuned`."""
    engine, model = options.engine_of(side), options.model_of(side)

    def open_engine() -> AbstractContextManager[Engine]:
        # As the model gives them: the report shows the probabilities before and after the correction.
        return build_engine(
            engine,
            model,
            task,
            name=side,
            mode=options.mode,
            max_new_tokens=options.max_new_tokens,
            is_calibrated=False,
        )

    facts = describe_model(model)
    journal = Path(options.output_file).with_suffix(f".predictions.{side}.jsonl")
    identity = identify_engine(engine, model, task, mode=options.mode, max_new_tokens=options.max_new_tokens)
    if journal.exists() and is_known_by_name(identity):
        say(f"{side}: {KNOWN_BY_NAME}; another --output_file asks it everything anew")
    return Contender(
        side,
        model,
        engine,
        open_engine,
        facts,
        journal=journal,
        fingerprint=compute_fingerprint(identity),
    )


def describe_settings(options: CompareOptions) -> dict[str, Any]:
    """Return the options that decide a result, for the report."""
    return {
        "engines": {side: options.engine_of(side) for side in SIDES},
        "mode": options.mode,
        "decoding": "greedy",
        "max_new_tokens": options.max_new_tokens,
        "max_samples": options.max_samples,
        "seed": options.seed,
        "target_accuracy": options.target_accuracy,
        "scoring": "strict: an unparsed answer is wrong",
    }
