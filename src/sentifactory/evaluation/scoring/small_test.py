"""The warning that a test is too small to show the differences that people ask about."""

from __future__ import annotations

from sentifactory.bilingual import Sentence
from sentifactory.metrics.power import POWER, compute_power, count_reviews_needed, find_smallest_difference

# A test that does not show even such a difference, the largest that good models have, is too small.
_ACCEPTABLE = 0.05


def warn_of_small_test(n_reviews: int) -> list[Sentence]:
    """Return the warning about a test of so many reviews, with the difference that it could show; [] if large enough.

    Args:
        n_reviews: number of test reviews, at least 1.
    """
    if compute_power(n_reviews, _ACCEPTABLE, _ACCEPTABLE) >= POWER:
        return []
    difference = find_smallest_difference(n_reviews)
    needed = count_reviews_needed(_ACCEPTABLE, _ACCEPTABLE).reviews
    points, sure = f"{_ACCEPTABLE * 100:.0f}", f"{POWER * 100:.0f}%"
    more = Sentence(
        f"A difference of {points} points takes at least {needed} reviews.",
        f"要证明 {points} 个百分点的差别，至少需要 {needed} 条。",
    )
    if difference is None:
        return [
            Sentence.write(
                f"{n_reviews} test reviews show no difference at all, however large. {more.en}",
                f"{n_reviews} 条测试评论无论差别多大都无法证明。{more.zh}",
            )
        ]
    best = f"{difference * 100:.0f}"
    return [
        Sentence.write(
            f"This test is small: {n_reviews} reviews show a difference of {best} points at best (with a probability "
            f"of {sure}), and smaller ones stay undecided. {more.en}",
            f"测试评论较少：{n_reviews} 条最多只能证明 {best} 个百分点以上的差别（把握 {sure}），更小的差别无法判断。"
            f"{more.zh}",
        )
    ]
