"""Geometry of the charts on the page of a data set, in units of their viewBox; drawn by the template as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sentifactory.corpus.wording import name_label, name_part, name_reason

WIDTH = 760
BAR_LEFT = 160
BAR_RIGHT = 70
BAR_HEIGHT = 26
ROW_HEIGHT = 40
DIGIT_WIDTH = 8
MIN_SHOWN_WIDTH = 1.0
DOMAINS_SHOWN = 15

HISTOGRAM_HEIGHT = 250
HISTOGRAM_LEFT = 52
HISTOGRAM_TOP = 26
HISTOGRAM_BASE = 210
OPEN_BIN_GAP = 12
TICKS_WANTED = 8

# Two to five labels lie on a scale from brick over grey to teal; more are told apart by hue alone.
_SCALES = {1: (4,), 2: (0, 4), 3: (0, 2, 4), 4: (0, 1, 3, 4), 5: (0, 1, 2, 3, 4)}
_PART_TONES = {part: f"part-{part}" for part in ("train", "val", "test", "file")}
_FIRST_HUE = 5
_N_HUES = 8


def choose_tones(labels: Sequence[str]) -> dict[str, str]:
    """Return the CSS class that colours each label."""
    scale = _SCALES.get(len(labels)) or tuple(_FIRST_HUE + n % _N_HUES for n in range(len(labels)))
    return {label: f"tone-{tone}" for label, tone in zip(labels, scale, strict=True)}


def build_rows_chart(picture: Mapping[str, Any]) -> dict[str, Any]:
    """Return one bar of all rows that came in: the parts, and what was left out by reason."""
    pieces = [
        (
            name_part(part),
            _PART_TONES.get(part, f"tone-{_FIRST_HUE + n % _N_HUES}"),
            figures["rows"] - figures["copies"],
        )
        for n, (part, figures) in enumerate(picture["parts"].items())
    ]
    reasons = picture["rows"]["rejected_by_reason"].items()
    pieces += [(name_reason(reason), f"left-{min(n, 5)}", rows) for n, (reason, rows) in enumerate(reasons)]
    total = max(picture["rows"]["in"], 1)
    x, drawn = 0.0, []
    for name, tone, rows in pieces:
        width = WIDTH * rows / total
        drawn.append(
            {
                "name": name,
                "tone": tone,
                "rows": rows,
                "share": rows / total,
                "x": round(x, 1),
                "width": round(max(width - 1.5, MIN_SHOWN_WIDTH), 1),
            }
        )
        x += width
    return {"pieces": drawn, "width": WIDTH}


def build_label_chart(
    rows: Sequence[tuple[tuple[str, str], Mapping[str, int]]], labels: Sequence[str]
) -> dict[str, Any]:
    """Return one bar a row, each as long as any other, cut by the shares of the labels.

    Args:
        rows: name in English and Chinese, and reviews by label.
        labels: the task's label names; what is under no label comes last.
    """
    tones = choose_tones(labels)
    span = WIDTH - BAR_LEFT - BAR_RIGHT
    drawn = []
    for number, (name, counts) in enumerate(rows):
        total = sum(counts.values())
        x, pieces = float(BAR_LEFT), []
        for label, n in counts.items():
            width = span * n / total if total else 0.0
            if n:
                pieces.append(
                    {
                        "label": name_label(label),
                        "tone": tones.get(label, "tone-none"),
                        "count": n,
                        "share": n / total,
                        "x": round(x, 1),
                        "width": round(max(width - 1.5, MIN_SHOWN_WIDTH), 1),
                        "is_count_shown": width > DIGIT_WIDTH * len(f"{n:,}") + 14,
                    }
                )
            x += width
        drawn.append({"name": name, "total": total, "y": number * ROW_HEIGHT, "pieces": pieces})
    return {
        "rows": drawn,
        "width": WIDTH,
        "height": max(len(drawn) * ROW_HEIGHT - (ROW_HEIGHT - BAR_HEIGHT), 1),
        "left": BAR_LEFT,
        "bar_height": BAR_HEIGHT,
    }


def sum_domains(picture: Mapping[str, Any]) -> list[tuple[tuple[str, str], dict[str, int]]]:
    """Return the reviews by label of each domain, all parts together; the smallest of many domains as one row."""
    rows = []
    for domain, by_part in picture["domains"].items():
        totals: dict[str, int] = {}
        for counts in by_part.values():
            for label, n in counts.items():
                totals[label] = totals.get(label, 0) + n
        rows.append(((domain, domain) if domain else ("no domain", "未注明"), totals))
    if len(rows) <= DOMAINS_SHOWN:
        return rows
    rest: dict[str, int] = {}
    for _, counts in rows[DOMAINS_SHOWN - 1 :]:
        for label, n in counts.items():
            rest[label] = rest.get(label, 0) + n
    n_rest = len(rows) - DOMAINS_SHOWN + 1
    return [*rows[: DOMAINS_SHOWN - 1], ((f"{n_rest} others", f"其他 {n_rest} 个"), rest)]


def build_histogram_chart(lengths: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any] | None:
    """Return the bars of a histogram, stacked by label, with ticks and the median and 95th percentile marked."""
    histogram = lengths["histogram"]
    if histogram is None:
        return None
    tones = choose_tones(labels)
    edges, counts = histogram["edges"], histogram["counts"]
    is_open = histogram["is_last_open"]
    bin_width = (WIDTH - HISTOGRAM_LEFT - OPEN_BIN_GAP * is_open) / len(edges)
    highest = max((sum(column) for column in zip(*counts.values(), strict=True)), default=0)
    scale = (HISTOGRAM_BASE - HISTOGRAM_TOP) / max(highest, 1)

    def place(bin_number: float) -> float:
        gap = OPEN_BIN_GAP if is_open and bin_number >= len(edges) - 1 else 0
        return round(HISTOGRAM_LEFT + bin_number * bin_width + gap, 1)

    bars = []
    for number in range(len(edges)):
        y = float(HISTOGRAM_BASE)
        for label, column in counts.items():
            height = column[number] * scale
            if height:
                y -= height
                bars.append(
                    {
                        "tone": tones.get(label, "tone-none"),
                        "x": place(number),
                        "y": round(y, 1),
                        "width": round(max(bin_width - 1.5, 1), 1),
                        "height": round(height, 1),
                    }
                )
    last = len(edges) - 1 if is_open else len(edges)
    step = max(1, -(-last // TICKS_WANTED))
    # The tick of the open bin has the room of one step to itself.
    ticks = [(place(n), f"{edges[n]:,}") for n in range(0, last, step) if not is_open or last - n > step / 2]
    if is_open:
        ticks.append((place(len(edges) - 1), f"≥ {edges[-1]:,}"))
    return {
        "bars": bars,
        "ticks": ticks,
        "levels": [(round(HISTOGRAM_BASE - n * scale, 1), f"{n:,}") for n in _choose_levels(highest)],
        "marks": [_mark(lengths["all"][key], histogram, place, name) for key, name in _MARKS],
        "width": WIDTH,
        "height": HISTOGRAM_HEIGHT,
        "left": HISTOGRAM_LEFT,
        "top": HISTOGRAM_TOP,
        "base": HISTOGRAM_BASE,
    }


_MARKS = (("median", ("median", "中位数")), ("p95", ("95%", "95%")))


def _mark(value: float, histogram: Mapping[str, Any], place: Any, name: tuple[str, str]) -> dict[str, Any]:
    """Return where a figure stands on the axis; within the open bin there is no scale, so it stands at its middle."""
    n_closed = len(histogram["edges"]) - histogram["is_last_open"]
    position = value / histogram["width"]
    return {"x": place(position if position < n_closed else n_closed + 0.5), "value": f"{value:,.0f}", "name": name}


def _choose_levels(highest: int) -> list[int]:
    """Return three to five round numbers up to the highest bar, from 0 (others where it is very low)."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * 5 > highest:
                return list(range(0, highest + 1, factor * power))
        power *= 10
