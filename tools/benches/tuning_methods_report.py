"""The tuning methods, and the report of their comparison as a table, JSON and a figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.metrics.number_formats import format_percent, format_range, read_interval
from sentifactory.metrics.significance import compute_wilson_interval
from sentifactory.pages.base_page import read_palette
from sentifactory.pages.panel_figure import label_panel, save_figure, start_figure
from sentifactory.redaction import mask_arguments
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.command_line import describe_command
from sentifactory.system.formats import DASH, build_table, escape, format_bytes, format_seconds
from sentifactory.system.hardware import describe_machine
from sentifactory.training.acceleration.answer_logits import LABEL, MIXED, WHOLE_ANSWER
from sentifactory.training.recipe.recipe import load_recipe
from sentifactory.training.run.provenance import describe_versions
from sentifactory.training.run.run_card import read_now
from sentifactory.training.sweep.sweep_figure import MARKERS
from sentifactory.training.sweep.trial import FINISHED

FIRST_SEED = 42
UNTRAINED = "untuned"
# Keys removed from the recipe, because they take time besides training.
REMOVED_KEYS = ("eval_dataset", "val_size", "max_samples", "eval_steps")
COMMON_SETTINGS = {"save_strategy": "no", "eval_strategy": "no", "plot_loss": False, "overwrite_output_dir": True}


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
            "overrides": mask_arguments(options.overrides),
            "training_reviews": options.reviews,
            "rows": rows,
            "versions": describe_versions([]),
            "machine": describe_machine(),
            "command": describe_command(),
        },
    )
    write_text(folder / "methods.md", f"# Tuning methods\n\n{table}\n\n{describe_figures(options, outcomes)}")
    if rows:
        draw_methods(rows, folder / "methods.png")
    return table


def summarise_methods(outcomes: Outcomes, learning_rate: float | None) -> list[dict[str, Any]]:
    """Return the figures of every method with a finished run.

    The interval is Wilson's for the mean accuracy on the validation reviews. More seeds do not narrow it, because all
    of them answer the same reviews.

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
    """Return an explanation of the table, and the failed runs."""
    lines = [
        f"{options.reviews} training reviews, the same in every run, in a different order for each seed. Accuracy is "
        "the mean over the seeds of scored labels on the validation reviews, with Wilson's interval for their number. "
        "Training is the median time of all steps, starting with an empty cache of frozen layers; peak memory is the "
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


@dataclass(frozen=True, slots=True)
class Method:
    """A tuning method.

    Attributes:
        title: name in the table.
        settings: keys that differ from the recipe.
        loss: `answer`, `label` or `mixed`.
        layers: how many of the model's layers are kept; None: all.
    """

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    loss: str = WHOLE_ANSWER
    layers: int | None = None


def _freeze(layers: int) -> dict[str, Any]:
    return {"finetuning_type": "freeze", "freeze_trainable_layers": layers}


# Full tuning needs a lower learning rate than freezing, and LoRA a higher one.
METHODS: dict[str, Method] = {
    "freeze_2": Method("freeze, last 2 layers", _freeze(2)),
    "freeze_6": Method("freeze, last 6 layers", _freeze(6)),
    "freeze_12": Method("freeze, last 12 layers", _freeze(12)),
    "full": Method("full, all layers and embeddings", {"finetuning_type": "full", "learning_rate": 5e-5}),
    "lora": Method(
        "LoRA, rank 8, all linear layers",
        {"finetuning_type": "lora", "lora_rank": 8, "lora_target": "all", "learning_rate": 3e-4},
    ),
    "label": Method("freeze, last 6 layers, loss of the label alone", _freeze(6), LABEL),
    "mixed": Method("freeze, last 6 layers, mixed loss", _freeze(6), MIXED),
    "lowest_12": Method("lowest 12 layers, last 4 trained", _freeze(4), layers=12),
    "lowest_12_mixed": Method("lowest 12 layers, last 4 trained, mixed loss", _freeze(4), MIXED, layers=12),
    "lowest_9_mixed": Method("lowest 9 layers, last 3 trained, mixed loss", _freeze(3), MIXED, layers=9),
}


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """The options of the comparison.

    Attributes:
        recipe: a LLaMA-Factory training YAML.
        overrides: `key=value` settings that override it.
        methods: names in `METHODS`.
        reviews: number of training reviews, from the start of the training part.
        seeds: runs of each method.
        val_samples: maximum number of validation reviews; None: all.
        output_dir: of the report; the runs are in its folder `methods`.
    """

    recipe: Path
    overrides: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(METHODS)
    reviews: int = 1600
    seeds: int = 3
    val_samples: int | None = None
    output_dir: Path = Path("saves/bench")


def find_title(name: str) -> str:
    """Return the name of a method in the table."""
    return METHODS[name].title if name in METHODS else "untuned"


def draw_methods(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw accuracy with its interval against training time and peak memory, one point per method.

    Args:
        rows: from `summarise_methods`; an untrained row has no time and becomes a line.
        path: a PNG file.
    """
    colours = read_palette()
    figure, axes = start_figure(2)
    palette = [colours[name] for name in ("tuned", "tfidf", "bad", "base", "ink", "soft")]
    trained = [row for row in rows if row["train_time_s"]]
    for panel, (key, unit, title) in zip(
        axes,
        (("train_time_s", 60, "training time, minutes"), ("peak_bytes", 1e9, "peak memory, GB")),
        strict=True,
    ):
        for place, row in enumerate(trained):
            low, high = (row["interval"][end] * 100 for end in ("low", "high"))
            accuracy = row["accuracy"] * 100
            panel.errorbar(
                row[key] / unit, accuracy, yerr=[[accuracy - low], [high - accuracy]], capsize=3,
                fmt=MARKERS[place % len(MARKERS)], color=palette[place % len(palette)], label=row["title"],
            )  # fmt: skip
        for row in rows:
            if not row["train_time_s"]:
                panel.axhline(
                    row["accuracy"] * 100, color=colours["majority"], linestyle="--", zorder=0, label=row["title"]
                )
        label_panel(panel, title, "validation accuracy, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    save_figure(figure, path)
