"""Renders the profile of a data set as one self-contained HTML page in English and Chinese, fit for printing.

Reviews are untrusted: the template escapes everything, and the content security policy of the page forbids scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.bilingual import list_quoted, name_label, name_part
from sentifactory.corpus.cleaning.near_duplicates import LOOSE_CHARS, MIN_CHARS, MIN_SIMILARITY
from sentifactory.corpus.inspection.data_charts import (
    build_histogram_chart,
    build_label_chart,
    build_rows_chart,
    choose_tones,
    sum_domains,
)
from sentifactory.corpus.inspection.display_text import (
    TEXT_LIMIT,
    count_noun,
    explain_reason,
    name_reason,
    shorten_name,
)
from sentifactory.corpus.inspection.findings import build_findings
from sentifactory.pages.base_page import build_environment
from sentifactory.redaction import relate_paths
from sentifactory.system.formats import format_share

TEMPLATE = "data_report.html.j2"
LONG_TEXT = 110  # characters; a longer review is folded
NAME_CELLS = 18  # of a name next to a bar
UNITS = {"characters": ("characters", "字符"), "tokens": ("tokens", "词元")}
_WITH_PATHS = ("parts", "provenance")  # of the profile
TOO_MANY = "too many reviews"  # of the profile
WHY_SKIPPED = {
    "by choice": ("Not searched, as requested.", "按要求未查找。"),
    TOO_MANY: ("Not searched among so many reviews.", "评论过多，此处未查找。"),
}


def render_page(profile: Mapping[str, Any]) -> str:
    """Return the page of a profile as HTML."""
    environment = build_environment(
        "sentifactory.corpus.inspection",
        number=lambda value: f"{value:,}",
        quoted=lambda detail: "".join(f"；“{value}”" for value in list_quoted(detail)),
        percent=format_share,
        shorten_name=lambda name: shorten_name(name, NAME_CELLS),
        label_name=name_label,
        part_name=name_part,
        reason_name=name_reason,
        reason_note=explain_reason,
    )
    shown = hide_folders(profile)
    labels = profile["task"]["labels"]
    parts = [(name_part(part), figures["labels"]) for part, figures in profile["parts"].items()]
    return environment.get_template(TEMPLATE).render(
        profile=shown,
        findings=build_findings(profile),
        tones=choose_tones(labels),
        rows_chart=build_rows_chart(profile),
        part_chart=build_label_chart(parts, labels),
        domain_chart=build_label_chart(sum_domains(profile), labels) if profile["domains"] else None,
        length_charts={unit: build_histogram_chart(lengths, labels) for unit, lengths in profile["lengths"].items()},
        units=UNITS,
        why_skipped=WHY_SKIPPED,
        too_many=TOO_MANY,
        count=count_noun,
        long_text=LONG_TEXT,
        text_limit=TEXT_LIMIT,
        near_share=round(100 * MIN_SIMILARITY),
        near_chars=(MIN_CHARS, LOOSE_CHARS),
    )


def hide_folders(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile without the folders of this machine; reviews are unchanged: a slash in them is no path."""
    shown = {key: relate_paths(value) if key in _WITH_PATHS else value for key, value in profile.items()}
    shown["rejected_examples"] = {
        reason: [
            {key: value if key == "text" else relate_paths(value) for key, value in example.items()}
            for example in examples
        ]
        for reason, examples in profile["rejected_examples"].items()
    }
    return shown
