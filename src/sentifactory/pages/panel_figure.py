"""Pictures for files: panels side by side in the house colours, drawn with matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from sentifactory.pages.base_page import read_palette
from sentifactory.system.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE_SUFFIXES = (".png", ".svg")
_PANEL = (3.6, 3.0)  # inches
_MOST_COLUMNS = 3
_DPI = 150


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


def save_figure(figure: Figure, path: Path, mark: str = "") -> None:
    """Write a picture whole or not at all.

    Args:
        figure: what `start_figure` returned.
        path: a PNG or SVG file, by its suffix.
        mark: names the maker in the head of the file, for `system.atomic.has_mark`; "" names none.
    """
    picture = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    facts = {"Software" if kind == "png" else "Creator": mark} if mark else {}
    figure.savefig(picture, format=kind, metadata=facts | ({"Date": None} if kind == "svg" else {}))
    write_bytes(path, picture.getvalue())
