"""The page of a data set: one HTML file that asks nothing of the network, in English and Chinese, fit for printing.

Drawn from the picture alone. Reviews are strangers' words: the template escapes everything, and the page forbids
itself scripts by its own policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.corpus.data_charts import (
    build_histogram_chart,
    build_label_chart,
    build_rows_chart,
    choose_tones,
    sum_domains,
)
from sentifactory.corpus.findings import build_findings
from sentifactory.corpus.near import LOOSE_CHARS, MIN_CHARS, MIN_SIMILARITY
from sentifactory.corpus.quoting import TEXT_LIMIT
from sentifactory.corpus.wording import (
    count,
    explain_reason,
    format_share,
    name_label,
    name_part,
    name_reason,
    shorten_name,
)
from sentifactory.pages.rendering import build_environment

TEMPLATE = "data_report.html.j2"
LONG_TEXT = 110  # characters; a longer review is folded
NAME_CELLS = 18  # beside a bar
UNITS = {"characters": ("characters", "字符"), "tokens": ("tokens", "词元")}
WHY_SKIPPED = {
    "by choice": ("Not looked for, by choice.", "按要求未查找。"),
    "too many reviews": (
        "Not looked for among so many reviews: sentifactory data doubt does it.",
        "评论过多，此处未查找：请运行 sentifactory data doubt。",
    ),
}


def render_page(picture: Mapping[str, Any]) -> str:
    """Return the page of a picture as HTML."""
    environment = build_environment(
        "sentifactory.corpus",
        number=lambda value: f"{value:,}",
        percent=format_share,
        shorten_name=lambda name: shorten_name(name, NAME_CELLS),
        label_name=name_label,
        part_name=name_part,
        reason_name=name_reason,
        reason_note=explain_reason,
    )
    labels = picture["task"]["labels"]
    parts = [(name_part(part), figures["labels"]) for part, figures in picture["parts"].items()]
    return environment.get_template(TEMPLATE).render(
        picture=picture,
        findings=build_findings(picture),
        tones=choose_tones(labels),
        rows_chart=build_rows_chart(picture),
        part_chart=build_label_chart(parts, labels),
        domain_chart=build_label_chart(sum_domains(picture), labels) if picture["domains"] else None,
        length_charts={unit: build_histogram_chart(lengths, labels) for unit, lengths in picture["lengths"].items()},
        units=UNITS,
        why_skipped=WHY_SKIPPED,
        count=count,
        long_text=LONG_TEXT,
        text_limit=TEXT_LIMIT,
        near_share=round(100 * MIN_SIMILARITY),
        near_chars=(MIN_CHARS, LOOSE_CHARS),
    )
