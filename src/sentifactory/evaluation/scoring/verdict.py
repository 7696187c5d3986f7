"""Which model wins, in English and Chinese, and whether the reviews are enough to show it.

There are two kinds of claims. Whether tuned beats base is the planned comparison: one pair, fixed before the data are
seen, so its p-value is not corrected; neither is that of the part of the difference that is not format. Which model is
best is chosen by the data: all pairs of models on a test file are one family, corrected by Holm (`significance`), and
a model wins only when it is shown to be better than each of the others. "Wins" is therefore claimed in at most 5 % of
comparisons of equal models. Correcting only for the pairs of the best model would not be enough, because the data
choose which pairs these are. Each test file is a family of its own; the verdict is about the first file that the user
names, and nothing is claimed across files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from sentifactory.bilingual import MODEL_NAMES, Sentence, lower_first
from sentifactory.evaluation.scoring.base_doubt import BaseDoubt
from sentifactory.evaluation.scoring.decomposition import Decomposition
from sentifactory.evaluation.scoring.scored_predictions import ScoredPredictions
from sentifactory.metrics.number_formats import format_p_value, format_percent, format_points, format_range
from sentifactory.metrics.significance import PairedTest, compare_paired, correct_family
from sentifactory.records import Review
from sentifactory.task.task_choice import ChosenTask


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which model wins.

    Attributes:
        winner: the model with the highest accuracy, or None when the first two are tied.
        is_shown: whether its lead over each of the others is significant after Holm's correction.
        headline: the result in one sentence.
        details: what tuning changed, how the tuned model compares with few-shot and TF-IDF, which replies could not
            be parsed.
        base_doubt: why the base model is no meaningful baseline; None where it is one.
    """

    winner: str | None
    is_shown: bool
    headline: Sentence
    details: tuple[Sentence, ...]
    base_doubt: BaseDoubt | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return asdict(self)


def compare_pairs(
    scored: Mapping[str, ScoredPredictions], reviews: Sequence[Review]
) -> dict[tuple[str, str], PairedTest]:
    """Return the paired test of each two models under (first, second), corrected as one family."""
    rights = {name: one.is_right(reviews) for name, one in scored.items()}
    return correct_family(
        {(first, second): compare_paired(rights[first], rights[second]) for first, second in combinations(rights, 2)}
    )


def decide_verdict(
    scored: Mapping[str, ScoredPredictions],
    tests: Mapping[tuple[str, str], PairedTest],
    decomposition: Decomposition | None = None,
    base_doubt: BaseDoubt | None = None,
) -> Verdict:
    """Return which of the models (at least two) wins.

    Args:
        scored: the scored predictions by model.
        tests: the paired test of each two models, corrected as one family.
        decomposition: of tuned minus base, for the sentence on format and sentiment.
        base_doubt: why the base model is no meaningful baseline.
    """
    # Of equal ones the tuned model is named first: it is the one in question.
    ranking = sorted(scored.values(), key=lambda one: (-one.metrics.accuracy, one.name != "tuned"))
    best, second = ranking[0], ranking[1]
    leads = {other.name: _find_test(tests, other.name, best.name) for other in ranking[1:]}
    # The model over which the lead is shown least need not be the second: it depends on how far mistakes coincide.
    rival = max(ranking[1:], key=lambda other: leads[other.name].p_value_in_family)
    is_shown = leads[rival.name].is_shown_in_family
    details = []
    if "base" in scored and "tuned" in scored:
        details.append(describe_tuning(tests["base", "tuned"]))
    if decomposition is not None and decomposition.only_first_parsed + decomposition.only_second_parsed:
        details.append(describe_decomposition(decomposition))
    few_shot = next((one for one in scored.values() if one.model.has_own_prompt), None)
    few_shot_test = tests[few_shot.name, "tuned"] if few_shot is not None and "tuned" in scored else None
    if few_shot is not None and few_shot_test is not None:
        details.append(describe_few_shot(few_shot, few_shot_test))
    is_level = leads[second.name].difference == 0
    if is_level:
        tied = [one for one in ranking if one.metrics.accuracy == best.metrics.accuracy]
        named = sorted(tied, key=lambda one: one.name != "tuned")
        headline = describe_tie(named)
    else:
        named = [best, second if is_shown else rival]
        headline = describe_lead(best, named[1], leads[rival.name])
    for name in ("tfidf", "tfidf_all"):
        if name in scored and "tuned" in scored and not {"tuned", name} <= {one.name for one in named}:
            details.append(describe_baseline(tests["tuned", name], name))
    details += [describe_unparsed(one) for one in scored.values() if one.metrics.unparsed]
    if len(scored) > 2:
        details.append(describe_family(len(scored), has_question="base" in scored and "tuned" in scored))
    if "tuned" in scored and "tuned" not in {one.name for one in named}:
        headline = add_tuned(headline, scored["tuned"])
    if base_doubt is not None:
        headline = add_doubt(headline, base_doubt, few_shot, few_shot_test)
    elif decomposition is not None and not decomposition.only_first_parsed + decomposition.only_second_parsed:
        headline = add_gain(headline, tests["base", "tuned"], few_shot_test)
    return Verdict(None if is_level else best.name, is_shown and not is_level, headline, tuple(details), base_doubt)


