"""The comparison: base and tuned on the same reviews, one engine after the other, and the cheap baselines beside them.

Everything that can be wrong with the options and the files is found before the first engine starts. The reviews are a
seeded sample that keeps the file's class shares; they are not balanced, so that accuracy is that of the file.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.manifest import count_labels, hash_file
from sentifactory.engines.base import MAX_NEW_TOKENS
from sentifactory.engines.registry import build_engine, check_engine
from sentifactory.engines.tfidf import TfidfEngine
from sentifactory.errors import ConfigError
from sentifactory.evaluation.baselines import MajorityEngine
from sentifactory.evaluation.leak_check import check_test_file, describe_finding
from sentifactory.evaluation.outcomes import Contender, ask_contenders
from sentifactory.evaluation.provenance import describe_model
from sentifactory.evaluation.report import Comparison, build_report, check_report_place, write_report
from sentifactory.evaluation.sampling import read_labelled, take_sample
from sentifactory.evaluation.verdict import Sentence, compare_pairs, decide_verdict
from sentifactory.progress import say
from sentifactory.records import Review
from sentifactory.task import BINARY_SENTIMENT, Task
from sentifactory.task_files import load_task

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine

SIDES = ("base", "tuned")


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The options of a comparison, as the command takes them.

    Attributes:
        csv_path: test reviews.
        base_model: folder, hub id, or name at an address.
        finetuned_model: likewise.
        output_file: where report.json goes; the page is written beside it.
        max_samples: most reviews to ask; None for all of the file.
        engine: `vllm`, `transformers`, or an OpenAI-compatible address that serves both models.
        base_url: address of the base model alone; wins over `engine`.
        tuned_url: address of the tuned model alone; wins over `engine`.
        task: name of the task.
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
    max_samples: int | None = None
    engine: str = "vllm"
    base_url: str | None = None
    tuned_url: str | None = None
    task: str = BINARY_SENTIMENT.name
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
        return (self.base_url if side == "base" else self.tuned_url) or self.engine


@dataclass(frozen=True, slots=True)
class ReviewSet:
    """The reviews of a comparison and what the report says about them."""

    test: list[Review]
    train: list[Review]
    facts: dict[str, Any]
    warnings: list[Sentence]


def run_comparison(options: CompareOptions) -> dict[str, Any]:
    """Compare, write report.json and report.html, and return the report.

    Raises:
        ConfigError: when an option cannot be used.
        DataError: when a file of reviews cannot be used, or test reviews were seen in training.
        EngineError: when a model cannot be run. No report is written then.
    """
    check_options(options)
    task = load_task(options.task)
    reviews = read_review_set(options, task)
    contenders = [*build_baselines(reviews, options, task), *(build_side(side, options, task) for side in SIDES)]
    outcomes = ask_contenders(contenders, reviews.test, task)
    tests = compare_pairs(outcomes, reviews.test)
    comparison = Comparison(
        task=task,
        reviews=reviews.test,
        outcomes=outcomes,
        tests=tests,
        verdict=decide_verdict(outcomes, tests),
        data=reviews.facts,
        settings=describe_settings(options),
        warnings=reviews.warnings,
    )
    report = build_report(comparison)
    page = write_report(report, options.output_file)
    say(f"Report: {options.output_file} and {page}")
    return report


def check_options(options: CompareOptions) -> None:
    """Refuse what cannot work, before anything is read or started.

    Raises:
        ConfigError: for the first option that cannot be used.
    """
    for name in ("max_samples", "train_samples", "max_new_tokens"):
        check_count(name, getattr(options, name))
    load_task(options.task)
    if options.train_samples is not None and options.train_csv is None:
        raise ConfigError("--train_samples needs --train_csv", next_step="give the training reviews as well")
    check_report_place(options.output_file)
    for side in SIDES:
        check_engine(options.engine_of(side), options.model_of(side))


def check_count(option: str, value: int | None) -> None:
    """Refuse a count below 1.

    Raises:
        ConfigError: naming the option.
    """
    if value is not None and value < 1:
        raise ConfigError(f"--{option} is {value}", expected="1 or more", next_step="correct the option")


def read_review_set(options: CompareOptions, task: Task) -> ReviewSet:
    """Read test and training reviews, refuse what training has seen, and take the sample.

    Raises:
        DataError: when a file cannot be used.
        LeakError: when training has seen test reviews.
    """
    everything, n_empty = read_labelled(options.csv_path, task)
    test = take_sample(everything, options.max_samples, options.seed)
    facts: dict[str, Any] = {
        "test": {
            "file": options.csv_path,
            "sha256": hash_file(Path(options.csv_path)),
            "reviews": len(everything),
            "rows_without_text": n_empty,
            "labels": count_labels(everything, task),
            "asked": len(test),
            "asked_labels": count_labels(test, task),
            "sampling": "all reviews" if len(test) == len(everything) else "stratified: class shares of the file",
            "seed": options.seed,
        }
    }
    named = [*options.train_files, *([options.train_csv] if options.train_csv else [])]
    leaks, warnings = check_test_file(
        options.csv_path, options.finetuned_model, named, allow_leaks=options.allow_leaks
    )
    facts["leak_check"] = {**leaks.to_json(), "sentence": asdict(describe_finding(leaks))}
    if options.train_csv is None:
        return ReviewSet(test, [], facts, warnings)
    seen, _ = read_labelled(options.train_csv, task)
    train, _ = read_labelled(options.train_csv, task, options.train_samples)
    facts["train"] = {
        "file": options.train_csv,
        "sha256": hash_file(Path(options.train_csv)),
        "reviews": len(seen),
        "used_by_tfidf": len(train),
        "overlap_with_test": leaks.n_leaked,
    }
    return ReviewSet(test, train, facts, warnings)


def build_baselines(reviews: ReviewSet, options: CompareOptions, task: Task) -> list[Contender]:
    """Return the contenders that cost nothing; TF-IDF only where there are training reviews."""
    source = reviews.train or reviews.test
    majority = MajorityEngine(source)
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
        return build_engine(engine, model, task, name=side, max_new_tokens=options.max_new_tokens)

    return Contender(side, model, engine, open_engine, describe_model(model))


def describe_settings(options: CompareOptions) -> dict[str, Any]:
    """Return the options that decide a result, for the report."""
    return {
        "engines": {side: options.engine_of(side) for side in SIDES},
        "decoding": "greedy",
        "max_new_tokens": options.max_new_tokens,
        "max_samples": options.max_samples,
        "seed": options.seed,
        "scoring": "strict: an unparsed answer is wrong",
    }
