"""One trial: a recipe is trained in its own process and scored on validation reviews.

A trial is a folder: `recipe.yaml` (a plain LLaMA-Factory file), `request.json` (how it is evaluated), `model`
(LLaMA-Factory's output), and `outcome.json` once it has finished or failed. A trial without an outcome was killed: the
same call continues its training from the last complete checkpoint. Sweeps and the comparison of tuning methods consist
of trials. Labels are scored in the engines' mode `score`, so that the format of the answer does not matter.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.hardware import read_device_peak
from sentifactory.system.json_text import read_json, read_json_object
from sentifactory.system.process import run_child_process
from sentifactory.system.progress import say
from sentifactory.task.task_choice import choose_task
from sentifactory.training.acceleration.accelerations import FROZEN_LAYERS
from sentifactory.training.acceleration.answer_logits import WHOLE_ANSWER
from sentifactory.training.recipe.recipe import load_recipe
from sentifactory.training.run.checkpoints import hold_output_folder, remove_checkpoints
from sentifactory.training.run.run_card import is_trained, read_card
from sentifactory.training.run.run_task import find_training_task

RECIPE, REQUEST, OUTCOME, MODEL = "recipe.yaml", "request.json", "outcome.json", "model"
FINISHED, FAILED, KILLED = "finished", "failed", "killed"
# After its sweep is killed, a trial's process still saves a checkpoint, and holds the lock of its folder meanwhile.
PREVIOUS_WAIT_S = 90.0


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """How a trial is trained, besides its recipe, and evaluated.

    Attributes:
        val_file: labelled validation reviews.
        task: of the reviews, a name or a YAML file; None: that of the training data.
        val_samples: maximum number of validation reviews; None: all.
        seed: of their selection.
        loss: `answer` or `label`.
        cache_gib: disk space for all caches of frozen layers; None: the default.
        is_trained: False evaluates the recipe's model without training.
    """

    val_file: str
    task: str | None = None
    val_samples: int | None = None
    seed: int = 42
    loss: str = WHOLE_ANSWER
    cache_gib: float | None = None
    is_trained: bool = True


def write_trial(folder: Path, settings: Mapping[str, Any], request: TrialRequest, header: str) -> None:
    """Write recipe and request of a trial; the output folder is in the trial's folder.

    Args:
        folder: of the trial.
        settings: of the recipe.
        request: how it is trained and evaluated.
        header: comment lines for the recipe.
    """
    write_recipe(folder / RECIPE, {**settings, "output_dir": str(folder / MODEL)}, header)
    write_json(folder / REQUEST, asdict(request))


def write_recipe(path: Path, settings: Mapping[str, Any], header: str) -> None:
    """Write a recipe as a YAML file for LLaMA-Factory."""
    import yaml

    comment = "".join(f"# {line}\n" for line in header.splitlines())
    write_text(path, comment + "\n" + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """Return the outcome of a trial, or None for one that is not over or was killed."""
    return read_json_object(folder / OUTCOME)


def run_trial_in_subprocess(folder: Path) -> dict[str, Any]:
    """Run a trial in a subprocess, and return its outcome; its status is `killed` where there is none."""
    _wait_for_previous(folder / MODEL)
    (folder / OUTCOME).unlink(missing_ok=True)
    code = run_child_process([sys.executable, "-m", "sentifactory.training.sweep.trial", str(folder)])
    outcome = read_outcome(folder)
    if outcome is not None:
        return outcome
    reason = f"signal {-code}" + (", probably out of memory" if code == -9 else "") if code < 0 else f"{code}"
    return {"status": KILLED, "error": f"The process was killed ({reason})."}


def _wait_for_previous(output_dir: Path) -> None:
    """Wait until an earlier process of the trial has saved its checkpoint and ended."""
    deadline = time.monotonic() + PREVIOUS_WAIT_S
    while True:
        try:
            with hold_output_folder(output_dir):
                return
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def run_trial(folder: Path) -> dict[str, Any]:
    """Train and evaluate in this process, and write the outcome, also of a failure."""
    outcome: dict[str, Any]
    try:
        request = TrialRequest(**read_json(folder / REQUEST))
        training = train(folder, request) if request.is_trained else None
        outcome = {"status": FINISHED, "error": None, "training": training, **evaluate_trial(folder, request)}
    except SentiFactoryError as error:
        say(f"Error: {error.describe()}")
        outcome = {"status": FAILED, "error": error.describe()}
    except Exception as error:
        traceback.print_exc()
        outcome = {"status": FAILED, "error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    write_json(folder / OUTCOME, outcome)
    return outcome


def train(folder: Path, request: TrialRequest) -> dict[str, Any]:
    """Train the recipe, unless that is finished, and return time and memory.

    Raises:
        SentiFactoryError: when it cannot be trained.
    """
    import gc

    from sentifactory.training.llamafactory.train_recipe import train_recipe

    recipe = load_recipe(folder / RECIPE)
    if not is_trained(recipe, request.loss):
        train_recipe(recipe.path, loss=request.loss, cache_gib=request.cache_gib, task=request.task)
        gc.collect()  # frees model and optimizer, before the model is loaded again for evaluation
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
        "trunk": next((entry for entry in card.get("accelerations", ()) if entry["name"] == FROZEN_LAYERS), None),
    }


def evaluate_trial(folder: Path, request: TrialRequest) -> dict[str, Any]:
    """Score the validation reviews, and return metrics and correctness by review.

    Raises:
        SentiFactoryError: when the model or the reviews cannot be used.
    """
    from transformers.utils import logging as transformers_logging

    from sentifactory.corpus.dataset.dataset_files import read_labelled
    from sentifactory.corpus.splitting.sampling import take_sample
    from sentifactory.engines.local.transformers_engine import TransformersEngine
    from sentifactory.metrics.label_metrics import compute_metrics

    if request.is_trained:
        model = str(folder / MODEL)
        task = choose_task(request.task, models=[model], data=[request.val_file]).task
    else:  # evaluated with the task of the training data
        settings = load_recipe(folder / RECIPE).settings
        model, task = settings["model_name_or_path"], find_training_task(settings, request.task).scored_by
    reviews, _ = read_labelled(request.val_file, task)
    reviews = take_sample(reviews, request.val_samples, request.seed)
    transformers_logging.set_verbosity_warning()  # LLaMA-Factory changes it
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
    """Remove the weights of a trial; its run card and logs stay."""
    for pattern in ("*.safetensors", "*.bin", "tokenizer.json"):
        for file in (folder / MODEL).glob(pattern):
            file.unlink()
    remove_checkpoints(folder / MODEL)


if __name__ == "__main__":
    try:
        run_trial(Path(sys.argv[1]))
    except KeyboardInterrupt:  # the parent command reports it
        sys.exit(130)