def describe_family(n_models: int, *, has_question: bool) -> Sentence:
    """Return which p-values are corrected, and which one is not."""
    n_pairs = n_models * (n_models - 1) // 2
    en = f"The headline picks the best of {n_models} models: p-values and intervals are corrected for all "
    en += f"{n_pairs} pairs (Holm)"
    zh = f"标题是从 {n_models} 个比较对象中挑出最好的一个，p 值与区间已对全部 {n_pairs} 对比较作 Holm 校正"
    if has_question:
        en += ". Tuned against base is the planned comparison and is not corrected"
        zh += "；“微调对原始”是事先提出的问题，不作校正"
    return Sentence.write(f"{en}.", f"{zh}。")


def describe_tie(tied: Sequence[ScoredPredictions]) -> Sentence:
    """Return the headline where several models have the highest accuracy; they are named in the given order."""
    names = [MODEL_NAMES[one.name].sentence for one in tied]
    *first_en, last_en = [names[0].en, *(lower_first(name.en) for name in names[1:])]
    *first_zh, last_zh = [name.zh for name in names]
    share, n = format_percent(tied[0].metrics.accuracy), tied[0].metrics.reviews
    return Sentence.write(
        f"{', '.join(first_en)} and {last_en} are tied: each has {share} of {n} reviews right.",
        f"{'、'.join(first_zh)}与{last_zh}不分上下：{n} 条评论中准确率均为 {share}。",
    )


def add_tuned(headline: Sentence, tuned: ScoredPredictions) -> Sentence:
    """Return the headline with the accuracy of the tuned model, which it does not name otherwise."""
    name, share = MODEL_NAMES["tuned"].sentence, format_percent(tuned.metrics.accuracy)
    return Sentence.write(f"{headline.en} {name.en} has {share}.", f"{headline.zh}{name.zh}的准确率为 {share}。")


def describe_lead(best: ScoredPredictions, second: ScoredPredictions, test: PairedTest) -> Sentence:
    """Return the headline: which model has the highest accuracy, and whether its lead is shown.

    Args:
        best: the model with the highest accuracy.
        second: the next model, or, when the lead is not shown, the one over which it is shown least.
        test: of the best model against the one over which its lead is shown least.
    """
    p_value = format_p_value(test.p_value_in_family)
    p_en, p_zh = (p_value, p_value) if test.p_value_holm is None else (f"{p_value}, corrected", f"校正后 {p_value}")
    share, next_share = format_percent(best.metrics.accuracy), format_percent(second.metrics.accuracy)
    best_name, second_name = MODEL_NAMES[best.name].sentence, MODEL_NAMES[second.name].sentence
    best_en, second_en = best_name.en, lower_first(second_name.en)
    best_zh, second_zh = best_name.zh, second_name.zh
    n = best.metrics.reviews
    if test.is_shown_in_family:
        return Sentence.write(
            f"{best_en} wins: {share} of {n} reviews right; next is {second_en} with {next_share} ({p_en}).",
            f"{best_zh}胜出：{n} 条评论中准确率 {share}；其次是{second_zh}，{next_share}（{p_zh}）。",
        )
    if test.is_shown:  # this pair alone, which may be the planned comparison: `describe_tuning` then says it is better
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


