"""Who wins, said plainly in English and Chinese, and whether the reviews are enough to show it.

Two kinds of claims stand side by side. Whether tuned beats base is the question that a comparison is made for: it is
asked before the data come, of one pair, and its p-value stays as it is; so does that of its part that is no matter of
format. Which model is the best, the data say themselves: all pairs of models on a test file are one family then,
corrected by Holm (`significance`), and a model is said to win only where it is shown to be better than each of the
others. So "wins" is claimed in at most 5 % of comparisons of equal models. Correcting for the pairs of the best model
alone would not do: which ones these are, the data have chosen. Each test file is a family of its own; the verdict is
about the first, which the user names first, and nothing is claimed over several files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from sentifactory.corpus.wording import PARTS
from sentifactory.evaluation.decomposition import Decomposition
from sentifactory.evaluation.formats import format_p_value, format_percent, format_points, format_range
from sentifactory.evaluation.outcomes import Outcome
from sentifactory.evaluation.significance import PairedTest, compare_paired, correct_family
from sentifactory.records import Review
from sentifactory.task_choice import ChosenTask

NAMES_EN = {
    "majority": "Always the commonest label",
    "base": "The base model",
    "tuned": "The tuned model",
    "tfidf": "TF-IDF",
}
NAMES_ZH = {"majority": "“总答多数类”", "base": "原始模型", "tuned": "微调模型", "tfidf": "TF-IDF"}
_HAN_MEETS_LATIN = re.compile(r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9+-])|(?<=[A-Za-z0-9%])(?=[\u4e00-\u9fff])")


@dataclass(frozen=True, slots=True)
class Sentence:
    """The same sentence in two languages."""

    en: str
    zh: str

    @classmethod
    def write(cls, en: str, zh: str) -> Sentence:
        """Return the sentence, with a space in Chinese wherever Han and Latin letters or figures meet."""
        return cls(en, _HAN_MEETS_LATIN.sub(" ", zh))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who wins.

    Attributes:
        winner: the contender with the highest accuracy, or None when the first two are level.
        is_shown: whether its lead over each of the others is more than chance explains, after Holm's correction.
        headline: who wins, in one sentence.
        details: what tuning did to the base, how the tuned model stands against TF-IDF, what could not be parsed.
    """

    winner: str | None
    is_shown: bool
    headline: Sentence
    details: tuple[Sentence, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return asdict(self)


def compare_pairs(
    outcomes: Mapping[str, Outcome], reviews: Sequence[Review], seed: int = 0
) -> dict[tuple[str, str], PairedTest]:
    """Return the paired test of each two contenders, under (first, second) in the order of `outcomes`: one family."""
    rights = {name: outcome.is_right(reviews) for name, outcome in outcomes.items()}
    return correct_family(
        {
            (first, second): compare_paired(rights[first], rights[second], seed=seed)
            for first, second in combinations(rights, 2)
        }
    )


def decide_verdict(
    outcomes: Mapping[str, Outcome],
    tests: Mapping[tuple[str, str], PairedTest],
    decomposition: Decomposition | None = None,
) -> Verdict:
    """Return who wins among the contenders (at least two), from their outcomes and paired tests.

    Args:
        outcomes: what each contender answered, by name.
        tests: the paired test of each two, corrected as one family.
        decomposition: of tuned minus base, for the sentence on format and sentiment.
    """
    ranking = sorted(outcomes.values(), key=lambda outcome: -outcome.metrics.accuracy)
    best, second = ranking[0], ranking[1]
    leads = {other.name: _find_test(tests, other.name, best.name) for other in ranking[1:]}
    # Mistakes that go together show a small lead, and others hide a larger one: it need not be the second.
    rival = max(ranking[1:], key=lambda other: leads[other.name].p_value_in_family)
    is_shown = leads[rival.name].is_shown_in_family
    details = []
    if "base" in outcomes and "tuned" in outcomes:
        details.append(describe_tuning(tests["base", "tuned"]))
    if decomposition is not None and decomposition.only_first_parsed + decomposition.only_second_parsed:
        details.append(describe_decomposition(decomposition))
    if "tfidf" in outcomes and "tuned" in outcomes and {best.name, second.name} != {"tuned", "tfidf"}:
        details.append(describe_baseline(tests["tuned", "tfidf"]))
    details += [describe_unparsed(outcome) for outcome in outcomes.values() if outcome.metrics.unparsed]
    if len(outcomes) > 2:
        details.append(describe_family(len(outcomes), has_question="base" in outcomes and "tuned" in outcomes))
    is_level = leads[second.name].difference == 0
    headline = describe_lead(best, second if is_level or is_shown else rival, leads[rival.name], is_level=is_level)
    return Verdict(None if is_level else best.name, is_shown and not is_level, headline, tuple(details))


def describe_family(n_models: int, *, has_question: bool) -> Sentence:
    """Return for which pairs the p-values are corrected, and which one is not."""
    n_pairs = n_models * (n_models - 1) // 2
    en = f"The headline picks the best of {n_models} contenders: p-values are corrected for all {n_pairs} pairs (Holm)"
    zh = f"标题是从 {n_models} 个比较对象中挑出最好的一个，p 值已对全部 {n_pairs} 对比较作 Holm 校正"
    if has_question:
        en += ". Tuned against base is the question asked beforehand, and its own p-value is not corrected"
        zh += "；“微调对原始”是事先提出的问题，其自身的 p 值不作校正"
    return Sentence.write(f"{en}.", f"{zh}。")


def describe_lead(best: Outcome, second: Outcome, test: PairedTest, *, is_level: bool) -> Sentence:
    """Return the headline: who has the highest accuracy, and whether its lead is shown.

    Args:
        best: who has it.
        second: who comes next, or, where the lead is not shown, over whom it is shown least.
        test: of the best against whom its lead is shown least.
        is_level: whether the first two are level.
    """
    p_value = format_p_value(test.p_value_in_family)
    p_en, p_zh = (p_value, p_value) if test.p_value_holm is None else (f"{p_value}, corrected", f"校正后 {p_value}")
    share, next_share = format_percent(best.metrics.accuracy), format_percent(second.metrics.accuracy)
    best_en, second_en = NAMES_EN[best.name], _lower_first(NAMES_EN[second.name])
    best_zh, second_zh = NAMES_ZH[best.name], NAMES_ZH[second.name]
    n = best.metrics.reviews
    if is_level:
        return Sentence.write(
            f"{best_en} and {second_en} are level: each has {share} of {n} reviews right.",
            f"{best_zh}与{second_zh}不分上下：{n} 条评论中准确率均为 {share}。",
        )
    if test.is_shown_in_family:
        return Sentence.write(
            f"{best_en} wins: {share} of {n} reviews right; next is {second_en} with {next_share} ({p_en}).",
            f"{best_zh}胜出：{n} 条评论中准确率 {share}；其次是{second_zh}，{next_share}（{p_zh}）。",
        )
    if test.is_shown:  # of this pair alone: it may be the question asked beforehand, which is answered otherwise below
        return Sentence.write(
            f"{best_en} is ahead with {share}, but {n} reviews do not show that it is the best of all: its lead over "
            f"{second_en} ({next_share}) has {p_en}.",
            f"{best_zh}以 {share} 领先，但 {n} 条评论不足以证明它是其中最好的：与{second_zh}（{next_share}）相比，"
            f"{p_zh}。",
        )
    return Sentence.write(
        f"{best_en} is ahead with {share}, but {n} reviews do not show that it is better than {second_en} "
        f"({next_share}, {p_en}).",
        f"{best_zh}以 {share} 领先，但 {n} 条评论不足以证明它优于{second_zh}（{next_share}，{p_zh}）。",
    )


def describe_tuning(test: PairedTest) -> Sentence:
    """Return what tuning did to the base model."""
    facts_en = (
        f"{format_points(test.difference)} points, 95% interval {format_range(test.interval, 'to')}, "
        f"{format_p_value(test.p_value)}, {test.fixed} fixed, {test.broken} broken"
    )
    facts_zh = (
        f"{format_points(test.difference)} 个百分点，95% 区间 {format_range(test.interval, '至')}，"
        f"{format_p_value(test.p_value)}，改对 {test.fixed} 条，改错 {test.broken} 条"
    )
    if not test.is_shown:
        return Sentence.write(
            f"A difference between tuned and base is not shown: {facts_en}.",
            f"微调与原始模型之间的差别未得到证明：{facts_zh}。",
        )
    if test.difference > 0:
        return Sentence.write(f"Tuned is better than base: {facts_en}.", f"微调优于原始模型：{facts_zh}。")
    return Sentence.write(f"Tuned is worse than base: {facts_en}.", f"微调不如原始模型：{facts_zh}。")


def describe_decomposition(parts: Decomposition) -> Sentence:
    """Return how much of a difference is format, and how much sentiment."""
    both = parts.both_parsed
    if parts.test is None:
        return Sentence.write(
            "No review was answered readably by both: what tuning taught beyond the form of an answer cannot be told "
            "from this. Compare with --mode score, which asks both for probabilities and needs no readable reply.",
            "没有一条评论同时得到两个模型的可识别回答，因此无法判断微调除回答格式外还教会了什么；请用 --mode score "
            "比较，该模式直接读取两个模型的标签概率，不依赖可识别的回答。",
        )
    shown_en = "shown" if parts.test.is_shown else "not shown"
    shown_zh = "得到证明" if parts.test.is_shown else "未得到证明"
    return Sentence.write(
        f"Of these, {format_points(parts.from_format)} points come from answering in a readable form at all, and "
        f"{format_points(parts.from_sentiment)} from better answers to the {both} reviews that both answered readably "
        f"({format_percent(parts.first_accuracy or 0)} before, {format_percent(parts.second_accuracy or 0)} after; "
        f"{shown_en}, {format_p_value(parts.test.p_value)}).",
        f"其中 {format_points(parts.from_format)} 个百分点来自学会以可识别的格式回答，"
        f"{format_points(parts.from_sentiment)} 个百分点来自在两者均可识别的 {both} 条评论上答得更准"
        f"（之前 {format_percent(parts.first_accuracy or 0)}，之后 {format_percent(parts.second_accuracy or 0)}；"
        f"{shown_zh}，{format_p_value(parts.test.p_value)}）。",
    )


def describe_baseline(test: PairedTest) -> Sentence:
    """Return how the tuned model stands against TF-IDF; the test's first side is the tuned model."""
    points = format_points(abs(test.difference)).removeprefix("+")
    p_value = format_p_value(test.p_value_in_family)
    if test.difference == 0:
        return Sentence.write("The tuned model and TF-IDF are level.", "微调模型与 TF-IDF 不分上下。")
    doubt_en = f"({p_value}, corrected)" if test.is_shown_in_family else f"(not shown, {p_value}, corrected)"
    doubt_zh = f"（校正后 {p_value}）" if test.is_shown_in_family else f"（差别未得到证明，校正后 {p_value}）"
    if test.difference > 0:
        return Sentence.write(
            f"TF-IDF beats the tuned model by {points} points {doubt_en}; it trains in seconds.",
            f"TF-IDF 比微调模型高 {points} 个百分点{doubt_zh}，而且几秒即可训练完成。",
        )
    return Sentence.write(
        f"The tuned model beats TF-IDF by {points} points {doubt_en}.",
        f"微调模型比 TF-IDF 高 {points} 个百分点{doubt_zh}。",
    )


def describe_unparsed(outcome: Outcome) -> Sentence:
    """Return how many reviews a contender gave no label to, and which figures are about the others alone."""
    n, unparsed = outcome.metrics.reviews, outcome.metrics.unparsed
    en = f"{NAMES_EN[outcome.name]} gave no readable answer to {unparsed} of {n} reviews; these count as wrong."
    zh = f"{NAMES_ZH[outcome.name]}对 {n} 条评论中的 {unparsed} 条没有给出可识别的答案，均按错误计。"
    if outcome.probability is not None:
        en += f" The figures of its probabilities are about the other {outcome.probability.reviews}."
        zh += f"其概率类指标只统计其余 {outcome.probability.reviews} 条。"
    return Sentence.write(en, zh)


def describe_overlap(n_overlaps: int, n_test: int, file: str, part: str) -> Sentence:
    """Return the warning that test reviews of a file were seen in a part (`train` or `val`)."""
    part_en, part_zh = PARTS[part]
    return Sentence.write(
        f"{n_overlaps} of the {n_test} test reviews stand in the {part_en} reviews too ({file}): the accuracies are "
        "flattered.",
        f"{n_test} 条测试评论中有 {n_overlaps} 条也出现在{part_zh}的评论中（{file}），准确率因此偏高。",
    )


def _find_test(tests: Mapping[tuple[str, str], PairedTest], first: str, second: str) -> PairedTest:
    """Return the test of `second` against `first`, turned round where it was made the other way."""
    return tests[first, second] if (first, second) in tests else tests[second, first].turn_round()


def _lower_first(name: str) -> str:
    return name if name.startswith("TF-IDF") else name[0].lower() + name[1:]


def warn_of_strangers(chosen: ChosenTask) -> list[Sentence]:
    """Return a warning for each model that was taught another task than it is asked."""
    name = chosen.task.name
    return [
        Sentence.write(
            f"{model} was taught another task than {name}, and was asked in other words than it knows: its figures "
            "say little about it.",
            f"{model} 训练时用的不是任务 {name}，提问的措辞与训练时不同：其结果不能说明该模型的水平。",
        )
        for model in chosen.strangers
    ]
