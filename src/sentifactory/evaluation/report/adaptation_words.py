"""The passage of a report about answers that are adapted to the labels' shares, for page, terminal and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sentifactory.bilingual import (
    MODEL_NAMES,
    Cell,
    ModelNames,
    Sentence,
    lower_first,
    name_label,
    same_in_both,
)
from sentifactory.metrics.number_formats import (
    format_p_value,
    format_percent,
    format_points,
    format_range,
    read_interval,
    read_p_value,
)
from sentifactory.system.formats import DASH

TITLE = Sentence("Adapted to the shares of the labels", "按标签占比调整之后")
NOTE = Sentence(
    "Every model estimates the shares of the labels from its probabilities of the test reviews, without their labels "
    "(EM; 95% interval), and its probabilities are then multiplied by the estimated share over the share among the "
    "validation reviews. The interval holds if the reviews of a label are alike in both; those of another domain may "
    "differ. A shift is tested against the shares of this validation file, as they are: if its reviews were drawn at "
    "random, their own shares are off by chance, and a shift from them does not show that the populations differ. All "
    "other figures of this report are of unadapted answers.",
    "每个模型只根据自己对测试评论给出的概率（不看标签）用 EM 估计标签占比（95% 区间），再把各标签的概率乘以"
    "“估计占比 / 验证集占比”。该区间以同一标签的评论在两处相似为前提，换了领域则未必成立。"
    "占比变化的检验以该验证文件的实际占比为基准：若验证评论是随机抽取的，其占比本身带有抽样误差，显示变化并不说明两个总体的占比不同。"
    "报告中其他指标均为未调整的回答。",
)


def build_adapted(
    results: Sequence[Mapping[str, Any]], labels: list[str], names: Mapping[str, ModelNames] = MODEL_NAMES
) -> dict[str, Any]:
    """Return the passage about some test files: title, note, columns, and of each file headline, rows and refusals."""
    return {
        "title": TITLE,
        "note": NOTE,
        "columns": list_adapted_columns(labels),
        "tests": [
            {
                "file": result["data"]["test"]["file"],
                "headline": describe_adapted(result, names),
                "rows": list_adapted_rows(result, labels, names),
                "refusals": list_refusals(result, names),
            }
            for result in results
        ],
    }


def list_adapted_columns(labels: list[str]) -> list[Sentence]:
    """Return the header of the table."""
    en, zh = name_label(labels[-1])
    what = Sentence(f"Share of {en}", f"{zh}占比") if len(labels) == 2 else Sentence("Shares", "占比")
    return [
        Sentence("Model", "模型"),
        Sentence(f"{what.en}, estimated", f"{what.zh}（估计）"),
        Sentence("True", "真实"),
        Sentence("Accuracy before", "调整前准确率"),
        Sentence("Adapted", "调整后"),
        Sentence("Change in points", "变化（百分点）"),
    ]


def list_adapted_rows(
    result: Mapping[str, Any], labels: list[str], names: Mapping[str, ModelNames] = MODEL_NAMES
) -> list[list[Cell]]:
    """Return the rows of the table for one test file."""
    rows = []
    for name, one in result["adapted"]["models"].items():
        before, after = result["models"][name]["metrics"], one["metrics"]
        row = [
            Cell(names[name].table),
            *_show_estimate(one["shift"], labels),
            Cell(_show_shares([format_percent(share) for share in one["true_shares"]], labels)),
            Cell(same_in_both(format_percent(before["accuracy"]))),
        ]
        if one["is_adapted"]:
            low, high = (format_percent(after["accuracy_interval"][end]) for end in ("low", "high"))
            test = one["against_unadapted"]
            interval, p_value = read_interval(test["interval"]), format_p_value(read_p_value(test))
            row.append(Cell.show(format_percent(after["accuracy"]), f"{low}–{high}"))
            small = Sentence(
                f"{format_range(interval, 'to')}; {p_value}", f"{format_range(interval, '至')}；{p_value}"
            )
            row.append(Cell(same_in_both(format_points(test["difference"])), small))
        elif one["refused"]:
            row += [Cell(Sentence("not adapted", "未调整")), Cell(same_in_both(DASH))]
        else:
            p_value = format_p_value(one["shift"]["p_value"])
            row.append(Cell(Sentence("no shift shown", "未显示占比变化"), same_in_both(p_value)))
            row.append(Cell(same_in_both(DASH)))
        rows.append(row)
    return rows


def list_refusals(result: Mapping[str, Any], names: Mapping[str, ModelNames] = MODEL_NAMES) -> list[Sentence]:
    """Return why models are not adapted, a sentence for each of them."""
    return [
        Sentence.write(
            f"{names[name].table.en} is not adapted: {one['refused']['en']}.",
            f"{names[name].table.zh}未调整：{one['refused']['zh']}。",
        )
        for name, one in result["adapted"]["models"].items()
        if one["refused"]
    ]


def describe_adapted(result: Mapping[str, Any], names: Mapping[str, ModelNames] = MODEL_NAMES) -> Sentence:
    """Return which model has the highest accuracy after adaptation, and over which tested ones its lead is shown.

    Where no model's answers are adapted, that is said instead: the figures above hold for all.
    Models with a note (of a ladder: they have seen test reviews) are left out, and those that could not be adapted: a
    lead over these may come from the adaptation alone. Where nothing is left, all are compared.
    """
    every = result["adapted"]["models"]
    if not any(one["is_adapted"] for one in every.values()):
        return Sentence(
            "No model's answers are adapted: the shares could not be estimated well enough, or no shift is shown.",
            "没有任何模型的回答得到调整：标签占比无法足够准确地估计，或未显示占比变化。",
        )
    models = {
        name: one
        for name, one in every.items()
        if not result["models"][name].get("note") and (name == "majority" or not one["refused"])
    } or every
    best = max(models, key=lambda name: models[name]["metrics"]["accuracy"])
    share = format_percent(models[best]["metrics"]["accuracy"])
    title = names[best].sentence
    leads_en, leads_zh = [], []
    for other in models:
        if other == best:
            continue
        tests = result["adapted"]["paired_tests"]
        test = tests.get(f"{best}_vs_{other}") or tests.get(f"{other}_vs_{best}")
        if test is None:  # a ladder compares with its reference only
            continue
        points = format_points(abs(test["difference"])).removeprefix("+")
        p_value = format_p_value(read_p_value(test))
        is_shown, name = test["is_shown_holm"], names[other].sentence
        leads_en.append(
            f"{points} points over {lower_first(name.en)} ({'shown' if is_shown else 'not shown'}, {p_value})"
        )
        leads_zh.append(f"领先{name.zh} {points} 个百分点（{'显著' if is_shown else '不显著'}，{p_value}）")
    return Sentence.write(
        f"{title.en} has the highest accuracy after adaptation, {share}"
        + (f": {'; '.join(leads_en)}." if leads_en else "."),
        f"调整后准确率最高的是{title.zh}：{share}" + (f"，{'；'.join(leads_zh)}。" if leads_zh else "。"),
    )


def _show_shares(shares: list[str], labels: list[str]) -> Sentence:
    """Return the share of the last of two labels, or of every label with its name."""
    if len(labels) == 2:
        return same_in_both(shares[-1])
    named = [(name_label(label), share) for label, share in zip(labels, shares, strict=True)]
    return Sentence(
        ", ".join(f"{en} {share}" for (en, _), share in named), "，".join(f"{zh} {share}" for (_, zh), share in named)
    )


def _show_estimate(shift: Mapping[str, Any] | None, labels: list[str]) -> list[Cell]:
    """Return the cell of the estimated shares; a dash where nothing is known about them."""
    if shift is None or not shift["information"]:
        return [Cell(same_in_both(DASH))]
    shares = [format_percent(share) for share in shift["shares"]]
    spreads = [f"{format_percent(one['low'])}–{format_percent(one['high'])}" for one in shift["intervals"]]
    small = spreads[-1] if len(labels) == 2 else ", ".join(spreads)
    return [Cell(_show_shares(shares, labels), same_in_both(small))]
