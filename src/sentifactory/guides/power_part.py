"""The table in the evaluation guide: how many test reviews show a difference of two models."""

from __future__ import annotations

from sentifactory.evaluation.markdown import build_table

DIFFERENCES = (0.01, 0.02, 0.03, 0.05, 0.1)
DISCORDANCES = (0.05, 0.1, 0.2)
HEADS = {
    "en": ("difference", "{} % of the answers differ in being right"),
    "zh": ("准确率之差", "两者对错不同的评论占 {} %"),
}
POINTS = {"en": "{} points", "zh": "{} 个百分点"}


def write_power_part(language: str) -> str:
    """Return the table in a language, `en` or `zh`; a dash where the difference cannot be as large as that."""
    from sentifactory.evaluation.power import count_reviews_needed

    first, other = HEADS[language]
    rows = [[first, *(other.format(f"{share * 100:g}") for share in DISCORDANCES)]]
    for difference in DIFFERENCES:
        cells = [
            f"{count_reviews_needed(difference, share).reviews:,}" if share >= difference else "–"
            for share in DISCORDANCES
        ]
        rows.append([POINTS[language].format(f"{difference * 100:g}"), *cells])
    return "\n".join(build_table(rows))
