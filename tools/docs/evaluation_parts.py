"""Writes the guides' tables on evaluation: the ladder of models, and the number of reviews that a test needs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sentifactory.evaluation.ladder.ladder_report import HEADER, describe_best, list_cells
from sentifactory.system.formats import DASH, build_table, escape
from tools.docs.page_parts import name_machine

DIFFERENCES = (0.01, 0.02, 0.03, 0.05, 0.1)
DISCORDANCES = (0.05, 0.1, 0.2)
HEADS = {
    "en": ("difference, points", "{} % differ in being right"),
    "zh": ("准确率之差（百分点）", "两者对错不同的评论占 {} %"),
}


CAPTIONS = {
    "en": "{asked} reviews of `{file}`, on {machine}. Command: `{command}`",
    "zh": "`{file}` 中的 {asked} 条评论，机器：{machine}。命令：`{command}`",
}


def write_ladder_part(ladder: Mapping[str, Any], language: str) -> str:
    """Return the table of a ladder in a language, `en` or `zh`, with its verdict and its origin."""
    rows = [[getattr(title, language) for title in HEADER]]
    entries = [entry for entry in ladder["rungs"].values() if "metrics" in entry]
    rows += [
        [entry["title"][language], *(cell.write_line(language) for cell in list_cells(entry))] for entry in entries
    ]
    test = ladder["data"]["test"]
    caption = CAPTIONS[language].format(
        asked=test["asked"],
        file=test["file"],
        machine=name_machine(ladder["machine"]),
        command=ladder["command"],
    )
    parts = [*build_table(rows), "", escape(getattr(describe_best(ladder), language)), "", caption]
    return "\n".join(parts)


def write_power_part(language: str) -> str:
    """Return the table in a language, `en` or `zh`; impossible combinations have a dash."""
    first, other = HEADS[language]
    rows = [[first, *(other.format(f"{share * 100:g}") for share in DISCORDANCES)]]
    for difference in DIFFERENCES:
        cells = [f"{count_reviews(difference, share):,}" if share >= difference else DASH for share in DISCORDANCES]
        rows.append([f"{difference * 100:g}", *cells])
    return "\n".join(build_table(rows))


@cache
def count_reviews(difference: float, discordance: float) -> int:
    """Return how many reviews detect a difference with the usual power and level."""
    from sentifactory.metrics.power import count_reviews_needed

    return count_reviews_needed(difference, discordance).reviews
