"""The comparison of base and tuned, and of cheap baselines, on the same reviews: ask, score, conclude.

Options and files are checked before the first engine starts. The reviews are a seeded sample with the file's class
shares; they are not balanced, so the accuracy is that of the file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.splitting.sampling import sample_rows
from sentifactory.engines.ask import collect_answers
from sentifactory.engines.base import Mode
from sentifactory.engines.held_engine import HeldEngine
from sentifactory.engines.local.baselines import MajorityEngine, TfidfEngine
from sentifactory.engines.local.stack_folder import find_member
from sentifactory.engines.model_identity import KNOWN_BY_NAME, identify_engine, is_known_by_name
from sentifactory.engines.registry import build_engine, split_by_prompt
from sentifactory.evaluation.compare_options import SIDES, CompareOptions, check_options, describe_settings
from sentifactory.evaluation.report.report import Comparison, build_report, write_report
from sentifactory.evaluation.scoring.adapted_scores import warn_of_unadapted
from sentifactory.evaluation.scoring.asked_models import AskedModels, ComparedModel, Questions, ask_models
from sentifactory.evaluation.scoring.base_doubt import HAS_RANDOM_HEAD
from sentifactory.evaluation.scoring.model_costs import read_costs
from sentifactory.evaluation.scoring.results import conclude_tests
from sentifactory.evaluation.scoring.review_sets import ReviewOptions, ReviewSets, read_review_sets
from sentifactory.evaluation.scoring.scored_predictions import (
    Scores,
    check_calibrations,
    save_calibrations,
    score_models,
)
from sentifactory.evaluation.scoring.verdict import warn_of_unfamiliar_models
from sentifactory.evaluation.scoring.written_answers import WrittenAnswers, judge_written
from sentifactory.models.classifiers import has_random_head
from sentifactory.records import Review
from sentifactory.system.fingerprint import compute_fingerprint
from sentifactory.system.own_process import call_in_own_process
from sentifactory.system.progress import say
from sentifactory.task.few_shot import add_examples, choose_examples
from sentifactory.task.task import Task
from sentifactory.task.task_choice import ChosenTask, choose_task
from sentifactory.training.run.provenance import describe_model

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine


def run_comparison(options: CompareOptions) -> dict[str, Any]:
    """Compare, write report.json with its page and tables next to it, and return the report.

    Raises:
        ConfigError: when an option cannot be used.
        DataError: when a file of reviews cannot be used, or training has seen test reviews.
        EngineError: when a model cannot be run. No report is written then.
    """
    return compare_on_reviews(*read_inputs(options), options)


def read_inputs(options: CompareOptions) -> tuple[ReviewSets, ChosenTask]:
    """Return the reviews of a comparison and the task that is asked about them; no model is loaded.

    Raises:
        ConfigError: when an option cannot be used.
        DataError: when a file of reviews cannot be used, or training has seen test reviews.
    """
    check_options(options)
    chosen = find_task(options).announce()
    return read_review_sets(name_reviews(options), chosen.task), chosen


def compare_on_reviews(reviews: ReviewSets, chosen: ChosenTask, options: CompareOptions) -> dict[str, Any]:
    """Ask, score, conclude, and write the report.

    Args:
        reviews: from `read_inputs`.
        chosen: likewise.
        options: the same as there.

    Raises:
        EngineError: when a model cannot be run. No report is written then.
    """
    if options.adapt_prior:
        warn_of_unadapted(reviews.tests)
    with HeldEngine() as held:
        models, questions = list_models(reviews, options, chosen.task, held), Questions(reviews)
        check_calibrations(models, questions, chosen.task, options.val_path, options.mode)
        asked = ask_models(models, questions)
        written = ask_to_write(asked, reviews, options, chosen.task, held)
    scores = score_models(
        asked,
        reviews.tests,
        chosen.task,
        val_path=options.val_path,
        target_accuracy=options.target_accuracy,
        seed=options.seed,
        adapt_prior=options.adapt_prior,
    )
    report = conclude(scores, reviews, chosen, options, written)
    page = write_report(report, options.output_file)
    if options.val_path is not None:
        save_calibrations(asked.models, scores.calibrations)
    for journal in (*(model.journal for model in asked.models), name_journal(options, "written")):
        if journal is not None:
            journal.unlink(missing_ok=True)  # the report holds every answer
    say(f"Report: {options.output_file} and {page}")
    return report


def compare_in_own_process(reviews: ReviewSets, chosen: ChosenTask, options: CompareOptions) -> None:
    """Do what `compare_on_reviews` does in a process of its own, for callers that hold other things in memory.

    The memory of a model is that of the process that asks it. In a page's process it would include the page, and what
    libraries keep of the models that the page has loaded before.

    Raises:
        EngineError: when a model cannot be run, or the process is killed. No report is written then.
    """
    call_in_own_process(_compare_and_forget, reviews, chosen, options)


def _compare_and_forget(reviews: ReviewSets, chosen: ChosenTask, options: CompareOptions) -> None:
    compare_on_reviews(reviews, chosen, options)  # the report is in its file, and need not go through the pipe


def ask_to_write(
    asked: AskedModels, reviews: ReviewSets, options: CompareOptions, task: Task, held: HeldEngine
) -> WrittenAnswers | None:
    """Return what the tuned model writes about some reviews of the first test file; None where that is not wanted.

    Raises:
        EngineError: when the model fails.
    """
    if options.written_samples is None:
        return None
    tested = reviews.tests[0].reviews
    rows = sample_rows(tested, options.written_samples, options.seed)
    writing = _plan_questions("tuned", "written", options, task, held, mode="generate")
    say(f"written: {options.finetuned_model}")
    answers = collect_answers(writing.open_engine, [tested[row] for row in rows], writing.journal, writing.fingerprint)
    scored = asked.answers["tuned"].predictions[asked.questions.test_rows[0]]
    return judge_written(rows, tested, answers.predictions, scored)


def conclude(
    scores: Scores,
    reviews: ReviewSets,
    chosen: ChosenTask,
    options: CompareOptions,
    written: WrittenAnswers | None = None,
) -> dict[str, Any]:
    """Return the report: the verdict on each test file, with all figures."""
    return build_report(
        Comparison(
            chosen=chosen,
            results=conclude_tests(reviews.tests, scores.tests, len(chosen.task.labels), options.seed),
            data=reviews.facts,
            settings=describe_settings(options),
            written=written,
            warnings=[*warn_of_unfamiliar_models(chosen), *reviews.warnings],
        )
    )


def find_task(options: CompareOptions) -> ChosenTask:
    """Return the task that both models are asked.

    Raises:
        ConfigError: when there is no such task, or models and reviews have different ones.
    """
    asking, heads = split_by_prompt((options.engine_of(side), options.model_of(side)) for side in reversed(SIDES))
    data = [options.csv_path, *options.more_csv_paths, *filter(None, (options.val_path, options.train_csv))]
    return choose_task(options.task, models=asking, classifiers=heads, data=data)


def name_reviews(options: CompareOptions) -> ReviewOptions:
    """Return the files of reviews, as the options name them."""
    return ReviewOptions(
        csv_paths=(options.csv_path, *options.more_csv_paths),
        val_path=options.val_path,
        train_csv=options.train_csv,
        train_samples=options.train_samples,
        max_samples=options.max_samples,
        seed=options.seed,
        train_files=options.train_files,
        models=(options.finetuned_model, options.base_model),
        allow_leaks=options.allow_leaks,
        uses_saved_calibrations=options.val_path is None and options.mode != "generate",
    )


def list_models(reviews: ReviewSets, options: CompareOptions, task: Task, held: HeldEngine) -> list[ComparedModel]:
    """Return the models in the order in which they are asked.

    TF-IDF is there only with training reviews, and twice where the tuned model was trained on a part of them.

    Raises:
        DataError: when there are too few short training reviews for the examples of few-shot.
    """
    majority = MajorityEngine(reviews.train or reviews.tests[0].reviews)
    models = [ComparedModel("majority", f"always {task.labels[majority.label]}", "constant", lambda: majority)]
    for name, train in (("tfidf", reviews.train), ("tfidf_all", reviews.all_train)):
        if train:
            title = f"TF-IDF of 1 to 3 characters, logistic regression, {len(train)} reviews"
            costs: dict[str, Any] = {}
            fit = partial(_fit_tfidf, name, train, task, options.seed, costs)
            models.append(ComparedModel(name, title, "scikit-learn", fit, costs))
    base = _plan_questions("base", "base", options, task, held)
    facts = describe_model(options.base_model) | read_costs(options.base_model)
    if options.engine_of("base") == "encoder" and has_random_head(find_member(options.base_model)):
        facts[HAS_RANDOM_HEAD] = True
    models.append(replace(base, facts=facts))
    if options.shots:
        examples = choose_examples(reviews.train, len(task.labels), options.shots, options.seed)
        shown = add_examples(task, examples)
        few_shot = _plan_questions("base", "few_shot", options, shown, held)
        facts = models[-1].facts | {"prompt_template": shown.prompt_template}
        models.append(replace(few_shot, facts=facts, has_own_prompt=True))
    tuned = _plan_questions("tuned", "tuned", options, task, held)
    facts = describe_model(options.finetuned_model) | read_costs(options.finetuned_model)
    return [*models, replace(tuned, facts=facts)]


def _fit_tfidf(name: str, train: list[Review], task: Task, seed: int, costs: dict[str, Any]) -> TfidfEngine:
    """Train TF-IDF, and write down in `costs` how long that took and how large it is."""
    engine = TfidfEngine(task, name=name, seed=seed).fit(train)
    costs |= {"train_s": round(engine.train_s, 3), "size_bytes": engine.size_bytes}
    return engine


def name_journal(options: CompareOptions, name: str) -> Path:
    """Return the file that a model's answers are appended to as they come."""
    return Path(options.output_file).with_suffix(f".predictions.{name}.jsonl")


def _plan_questions(
    side: str, name: str, options: CompareOptions, task: Task, held: HeldEngine, *, mode: Mode | None = None
) -> ComparedModel:
    """Return the model of a side, `base` or `tuned`, as it is asked with a task under a name; without its facts."""
    engine, model, mode = options.engine_of(side), options.model_of(side), mode or options.mode

    def build() -> Engine:
        # Uncalibrated: the report shows the probabilities before and after the correction.
        return build_engine(
            engine, model, task, name=name, mode=mode, max_new_tokens=options.max_new_tokens, is_calibrated=False
        )

    journal = name_journal(options, name)
    identity = identify_engine(engine, model, task, mode=mode, max_new_tokens=options.max_new_tokens)
    if journal.exists() and is_known_by_name(identity):
        say(f"{name}: {KNOWN_BY_NAME}; with another --output_file everything is asked again")
    return ComparedModel(
        name,
        model,
        engine,
        lambda: held.lend((engine, model), build, task, mode=mode, name=name),
        journal=journal,
        fingerprint=compute_fingerprint(identity),
    )
