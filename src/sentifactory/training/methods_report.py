"""The comparison of methods as a table, as JSON and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sentifactory.atomic import write_json, write_text
from sentifactory.evaluation.markdown import build_table, escape
from sentifactory.evaluation.provenance import describe_command, describe_machine, describe_versions
from sentifactory.evaluation.significance import compute_wilson_interval
from sentifactory.evaluation.verdict import format_percent, format_range
from sentifactory.evaluation.wording import read_interval
from sentifactory.masking import mask_words
from sentifactory.quantities import DASH, format_bytes, format_seconds
from sentifactory.training.methods import METHODS, MethodOptions, find_title
from sentifactory.training.pictures import draw_methods
from sentifactory.training.recipe import load_recipe
from sentifactory.training.run_card import read_now
from sentifactory.training.trial import FINISHED

_HEADER = [
    "Method", "Learning rate", "Trained weights", "Accuracy (95%)", "By seed", "Macro F1", "Training", "By seed",
    "Peak memory",
]  # fmt: skip

Outcomes = Mapping[str, Mapping[int, Mapping[str, Any]]]  # by method and seed


def report_methods(options: MethodOptions, outcomes: Outcomes) -> str:
    """Write `methods.json`, `methods.md` and `methods.png`, and return the table."""
    rate = load_recipe(options.recipe, options.overrides).settings.get("learning_rate")
    rows = summarise_methods(outcomes, rate)
    table = "\n".join(build_table([_HEADER, *map(list_cells, rows)]))
    folder = options.output_dir
    write_json(
        folder / "methods.json",
        {
            "created_at": read_now(),
            "recipe": str(options.recipe),
            "overrides": mask_words(options.overrides),
            "training_reviews": options.reviews,
            "rows": rows,
            "versions": describe_versions([]),
            "machine": describe_machine(),
            "command": describe_command(),
        },
    )
    write_text(folder / "methods.md", f"# Ways of tuning\n\n{table}\n\n{describe_figures(options, outcomes)}")
    if rows:
        draw_methods(rows, folder / "methods.png")
    return table


def summarise_methods(outcomes: Outcomes, learning_rate: float | None) -> list[dict[str, Any]]:
    """Return the figures of every method that has a finished run.

    The interval is Wilson's for the mean accuracy on the validation reviews. All seeds answer the same reviews, so
    that three runs make it no narrower.

    Args:
        outcomes: of the trials.
        learning_rate: of the recipe.
    """
    rows = []
    for name, by_seed in outcomes.items():
        finished = {seed: outcome for seed, outcome in by_seed.items() if outcome["status"] == FINISHED}
        if not finished:
            continue
        metrics = [outcome["metrics"] for outcome in finished.values()]
        trainings = [outcome["training"] for outcome in finished.values() if outcome["training"]]
        reviews = metrics[0]["reviews"]
        accuracy = statistics.fmean(one["accuracy"] for one in metrics)
        times = [training["train_time_s"] for training in trainings]
        own = METHODS[name].settings if name in METHODS else {}
        rows.append(
            {
                "method": name,
                "title": find_title(name),
                "learning_rate": own.get("learning_rate", learning_rate) if trainings else None,
                "parameters": trainings[0]["parameters"] if trainings else None,
                "reviews": reviews,
                "accuracy": accuracy,
                "interval": asdict(compute_wilson_interval(round(accuracy * reviews), reviews)),
                "accuracies": {seed: outcome["metrics"]["accuracy"] for seed, outcome in finished.items()},
                "macro_f1": statistics.fmean(one["macro_f1"] for one in metrics),
                "train_time_s": statistics.median(times) if times else None,
                "train_times_s": times,
                "peak_bytes": max((training["peak_bytes"] for training in trainings), default=None),
            }
        )
    return rows


def list_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a method."""
    parameters = row["parameters"]
    return [
        row["title"],
        DASH if row["learning_rate"] is None else f"{row['learning_rate']:.2g}",
        DASH if parameters is None else f"{parameters / 1e6:.1f} M",
        f"{format_percent(row['accuracy'])} ({format_range(read_interval(row['interval']), 'to')})",
        ", ".join(format_percent(accuracy) for accuracy in row["accuracies"].values()),
        format_percent(row["macro_f1"]),
        format_seconds(row["train_time_s"]),
        ", ".join(map(format_seconds, row["train_times_s"])) or DASH,
        format_bytes(row["peak_bytes"]),
    ]


def describe_figures(options: MethodOptions, outcomes: Outcomes) -> str:
    """Return what the table's figures are, and what failed."""
    lines = [
        f"{options.reviews} training reviews, the same in every run, in another order with each seed. Accuracy is the "
        "mean over the seeds, of scored labels on the validation reviews; its interval is Wilson's for as many. "
        "Training is the median of the steps' time, the trunk cache being empty at the beginning; peak memory is the "
        "largest of the training process.",
        "",
        *(
            f"- {name}, seed {seed} {outcome['status']}: {escape(outcome['error'])}"
            for name, by_seed in outcomes.items()
            for seed, outcome in by_seed.items()
            if outcome["status"] != FINISHED
        ),
        "",
        f"Recipe: `{options.recipe}`. Command: `{describe_command()}`",
        "",
    ]
    return "\n".join(lines)
