"""One training run on trial: a recipe is trained in a process of its own and judged by validation reviews.

A trial is a folder: `recipe.yaml` (a plain LLaMA-Factory file), `request.json` (how it is judged), `model` (what
LLaMA-Factory leaves), and `outcome.json` when it has ended well or badly. A trial without an outcome was killed: the
same call continues its training from the last complete checkpoint. Sweeps and the comparison of methods are made of
trials. Labels are scored (`engines`, mode `score`); the review's answer is never a matter of form.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json, write_text
from sentifactory.child_process import run_child_process
from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.json_object import read_json_object
from sentifactory.progress import say
from sentifactory.training.acceleration import TRUNK
from sentifactory.training.answer_loss import WHOLE_ANSWER
from sentifactory.training.checkpoints import hold_output_folder, remove_checkpoints
from sentifactory.training.recipe import load_recipe
from sentifactory.training.run_card import is_trained, read_card, read_device_peak
from sentifactory.training.taught_task import find_taught_task

RECIPE, REQUEST, OUTCOME, MODEL = "recipe.yaml", "request.json", "outcome.json", "model"
FINISHED, FAILED, KILLED = "finished", "failed", "killed"
# A process whose sweep was killed writes down how far it came, and holds its folder meanwhile.
FORMER_WAIT_S = 90.0


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """How a trial is trained, beside its recipe, and judged.

    Attributes:
        val_file: labelled reviews to judge by.
        task: what they are asked: a name, or a YAML file; None: what the training data teach.
        val_samples: most reviews to judge by; None for all.
        seed: chooses them.
        loss: `answer` or `label`.
        cache_gib: what all trunk caches together may take; None for the usual.
        is_trained: False judges the recipe's model as it is.
    """

    val_file: str
    task: str | None = None
    val_samples: int | None = None
    seed: int = 42
    loss: str = WHOLE_ANSWER
    cache_gib: float | None = None
    is_trained: bool = True


def write_trial(folder: Path, settings: Mapping[str, Any], request: TrialRequest, header: str) -> None:
    """Write down what a trial is; its recipe gets the trial's own output folder.

    Args:
        folder: of the trial.
        settings: the recipe.
        request: how it is judged.
        header: comment lines above the recipe.
    """
    write_recipe(folder / RECIPE, {**settings, "output_dir": str(folder / MODEL)}, header)
    write_json(folder / REQUEST, asdict(request))


def write_recipe(path: Path, settings: Mapping[str, Any], header: str) -> None:
    """Write a recipe as a YAML file that LLaMA-Factory reads."""
    import yaml

    comment = "".join(f"# {line}\n" for line in header.splitlines())
    write_text(path, comment + "\n" + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """Return how a trial ended, None for one that has not, or was killed."""
    return read_json_object(folder / OUTCOME)


def run_trial_apart(folder: Path) -> dict[str, Any]:
    """Run a trial in a process of its own, and return its outcome; status `killed` where it left none."""
    _wait_for_former(folder / MODEL)
    (folder / OUTCOME).unlink(missing_ok=True)
    code = run_child_process([sys.executable, "-m", "sentifactory.training.trial", str(folder)])
    outcome = read_outcome(folder)
    if outcome is not None:
        return outcome
    reason = f"signal {-code}" + (", most likely for lack of memory" if code == -9 else "") if code < 0 else f"{code}"
    return {"status": KILLED, "error": f"Its process was ended ({reason})."}


def _wait_for_former(output_dir: Path) -> None:
    """Wait for the end of an earlier process that still writes down how far it came."""
    deadline = time.monotonic() + FORMER_WAIT_S
    while True:
        try:
            with hold_output_folder(output_dir):
                return
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def run_trial(folder: Path) -> dict[str, Any]:
    """Train and judge in this process, and write the outcome; a failure is an outcome as well."""
    outcome: dict[str, Any]
    try:
        request = TrialRequest(**json.loads((folder / REQUEST).read_text(encoding="utf-8")))
        training = train(folder, request) if request.is_trained else None
        outcome = {"status": FINISHED, "error": None, "training": training, **judge(folder, request)}
    except SentiFactoryError as error:
        say(f"Error: {error.describe()}")
        outcome = {"status": FAILED, "error": error.describe()}
    except Exception as error:
        traceback.print_exc()
        outcome = {"status": FAILED, "error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    write_json(folder / OUTCOME, outcome)
    return outcome


def train(folder: Path, request: TrialRequest) -> dict[str, Any]:
    """Train the recipe, unless it stands there finished, and return what it took.

    Raises:
        SentiFactoryError: when it cannot be trained.
    """
    import gc

    from sentifactory.training.llamafactory import train_recipe

    recipe = load_recipe(folder / RECIPE)
    if not is_trained(recipe, request.loss):
        train_recipe(recipe.path, loss=request.loss, cache_gib=request.cache_gib, task=request.task)
        gc.collect()  # model and optimizer, before the model is loaded again to be judged
    card = read_card(folder / MODEL) or {}
    remove_checkpoints(folder / MODEL)
    speed, memory = card.get("speed") or {}, card.get("memory") or {}
    return {
        "train_time_s": speed.get("train_time_s"),
        "wall_time_s": card.get("wall_time_s"),
        "steps": card.get("steps"),
        "samples": speed.get("samples"),
        "peak_bytes": read_device_peak(memory) if memory else None,
        "parameters": (card.get("parameters") or {}).get("trainable"),
        "continued_from": card.get("continued_from"),
        "trunk": next((entry for entry in card.get("accelerations", ()) if entry["name"] == TRUNK), None),
    }


def judge(folder: Path, request: TrialRequest) -> dict[str, Any]:
    """Score the validation reviews, and return figures and answers.

    Raises:
        SentiFactoryError: when the model or the reviews cannot be used.
    """
    from transformers.utils import logging as transformers_logging

    from sentifactory.corpus.sampling import read_labelled, take_sample
    from sentifactory.engines.transformers import TransformersEngine
    from sentifactory.evaluation.metrics import compute_metrics
    from sentifactory.task_choice import choose_task

    if request.is_trained:
        model = str(folder / MODEL)
        task = choose_task(request.task, models=[model], data=[request.val_file]).task
    else:  # it is asked what the others are taught
        settings = load_recipe(folder / RECIPE).settings
        model, task = settings["model_name_or_path"], find_taught_task(settings, request.task).scored_by
    reviews, _ = read_labelled(request.val_file, task)
    reviews = take_sample(reviews, request.val_samples, request.seed)
    transformers_logging.set_verbosity_warning()  # LLaMA-Factory has raised it
    start_s = time.monotonic()
    with TransformersEngine(model, task, name=folder.name, mode="score") as engine:
        answers = [prediction.label for prediction in engine.predict(reviews)]
    truth = [review.label for review in reviews if review.label is not None]
    metrics = compute_metrics(truth, answers, task.labels, seed=request.seed)
    return {
        "metrics": metrics.to_dict(),
        "right": [answer == true for answer, true in zip(answers, truth, strict=True)],
        "judging_s": round(time.monotonic() - start_s, 3),
    }


def remove_weights(folder: Path) -> None:
    """Give back a trial's disk: its cards and logs stay."""
    for pattern in ("*.safetensors", "*.bin", "tokenizer.json"):
        for file in (folder / MODEL).glob(pattern):
            file.unlink()
    remove_checkpoints(folder / MODEL)


if __name__ == "__main__":
    try:
        run_trial(Path(sys.argv[1]))
    except KeyboardInterrupt:  # the command that started this says so
        sys.exit(130)