def add_gain(headline: Sentence, test: PairedTest, few_shot_test: PairedTest | None = None) -> Sentence:
    """Return the headline with what tuning changed, where that is shown; none of it is the form of the answer.

    Args:
        headline: which model wins.
        test: of tuned against base.
        few_shot_test: of tuned against base with examples in its prompt, which gain something without any tuning.
    """
    if not test.is_shown:
        return headline
    points = format_points(abs(test.difference)).removeprefix("+")
    if test.difference < 0:
        return Sentence.write(
            f"{headline.en} Tuning cost {points} points.", f"{headline.zh}微调损失 {points} 个百分点。"
        )
    en, zh = f"Tuning brought {points} points", f"微调带来 {points} 个百分点"
    if few_shot_test is not None:
        over, doubt = format_points(few_shot_test.difference), _name_doubt(few_shot_test)
        en += f", {over} compared with examples in the prompt{doubt.en}"
        zh += f"，与提示词中带示例相比为 {over}{doubt.zh}"
    return Sentence.write(f"{headline.en} {en}.", f"{headline.zh}{zh}。")


def add_doubt(
    headline: Sentence,
    doubt: BaseDoubt,
    few_shot: ScoredPredictions | None = None,
    few_shot_test: PairedTest | None = None,
) -> Sentence:
    """Return the headline with the doubt about the base model, in place of what tuning gained over it.

    Args:
        headline: which model wins.
        doubt: about the base model.
        few_shot: the base model with examples in its prompt, which may be a baseline where it alone is none.
        few_shot_test: of tuned against it.
    """
    en = f"{headline.en} The base model is no meaningful baseline: {doubt.note.en}."
    zh = f"{headline.zh}原始模型不能作为有意义的基准：{doubt.note.zh}。"
    if few_shot is not None and few_shot_test is not None:
        share, over = format_percent(few_shot.metrics.accuracy), format_points(few_shot_test.difference)
        did = Sentence("brought", "带来")
        if few_shot_test.difference < 0:
            did, over = Sentence("cost", "损失"), over.removeprefix("-")
        doubt_of_test = _name_doubt(few_shot_test)
        en += f" Compared with examples in its prompt ({share}), tuning {did.en} {over} points{doubt_of_test.en}."
        zh += f"与提示词中带示例时（{share}）相比，微调{did.zh} {over} 个百分点{doubt_of_test.zh}。"
    return Sentence.write(en, zh)


def _name_doubt(test: PairedTest) -> Sentence:
    return Sentence("", "") if test.is_shown_in_family else Sentence(" (not shown)", "（未得到证明）")


