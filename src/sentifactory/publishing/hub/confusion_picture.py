"""Draws the confusion matrix for the model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PICTURE_NAME = "confusion_matrix.png"
_HAN_FONTS = (
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "SimHei",
    "PingFang SC",
    "Microsoft YaHei",
)


def draw_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix into a PNG file, reproducible byte for byte.

    Args:
        confusion: (n_labels, n_labels + 1) counts; rows are true labels, columns predicted labels, the last unparsed.
        labels: names in index order; replaced by their indexes if no installed font can draw them.
        title: in ASCII.
        path: of the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, family = _choose_names(labels)
    columns = [*names, "unparsed"]
    figure = Figure(figsize=(1.6 + 1.3 * len(columns), 1.8 + 0.9 * len(names)), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = [[count / max(sum(row), 1) for count in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, (counts, share) in enumerate(zip(confusion, shares, strict=True)):
        for column, count in enumerate(counts):
            color = "white" if share[column] > 0.6 else "black"
            words = f"{count}\n{share[column] * 100:.1f}%"
            axes.text(column, row, words, ha="center", va="center", color=color)
    axes.set_xticks(range(len(columns)), columns, family=family)
    axes.set_yticks(range(len(names)), names, family=family)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    # Leaves out matplotlib's version, which would make the file differ between machines.
    figure.savefig(path, metadata={"Software": None})


def _choose_names(labels: Sequence[str]) -> tuple[list[str], str]:
    """Return the names to draw, and the font."""
    if all(label.isascii() for label in labels):
        return list(labels), "DejaVu Sans"
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    family = next((font for font in _HAN_FONTS if font in installed), "")
    return (list(labels), family) if family else ([str(at) for at in range(len(labels))], "DejaVu Sans")
