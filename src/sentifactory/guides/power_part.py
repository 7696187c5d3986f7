"""The table in the evaluation guide: how many test reviews show a difference of two models."""

from __future__ import annotations

from functools import cache

from sentifactory.evaluation.markdown import build_table
from sentifactory.quantities import DASH

DIFFERENCES = (0.01, 0.02, 0.03, 0.05, 0.1)
DISCORDANCES = (0.05, 0.1, 0.2)
HEADS = {
    "en": ("difference, points", "{} % differ in being right"),
    "zh": ("准确率之差（百分点）", "两者对错不同的评论占 {} %"),
}


def write_power_part(language: str) -> str:
    """Return the table in a language, `en` or `zh`; a dash where the difference cannot be as large as that."""
    first, other = HEADS[language]
    rows = [[first, *(other.format(f"{share * 100:g}") for share in DISCORDANCES)]]
    for difference in DIFFERENCES:
        cells = [f"{count_reviews(difference, share):,}" if share >= difference else DASH for share in DISCORDANCES]
        rows.append([f"{difference * 100:g}", *cells])
    return "\n".join(build_table(rows))


@cache
def count_reviews(difference: float, discordance: float) -> int:
    """Return how many reviews show a difference, with the chance and at the level that are usual."""
    from sentifactory.evaluation.power import count_reviews_needed

    return count_reviews_needed(difference, discordance).reviews
