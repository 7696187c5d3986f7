"""Draws the trials of a sweep, in the colours of our pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.pages.base_page import read_palette
from sentifactory.pages.panel_figure import label_panel, save_figure, start_figure
from sentifactory.training.sweep.trial import FINISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^Dv"  # two colours of the palette are similar


def draw_sweep(result: Mapping[str, Any], path: Path) -> None:
    """Draw macro-F1 by trial with the best so far, and against every key of the search space.

    Args:
        result: from `sweep_report.build_result`, with at least one finished trial.
        path: a PNG file.
    """
    from matplotlib.ticker import MaxNLocator

    colours = read_palette()
    trials = sorted((one for one in result["trials"] if one["status"] == FINISHED), key=lambda one: one["number"])
    scores = [one["metrics"]["macro_f1"] * 100 for one in trials]
    point_colours = [colours["tuned"] if one["number"] == result["best"] else colours["base"] for one in trials]
    figure, axes = start_figure(1 + len(result["space"]))
    numbers = [one["number"] for one in trials]
    best = [max(scores[: place + 1]) for place in range(len(scores))]
    axes[0].step(numbers, best, where="post", color=colours["tuned"], linewidth=1.2)
    axes[0].scatter(numbers, scores, c=point_colours, zorder=3)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    label_panel(axes[0], "trial (line: best so far)", "macro-F1, %")
    for panel, (key, dimension) in zip(axes[1:], result["space"].items(), strict=True):
        values = [one["values"][key] for one in trials]
        panel.scatter(place_values(panel, values, dimension), scores, c=point_colours, zorder=3)
        label_panel(panel, key, "macro-F1, %")
    save_figure(figure, path)


def place_values(panel: Axes, values: Sequence[Any], dimension: Mapping[str, Any]) -> list[float]:
    """Return the x coordinates of values, and set the scale of the panel."""
    choices = list(dimension["choices"])
    if not choices:
        if dimension["is_log"]:
            panel.set_xscale("log")
        return [float(value) for value in values]
    if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices):
        choices.sort()
    panel.set_xticks(range(len(choices)), [name_choice(choice) for choice in choices])
    panel.set_xlim(-0.5, len(choices) - 0.5)
    return [float(choices.index(value)) for value in values]


def name_choice(choice: Any) -> str:
    """Return the tick label of a choice; for a file its stem."""
    return Path(choice).stem if isinstance(choice, str) else format(choice, "g" if isinstance(choice, float) else "")
