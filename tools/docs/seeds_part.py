"""Writes the tables of tuned models on reviews that nobody tuned on, from the figures of `make bench-seeds`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.metrics.number_formats import (
    format_p_value,
    format_percent,
    format_points,
    format_range,
    read_interval,
)
from sentifactory.system.formats import build_table
from tools.docs.page_parts import name_machine

TUNED_HEADERS = {
    "en": [
        "recipe", "test reviews", "tuned, mean (95%)", "by seed", "TF-IDF, as many reviews", "TF-IDF, all reviews",
        "tuned − TF-IDF, as many (95%)", "tuned − TF-IDF, all (95%)",
    ],
    "zh": [
        "配方", "测试评论", "微调，均值（95%）", "各种子", "TF-IDF，同样多的评论", "TF-IDF，全部评论",
        "微调 − TF-IDF，同样多（95%）", "微调 − TF-IDF，全部（95%）",
    ],
}  # fmt: skip
STACK_HEADERS = {
    "en": ["recipe", "test reviews", "stack, mean (95%)", "by seed", "stack − tuned (95%)", "stack − TF-IDF (95%)"],
    "zh": ["配方", "测试评论", "组合，均值（95%）", "各种子", "组合 − 微调（95%）", "组合 − TF-IDF（95%）"],
}
MEANS = {"en": "mean", "zh": "平均"}
RANGE_WORDS = {"en": "to", "zh": "至"}
RECIPES = {"en": "{recipe}: {seeds} seeds, {reviews} reviews", "zh": "{recipe}：{seeds} 个种子，{reviews} 条评论"}
CAPTIONS = {
    "en": "Accuracy by `score` in float32, on {machine}. A seed is another sample or order of the training reviews. "
    "TF-IDF learned from {own}, or from all {train}; the stack combines TF-IDF of all with the tuned model, fitted on "
    "{val} validation reviews. Intervals are bootstrapped over the test reviews, for these seeds. Differences are in "
    "points; p is the largest of the exact McNemar tests of the seeds, so that p < 0.05 holds for each of them, "
    "without correction for the number of rows.",
    "zh": "以 `score` 模式、float32 计算的准确率，机器：{machine}。每个种子对应训练评论的另一个样本或顺序。TF-IDF 用"
    "{own}训练，或用全部 {train} 条训练；组合模型由全部评论的 TF-IDF 与微调模型组成，在 {val} 条验证评论上拟合。区间由"
    "对测试评论的自助法得到，只针对这几个种子。差值单位为百分点；p 为各种子精确 McNemar 检验中最大的一个，p < 0.05 "
    "即每个种子都如此，未按行数校正。",
}
OWN_REVIEWS = {
    "en": ("the reviews of each model", "as many reviews as each model"),
    "zh": ("每个模型自己的训练评论", "与每个模型同样多的评论"),
}


def write_seeds_part(bench: Mapping[str, Any], language: str) -> str:
    """Return both tables, tuned models and stacks, in a language, `en` or `zh`.

    Args:
        bench: the content of recipe_seeds.json.
        language: of headers and captions.
    """
    tuned, stacks = [TUNED_HEADERS[language]], [STACK_HEADERS[language]]
    for row in bench["rows"]:
        sides, differences = row["sides"], row["differences"]
        test = MEANS[language] if row["test"] is None else f"{row['test']}, {row['reviews']:,}"

        def show(side: str, sides: Mapping[str, Any] = sides) -> list[str]:
            interval = format_range(read_interval(sides[side]["interval"]), RANGE_WORDS[language])
            by_seed = ", ".join(map(format_percent, sides[side]["by_seed"].values()))
            return [f"{format_percent(sides[side]['accuracy'])} ({interval})", by_seed]

        tuned.append(
            [
                _name_recipe(bench, row, language),
                test,
                *show("tuned"),
                *(format_percent(sides[side]["accuracy"]) for side in ("tfidf_same", "tfidf_all")),
                *(_show_difference(differences[f"tuned - {side}"], language) for side in ("tfidf_same", "tfidf_all")),
            ]
        )
        stacks.append(
            [
                row["recipe"],
                test,
                *show("stack"),
                *(_show_difference(differences[f"stack - {side}"], language) for side in ("tuned", "tfidf_all")),
            ]
        )
    has_own = all(model["has_own_reviews"] for model in bench["models"].values())
    caption = CAPTIONS[language].format(
        machine=name_machine(bench["machine"]),
        own=OWN_REVIEWS[language][0 if has_own else 1],
        train=f"{bench['train']['reviews']:,}",
        val=f"{bench['val']['reviews']:,}",
    )
    return "\n".join([*build_table(tuned), "", *build_table(stacks), "", caption])


def _name_recipe(bench: Mapping[str, Any], row: Mapping[str, Any], language: str) -> str:
    """Return a recipe with the number of its seeds and of their training reviews."""
    seeds = row["sides"]["tuned"]["by_seed"]
    counts = sorted({bench["models"][f"{row['recipe']}-{seed}"]["training_reviews"] for seed in seeds})
    reviews = "–".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    return RECIPES[language].format(recipe=row["recipe"], seeds=len(seeds), reviews=reviews)


def _show_difference(found: Mapping[str, Any], language: str) -> str:
    """Return a difference with its interval and, where it has been tested, its largest p-value."""
    interval = format_range(read_interval(found["interval"]), RANGE_WORDS[language])
    shown = f"{format_points(found['difference'])} ({interval})"
    p_value = found["largest_p_value"]
    return shown if p_value is None else f"{shown}, {format_p_value(p_value)}"
