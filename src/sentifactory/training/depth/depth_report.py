"""Shows what the probes of a model's layers found: a table, a recommendation in sentences, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.next_training import suggest_for_reviews
from sentifactory.errors import ConfigError
from sentifactory.metrics.number_formats import format_percent
from sentifactory.models.decoder_folder import read_decoder
from sentifactory.pages.base_page import read_palette
from sentifactory.pages.panel_figure import label_panel, save_figure, start_figure
from sentifactory.system.command_line import write_command
from sentifactory.training.depth.depth_advice import KEEP_RULE, TRAIN_RULE

PICTURE_MARK = "sentifactory model probe"


def describe_advice(result: Mapping[str, Any]) -> list[str]:
    """Return the recommendation, its rules and its limits, a sentence or two in each item.

    Args:
        result: as `depth_probe.probe_depth` returns it.
    """
    layers = result["layers"]
    best = layers[result["best_layer"] - 1]
    if result["keep_layers"] is None:
        return [
            f"No layer is shown to tell the labels apart better than the commonest label does "
            f"({format_percent(result['majority_share'])}; the best of {len(layers)} layers is tested at the level "
            f"0.05 / {len(layers)}): keep all layers, or give more reviews.",
        ]
    kept = layers[result["keep_layers"] - 1]
    return [
        f"Keep {kept['layer']} of {len(layers)} layers ({format_percent(kept['accuracy'])}; best: layer "
        f"{best['layer']}, {format_percent(best['accuracy'])}), and train the last {result['train_layers']} of them.",
        f"Layers to keep: {KEEP_RULE}.",
        f"Layers to train: {TRAIN_RULE}.",
        "A probe reads an untuned model: compare the cut model with the whole one on validation reviews.",
    ]


def suggest_cut(
    result: Mapping[str, Any], model: str, csv_path: str, task: str | None, max_samples: int, seed: int
) -> list[str]:
    """Return the commands after a probe: cut the model to the recommended layers, where that can be done.

    Where no layer is shown to tell the labels apart and the file has more reviews, more of them are probed. Otherwise
    all layers are kept, and training is next.
    """
    keep = result["keep_layers"]
    if keep is None and max_samples < result["reviews"]["available"]:
        more = (("--csv_path", csv_path), ("--task", task), ("--max_samples", str(2 * max_samples)))
        return [write_command("model", "probe", model, *more, ("--seed", str(seed)))]
    if keep is None or keep == len(result["layers"]) or not _can_be_cut(model):
        return suggest_for_reviews(csv_path, task)
    path = Path(model)
    folder = path.parent if path.is_dir() else Path("saves", "pretrained")
    named = (("--layers", str(keep)), ("--output_dir", folder / f"{path.name}-{keep}"))
    return [write_command("model", "cut", model, *named)]


def _can_be_cut(model: str) -> bool:
    """Return whether `model cut` takes a model; one that is not in a folder counts as one that it takes."""
    folder = Path(model).expanduser()
    try:
        return not folder.is_dir() or read_decoder(folder).layers > 1
    except ConfigError:
        return False


def print_depth(result: Mapping[str, Any]) -> None:
    """Print the table and the recommendation on stdout."""
    import sys

    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    title = f"Linear probes on {result['reviews']['asked']} reviews of {result['reviews']['file']}"
    table = Table(title=title, title_justify="left")
    for name in ("Layer", "Accuracy", "95% interval", ""):
        table.add_column(name, justify="left" if not name else "right")
    notes = {result["best_layer"]: "best"} | ({result["keep_layers"]: "keep"} if result["keep_layers"] else {})
    if result["best_layer"] == result["keep_layers"]:
        notes = {result["best_layer"]: "best, keep"}
    for one in result["layers"]:
        interval = f"{format_percent(one['interval']['low'])} to {format_percent(one['interval']['high'])}"
        table.add_row(str(one["layer"]), format_percent(one["accuracy"]), interval, notes.get(one["layer"], ""))
    console.print(table)
    first, *rest = describe_advice(result)
    console.print(first, style="bold")
    for line in rest:
        console.print(line)


def draw_depth(result: Mapping[str, Any], path: Path) -> None:
    """Draw the accuracy of each layer's probe with its interval, and the layers to keep.

    Args:
        result: as `depth_probe.probe_depth` returns it.
        path: a PNG or SVG file.
    """
    from matplotlib.ticker import MaxNLocator

    colours = read_palette()
    figure, (panel,) = start_figure(1)
    numbers = [one["layer"] for one in result["layers"]]
    scores = [one["accuracy"] * 100 for one in result["layers"]]
    low, high = ([one["interval"][side] * 100 for one in result["layers"]] for side in ("low", "high"))
    panel.fill_between(numbers, low, high, color=colours["tuned"], alpha=0.15, linewidth=0)
    panel.plot(numbers, scores, color=colours["tuned"], linewidth=1.4, marker="o", markersize=3)
    panel.axhline(result["majority_share"] * 100, color=colours["base"], linewidth=1, linestyle=":")
    if result["keep_layers"] is not None:
        panel.axvline(result["keep_layers"], color=colours["ink"], linewidth=1, linestyle="--")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_panel(panel, "layers kept (dashed: recommended)", "accuracy of a linear probe, %")
    save_figure(figure, path, PICTURE_MARK)