def describe_few_shot(few_shot: ScoredPredictions, test: PairedTest) -> Sentence:
    """Return how the tuned model compares with the base model that sees examples, which is the first of the test."""
    share, p_value = format_percent(few_shot.metrics.accuracy), format_p_value(test.p_value_in_family)
    points = format_points(abs(test.difference)).removeprefix("+")
    place_en, place_zh = ("above", "高") if test.difference >= 0 else ("below", "低")
    doubt_en, doubt_zh = ("", "") if test.is_shown_in_family else ("not shown, ", "差别未得到证明，")
    return Sentence.write(
        f"With examples in its prompt the base model has {share}; the tuned model is {points} points {place_en} that "
        f"({doubt_en}{p_value}, corrected).",
        f"提示词中带示例时，原始模型的准确率为 {share}；微调模型比它{place_zh} {points} 个百分点"
        f"（{doubt_zh}校正后 {p_value}）。",
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
    """Return how much of the difference is format, and how much sentiment."""
    both = parts.both_parsed
    if parts.test is None:
        return Sentence.write(
            "No review got a readable answer from both models, so this comparison cannot show what tuning changed "
            "apart from the answer format. The mode score reads label probabilities from both models and needs no "
            "readable reply.",
            "没有一条评论同时得到两个模型的可识别回答，因此无法判断微调除回答格式外还改变了什么。score 模式"
            "直接读取两个模型的标签概率，不依赖可识别的回答。",
        )
    shown_en = "shown" if parts.test.is_shown else "not shown"
    shown_zh = "得到证明" if parts.test.is_shown else "未得到证明"
    return Sentence.write(
        f"Of these, {format_points(parts.from_format)} points come from answering in a readable format, and "
        f"{format_points(parts.from_sentiment)} from better answers to the {both} reviews that both models answered "
        "readably "
        f"({format_percent(parts.first_accuracy or 0)} before, {format_percent(parts.second_accuracy or 0)} after; "
        f"{shown_en}, {format_p_value(parts.test.p_value)}).",
        f"其中 {format_points(parts.from_format)} 个百分点来自学会以可识别的格式回答，"
        f"{format_points(parts.from_sentiment)} 个百分点来自在两者均可识别的 {both} 条评论上答得更准"
        f"（之前 {format_percent(parts.first_accuracy or 0)}，之后 {format_percent(parts.second_accuracy or 0)}；"
        f"{shown_zh}，{format_p_value(parts.test.p_value)}）。",
    )


def describe_baseline(test: PairedTest, name: str = "tfidf") -> Sentence:
    """Return how the tuned model compares with TF-IDF (`tfidf` or `tfidf_all`), which is the second of the test."""
    baseline = MODEL_NAMES[name].sentence
    points = format_points(abs(test.difference)).removeprefix("+")
    p_value = format_p_value(test.p_value_in_family)
    if test.difference == 0:
        return Sentence.write(f"The tuned model and {baseline.en} are tied.", f"微调模型与{baseline.zh}不分上下。")
    doubt_en = f"({p_value}, corrected)" if test.is_shown_in_family else f"(not shown, {p_value}, corrected)"
    doubt_zh = f"（校正后 {p_value}）" if test.is_shown_in_family else f"（差别未得到证明，校正后 {p_value}）"
    if test.difference > 0:
        return Sentence.write(
            f"{baseline.en} beats the tuned model by {points} points {doubt_en}; it trains in seconds.",
            f"{baseline.zh}比微调模型高 {points} 个百分点{doubt_zh}，而且几秒即可训练完成。",
        )
    return Sentence.write(
        f"The tuned model beats {baseline.en} by {points} points {doubt_en}.",
        f"微调模型比{baseline.zh}高 {points} 个百分点{doubt_zh}。",
    )


def describe_unparsed(one: ScoredPredictions) -> Sentence:
    """Return how many reviews a model gave no label to, and which figures leave them out."""
    name = MODEL_NAMES[one.name].sentence
    n, unparsed = one.metrics.reviews, one.metrics.unparsed
    en = f"{name.en} gave no readable answer to {unparsed} of {n} reviews; these count as wrong."
    zh = f"{name.zh}对 {n} 条评论中的 {unparsed} 条没有给出可识别的答案，均按错误计。"
    if one.probability is not None:
        en += f" Its probability figures cover the other {one.probability.reviews}."
        zh += f"其概率类指标只统计其余 {one.probability.reviews} 条。"
    return Sentence.write(en, zh)


def _find_test(tests: Mapping[tuple[str, str], PairedTest], first: str, second: str) -> PairedTest:
    """Return the test of `second` against `first`, reversed where only the other direction was computed."""
    return tests[first, second] if (first, second) in tests else tests[second, first].reverse()


def warn_of_unfamiliar_models(chosen: ChosenTask) -> list[Sentence]:
    """Return a warning for each model that is asked another task than it was trained for."""
    name = chosen.task.name
    return [
        Sentence.write(
            f"{model} was trained for another task than {name} and was asked with a prompt it does not know: its "
            "figures say little about it.",
            f"{model} 训练时用的不是任务 {name}，提问所用的提示词与训练时不同：其结果不能反映该模型的水平。",
        )
        for model in chosen.unfamiliar
    ]
