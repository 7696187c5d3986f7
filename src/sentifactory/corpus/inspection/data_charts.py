"""What the charts on the page of a data set show; the template draws bars as HTML, histograms as SVG.

The labels of a histogram are HTML next to the SVG, so that they keep their size on a narrow screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sentifactory.bilingual import name_label, name_part
from sentifactory.corpus.inspection.display_text import name_reason

WIDTH = 760
DOMAINS_SHOWN = 15

HISTOGRAM_LEFT = 52
HISTOGRAM_TOP = 26
HISTOGRAM_BASE = 210
OPEN_BIN_GAP = 12
TICKS_WANTED = 8
_LABEL_SHARE = 0.3  # of the narrowest histogram, that the longest label of a mark takes
_COUNT_SHARE = 0.15  # of a bar: a narrower piece has no room for its number

# Two to five labels get tones on a scale from brick over grey to teal; more get different hues.
_SCALES = {1: (4,), 2: (0, 4), 3: (0, 2, 4), 4: (0, 1, 3, 4), 5: (0, 1, 2, 3, 4)}
_PART_TONES = {part: f"part-{part}" for part in ("train", "val", "test", "file")}
_FIRST_HUE = 5
_N_HUES = 8


def choose_tones(labels: Sequence[str]) -> dict[str, str]:
    """Return the CSS class that colours each label."""
    scale = _SCALES.get(len(labels)) or tuple(_FIRST_HUE + n % _N_HUES for n in range(len(labels)))
    return {label: f"tone-{tone}" for label, tone in zip(labels, scale, strict=True)}


def build_rows_chart(profile: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one bar of all rows read: the parts, and the rejected rows by reason."""
    pieces = [
        (
            name_part(part),
            _PART_TONES.get(part, f"tone-{_FIRST_HUE + n % _N_HUES}"),
            figures["rows"] - figures["copies"],
        )
        for n, (part, figures) in enumerate(profile["parts"].items())
    ]
    reasons = profile["rows"]["rejected_by_reason"].items()
    pieces += [(name_reason(reason), f"left-{min(n, 5)}", rows) for n, (reason, rows) in enumerate(reasons)]
    total = max(profile["rows"]["in"], 1)
    return [{"name": name, "tone": tone, "rows": rows, "share": rows / total} for name, tone, rows in pieces]


def build_label_chart(
    rows: Sequence[tuple[tuple[str, str], Mapping[str, int]]], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one bar per row, all of the same length, divided by the shares of the labels.

    Args:
        rows: name in English and Chinese, and reviews by label.
        labels: the task's label names; unlabelled reviews come last.
    """
    tones = choose_tones(labels)
    drawn = []
    for name, counts in rows:
        total = sum(counts.values())
        pieces = [
            {"label": name_label(label), "tone": tones.get(label, "tone-none"), "count": n, "share": n / total,
             "is_count_shown": n / total > _COUNT_SHARE}
            for label, n in counts.items()
            if n
        ]  # fmt: skip
        drawn.append({"name": name, "total": total, "pieces": pieces})
    return drawn


def sum_domains(profile: Mapping[str, Any]) -> list[tuple[tuple[str, str], dict[str, int]]]:
    """Return the reviews by label of each domain in all parts; the smallest of many domains as one row."""
    rows = []
    for domain, by_part in profile["domains"].items():
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
    # No other tick is within half a step of that of the open bin.
    ticks = [(place(n), f"{edges[n]:,}") for n in range(0, last, step) if not is_open or last - n > step / 2]
    if is_open:
        ticks.append((place(len(edges) - 1), f"≥ {edges[-1]:,}"))
    return {
        "bars": bars,
        "ticks": ticks,
        "levels": [(round(HISTOGRAM_BASE - n * scale, 1), f"{n:,}") for n in _choose_levels(highest)],
        "marks": _place_marks([_mark(lengths["all"][key], histogram, place, name) for key, name in _MARKS]),
        "width": WIDTH,
        "left": HISTOGRAM_LEFT,
        "top": HISTOGRAM_TOP,
        "base": HISTOGRAM_BASE,
    }


_MARKS = (("median", ("median", "中位数")), ("p95", ("95%", "95%")))


def _mark(value: float, histogram: Mapping[str, Any], place: Any, name: tuple[str, str]) -> dict[str, Any]:
    """Return the position of a value on the axis; the open bin has no scale, so a value within it is at its middle."""
    n_closed = len(histogram["edges"]) - histogram["is_last_open"]
    position = value / histogram["width"]
    return {"x": place(position if position < n_closed else n_closed + 0.5), "value": f"{value:,.0f}", "name": name}


def _place_marks(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the marks of median and 95th percentile, whose labels cover neither each other nor a line.

    Also on the narrowest page a label fits into the part of the picture on its side of the line. Labels on the same
    side of their lines are in two rows: that of the line further out, which the other label crosses, is the lower one.
    """
    (median, high), span = marks, WIDTH - HISTOGRAM_LEFT
    median["is_left"] = (median["x"] - HISTOGRAM_LEFT) / span >= _LABEL_SHARE
    high["is_left"] = (high["x"] - HISTOGRAM_LEFT) / span > 1 - _LABEL_SHARE
    median["is_high"] = not median["is_left"]
    high["is_high"] = median["is_left"] and high["is_left"]
    return [median, high]


def _choose_levels(highest: int) -> list[int]:
    """Return round numbers from 0 up to the highest bar: three to five, unless it is very low."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * 5 > highest:
                return list(range(0, highest + 1, factor * power))
        power *= 10
