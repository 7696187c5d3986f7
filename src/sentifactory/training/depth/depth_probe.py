"""Probes all layers of a decoder for a task: one forward pass over some labelled reviews, then a probe for each layer.

The prompt is the one that training and comparison use, and the hidden state is read where the tokens of a label begin:
there a tuned model has to know the answer. Sentiment is best read in the middle layers of several decoders (Di Palma
et al. 2025, arXiv 2505.16491), and middle layers serve many tasks better than the last (Skean et al. 2025, arXiv
2502.02013). Where this model and task stand is what the probe measures.

Not covered: other places of the text, or means over it, which may say more of an untuned model.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.corpus.splitting.sampling import take_sample
from sentifactory.engines.local.stack_folder import find_member, is_stack
from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.registry import check_model, split_by_prompt
from sentifactory.errors import ConfigError, DataError
from sentifactory.models.weights import identify_checkpoint
from sentifactory.pages.panel_figure import PICTURE_SUFFIXES
from sentifactory.records import Review
from sentifactory.system.atomic import has_marker, refuse_overwriting_inputs
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.progress import say, show_progress
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task
from sentifactory.training.depth.depth_advice import KEEP_RULE, TRAIN_RULE, advise_depth, summarise_layers
from sentifactory.training.depth.depth_report import PICTURE_MARK, draw_depth
from sentifactory.training.depth.linear_probe import FOLDS, probe_layer_states

PROBE_VERSION = 1


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """The options of a probe, as the command takes them.

    Attributes:
        model: folder or hub id of a decoder.
        csv_path: labelled reviews; never those that a model will be tested on.
        task: name or YAML file; None: that of the model or of the reviews.
        max_samples: most reviews to look at.
        seed: of the sample and the folds.
        output_file: where the picture goes, a PNG or SVG file; None: nowhere.
    """

    model: str
    csv_path: str
    task: str | None = None
    max_samples: int = 300
    seed: int = 42
    output_file: Path | None = None


def probe_depth(options: ProbeOptions) -> dict[str, Any]:
    """Return the accuracy of every layer's probe, and what it recommends, as plain JSON values.

    Raises:
        ConfigError: when the model, the task or the place of the picture cannot be used.
        DataError: when the reviews cannot be used, or are too few of a label.
        EngineError: when the model cannot be loaded.
    """
    check_model(options.model)
    if is_stack(options.model):
        raise ConfigError(
            "This is a stack, and has no layers of its own",
            where=options.model,
            expected="a language model",
            next_step=f"probe its model, {find_member(options.model)}",
            code="model-engine",
        )
    split_by_prompt([("transformers", options.model)])
    _check_picture(options)
    chosen = choose_task(options.task, models=[options.model], data=[options.csv_path]).announce()
    everything, _ = read_labelled(options.csv_path, chosen.task)
    reviews = take_sample(everything, options.max_samples, options.seed)
    _check_labels(reviews, chosen.task, options.csv_path)
    with TransformersEngine(options.model, chosen.task, name="model", mode="score") as engine:
        fitting, states = engine.read_states(reviews)
    kept = [reviews[at] for at in fitting]
    _check_labels(kept, chosen.task, options.csv_path)
    result = {
        "probe_version": PROBE_VERSION,
        "model": options.model,
        "checkpoint": identify_checkpoint(options.model),
        "task": chosen.to_json(),
        "reviews": {
            "file": options.csv_path,
            "sha256": hash_file(Path(options.csv_path)),
            "asked": len(kept),
            "available": len(everything),
        },
        "seed": options.seed,
        "folds": FOLDS,
        **_probe_layers(states, kept, options.seed),
    }
    if options.output_file is not None:
        draw_depth(result, options.output_file)
        say(f"Picture: {options.output_file}")
    return result


def _probe_layers(states: Any, reviews: list[Review], seed: int) -> dict[str, Any]:
    """Return accuracies and recommendation for hidden states (layers, n, hidden size)."""
    import numpy as np

    labels = np.array([review.label for review in reviews])
    correct = []
    with show_progress("Fitting probes", total=len(states), unit="layers") as progress:
        for layer in states:
            correct.append(int(probe_layer_states(layer, labels, seed).sum()))
            progress.advance()
    results = summarise_layers(correct, len(labels))
    majority_share = float(np.bincount(labels).max() / len(labels))
    advice = advise_depth(results, len(labels), majority_share)
    return {
        "majority_share": majority_share,
        "layers": [asdict(one) for one in results],
        **asdict(advice),
        "rules": {"keep_layers": KEEP_RULE, "train_layers": TRAIN_RULE},
    }


def _check_labels(reviews: list[Review], task: Task, csv_path: str) -> None:
    """Refuse reviews of which a fold could lack a label."""
    counts = Counter(review.label for review in reviews)
    few = [name for label, name in enumerate(task.labels) if 0 < counts[label] < FOLDS]
    if few or len(counts) < 2:
        shown = ", ".join(f"{name} {counts[label]}" for label, name in enumerate(task.labels))
        raise DataError(
            f"A probe cannot be fitted on these reviews ({shown})",
            where=csv_path,
            expected=f"two labels or more, and at least {FOLDS} reviews of each that occurs",
            next_step="give more reviews, or raise --max_samples",
            code="probe-few-reviews",
        )


def _check_picture(options: ProbeOptions) -> None:
    """Refuse a place for the picture where another one's file stands, before anything is loaded."""
    target = options.output_file
    if target is None:
        return
    if target.suffix.lower() not in PICTURE_SUFFIXES:
        raise ConfigError(
            f"A picture cannot be written as {target.suffix or target.name!r}",
            where="--output_file",
            expected="a name that ends with " + " or ".join(PICTURE_SUFFIXES),
            code="probe-picture",
        )
    refuse_overwriting_inputs([target], [options.model, options.csv_path, options.task])
    if os.path.lexists(target) and not has_marker(target, PICTURE_MARK):
        raise ConfigError(
            "Another file stands here, and it would be replaced",
            where=str(target),
            expected="no file, or a picture of `sentifactory model probe`",
            next_step="choose another --output_file",
            code="output-exists",
        )
