"""The table in the guide on choosing a kind of model: the ladder of models, as `sentifactory eval ladder` found it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.evaluation.ladder_report import HEADER, describe_best, list_cells
from sentifactory.evaluation.markdown import build_table, escape
from sentifactory.guides.parts import name_machine

CAPTIONS = {
    "en": "{asked} reviews of `{file}`, on {machine}. Command: `{command}`",
    "zh": "`{file}` 中的 {asked} 条评论，机器：{machine}。命令：`{command}`",
}


def write_ladder_part(ladder: Mapping[str, Any], language: str) -> str:
    """Return the table of a ladder in a language, `en` or `zh`, with its verdict and where it comes from."""
    rows = [[getattr(title, language) for title in HEADER]]
    rows += [[rung["title"][language], *list_cells(rung)] for rung in ladder["rungs"].values() if "metrics" in rung]
    test = ladder["data"]["test"]
    caption = CAPTIONS[language].format(
        asked=test["asked"],
        file=test["file"],
        machine=name_machine(ladder["machine"]),
        command=ladder["command"],
    )
    parts = [*build_table(rows), "", escape(getattr(describe_best(ladder), language)), "", caption]
    return "\n".join(parts)
