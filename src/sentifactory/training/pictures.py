"""The pictures of a sweep and of the comparison of methods, in the house colours."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.atomic import write_bytes
from sentifactory.pages.palette import read_palette
from sentifactory.training.trial import FINISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = (3.6, 3.0)  # inches
_MOST_COLUMNS = 3
_DPI = 150
_MARKERS = "os^Dv"  # two of the palette's colours are alike


def start_figure(panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many panels side by side, in rows of three."""
    from matplotlib.figure import Figure

    colours = read_palette()
    columns = min(panels, _MOST_COLUMNS)
    rows = -(-panels // columns)
    figure = Figure(
        figsize=(_PANEL[0] * columns, _PANEL[1] * rows), dpi=_DPI, facecolor=colours["paper"], layout="constrained"
    )
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]
    for panel in axes:
        panel.set_facecolor(colours["card"])
        panel.grid(color=colours["line"], linewidth=0.7)
        panel.set_axisbelow(True)
        panel.tick_params(colors=colours["soft"], labelsize=8)
        for side in panel.spines.values():
            side.set_color(colours["line"])
    return figure, axes


def label_panel(panel: Axes, x: str, y: str) -> None:
    """Name the axes of a panel."""
    colours = read_palette()
    panel.set_xlabel(x, color=colours["ink"], fontsize=9)
    panel.set_ylabel(y, color=colours["ink"], fontsize=9)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_bytes(path, picture.getvalue())


def draw_sweep(result: Mapping[str, Any], path: Path) -> None:
    """Draw macro-F1 trial by trial with the best so far, and against every key of the search space.

    Args:
        result: as `sweep_report.build_result` returns it, with one finished trial or more.
        path: a PNG file.
    """
    from matplotlib.ticker import MaxNLocator

    colours = read_palette()
    trials = sorted((one for one in result["trials"] if one["status"] == FINISHED), key=lambda one: one["number"])
    scores = [one["metrics"]["macro_f1"] * 100 for one in trials]
    tones = [colours["tuned"] if one["number"] == result["best"] else colours["base"] for one in trials]
    figure, axes = start_figure(1 + len(result["space"]))
    numbers = [one["number"] for one in trials]
    best = [max(scores[: place + 1]) for place in range(len(scores))]
    axes[0].step(numbers, best, where="post", color=colours["tuned"], linewidth=1.2)
    axes[0].scatter(numbers, scores, c=tones, zorder=3)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    label_panel(axes[0], "trial (line: best so far)", "macro-F1, %")
    for panel, (key, dimension) in zip(axes[1:], result["space"].items(), strict=True):
        values = [one["values"][key] for one in trials]
        panel.scatter(place_values(panel, values, dimension), scores, c=tones, zorder=3)
        label_panel(panel, key, "macro-F1, %")
    save_figure(figure, path)


def place_values(panel: Axes, values: Sequence[Any], dimension: Mapping[str, Any]) -> list[float]:
    """Return where values stand on the x axis of a panel, and set its scale."""
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
    """Return a choice as it stands under an axis; of a file its name."""
    return Path(choice).stem if isinstance(choice, str) else format(choice, "g" if isinstance(choice, float) else "")


def draw_methods(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw accuracy with its interval against training time and against peak memory, one point a method.

    Args:
        rows: as `methods_report.summarise_methods` returns them; an untrained row has no time and is a line.
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
                fmt=_MARKERS[place % len(_MARKERS)], color=palette[place % len(palette)], label=row["title"],
            )  # fmt: skip
        for row in rows:
            if not row["train_time_s"]:
                panel.axhline(
                    row["accuracy"] * 100, color=colours["majority"], linestyle="--", zorder=0, label=row["title"]
                )
        label_panel(panel, title, "validation accuracy, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    save_figure(figure, path)
