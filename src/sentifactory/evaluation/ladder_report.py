"""The ladder as a page, as Markdown and as a table on the terminal, all from the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json, write_text
from sentifactory.evaluation.charts import build_bars
from sentifactory.evaluation.formats import format_p_value, format_percent, format_points, format_range, read_p_value
from sentifactory.evaluation.markdown import build_table, escape
from sentifactory.evaluation.verdict import Sentence
from sentifactory.evaluation.wording import read_interval
from sentifactory.quantities import DASH, format_bytes, format_seconds

TITLE = Sentence("Ladder of models", "模型阶梯")
HEADER = (
    Sentence("Model", "模型"),
    Sentence("Accuracy", "准确率"),
    Sentence("Against TF-IDF, points (p: Holm)", "相对 TF-IDF（百分点；p 经 Holm 校正）"),
    Sentence("Macro F1", "宏平均 F1"),
    Sentence("ECE (by chance)", "ECE（偶然值）"),
    Sentence("Reviews/s", "每秒评论数"),
    Sentence("Peak memory", "内存峰值"),
    Sentence("Model size", "模型大小"),
    Sentence("Training", "训练时间"),
)
# The colour of each rung's bar.
TONES = {"majority": "majority", "tfidf": "tfidf", "snownlp": "tfidf", "freeze": "tuned", "lora": "tuned"}


def list_cells(rung: Mapping[str, Any]) -> list[str]:
    """Return the cells of a rung, after its title, as they are written in every form; what is not known is a dash."""
    figures = rung["metrics"]
    low, high = (format_percent(figures["accuracy_interval"][end]) for end in ("low", "high"))
    test = rung.get("against_tfidf")
    against = DASH
    if test:
        spread = format_range(read_interval(test["interval"]), "to")
        against = f"{format_points(test['difference'])} ({spread}; {format_p_value(read_p_value(test))})"
    ece = rung["ece_equal_mass"]
    corrected = ", calibrated" if rung.get("calibration") else ""
    return [
        f"{format_percent(figures['accuracy'])} ({low}–{high})",
        against,
        format_percent(figures["macro_f1"]),
        DASH if ece is None else f"{ece:.3f} ({rung['ece_by_chance']:.3f}{corrected})",
        format_speed(rung["reviews_per_s"]),
        format_bytes(rung["peak_bytes"]),
        format_bytes(rung.get("size_bytes")),
        format_seconds(rung.get("train_s")),
    ]


def describe_best(ladder: Mapping[str, Any]) -> Sentence:
    """Return which rung has the highest accuracy, and whether TF-IDF is beaten, corrected for all that were tried."""
    known = {key: rung for key, rung in ladder["rungs"].items() if "metrics" in rung and not rung["note"]}
    key, best = max(known.items(), key=lambda item: item[1]["metrics"]["accuracy"])
    share = format_percent(best["metrics"]["accuracy"])
    n = best["metrics"]["reviews"]
    en = f"{best['title']['en']} has the highest accuracy: {share} of {n} reviews right."
    zh = f"准确率最高的是{best['title']['zh']}：{n} 条评论中 {share}。"
    test = best.get("against_tfidf")
    if test:
        how_en = "is shown to beat" if test["is_shown_holm"] else "is not shown to beat"
        how_zh = "优于 TF-IDF 得到证明" if test["is_shown_holm"] else "优于 TF-IDF 未得到证明"
        points, p_value = format_points(test["difference"]), format_p_value(read_p_value(test))
        n_tests = sum(rung.get("against_tfidf") is not None for rung in ladder["rungs"].values())
        has_family = test["p_value_holm"] is not None
        corrected_en = f", corrected for {n_tests} comparisons (Holm)" if has_family else ""
        corrected_zh = f"，已对 {n_tests} 次比较作 Holm 校正" if has_family else ""
        en += f" It {how_en} TF-IDF: {points} points, {p_value}{corrected_en}."
        zh += f"{how_zh}：{points} 个百分点，{p_value}{corrected_zh}。"
    elif key == "tfidf":
        en, zh = f"{en} Nothing here beats it.", f"{zh}没有模型超过它。"
    return Sentence.write(en, zh)


def describe_unanswered(rung: Mapping[str, Any]) -> Sentence | None:
    """Return how many reviews a rung gave no label to; None where it answered all."""
    n, unparsed = rung["metrics"]["reviews"], rung["metrics"]["unparsed"]
    if not unparsed:
        return None
    en, zh = (
        f"no readable answer to {unparsed} of {n} reviews; these count as wrong",
        f"{n} 条评论中有 {unparsed} 条没有给出可识别的答案，均按错误计",
    )
    if rung["ece_equal_mass"] is not None:
        en, zh = f"{en}, and the ECE is that of the others", f"{zh}，ECE 只统计其余评论"
    return Sentence.write(f"{en}.", f"{zh}。")


def list_remarks(ladder: Mapping[str, Any]) -> list[tuple[Sentence, Sentence]]:
    """Return (title, remark) of every rung about which a reader must know something beside its figures."""
    found = []
    for rung in ladder["rungs"].values():
        title = Sentence(**rung["title"])
        if words := rung.get("missing") or rung.get("note"):
            found.append((title, Sentence(**words)))
        if "metrics" in rung and (unanswered := describe_unanswered(rung)) is not None:
            found.append((title, unanswered))
    return found


def write_ladder(ladder: Mapping[str, Any], path: str | Path) -> Path:
    """Write the ladder as JSON and, beside it, as a page and as Markdown; return the page's path.

    Raises:
        ConfigError: when the place cannot be written.
    """
    page, text = render_ladder(ladder), render_markdown(ladder)
    place = Path(path)
    write_json(place, ladder)
    write_text(place.with_suffix(".md"), text)
    write_text(place.with_suffix(".html"), page)
    return place.with_suffix(".html")


def render_ladder(ladder: Mapping[str, Any]) -> str:
    """Return the ladder as an HTML page in English and Chinese that asks nothing of the network."""
    from sentifactory.evaluation.page import make_environment

    known = {key: rung for key, rung in ladder["rungs"].items() if "metrics" in rung}
    return (
        make_environment()
        .get_template("ladder.html.j2")
        .render(
            ladder=ladder,
            title=TITLE,
            headline=describe_best(ladder),
            header=HEADER,
            unanswered=[(rung["title"], words) for rung in known.values() if (words := describe_unanswered(rung))],
            cells={key: list_cells(rung) for key, rung in known.items()},
            chart=build_bars({key: rung["metrics"] for key, rung in known.items()}),
            tones=TONES,
        )
    )


def render_markdown(ladder: Mapping[str, Any]) -> str:
    """Return the ladder as Markdown."""
    test = ladder["data"]["test"]
    parts = [f"# {TITLE.en}", ""]
    parts += [f"> **Warning:** {escape(warning['en'])}\n" for warning in ladder["warnings"]]
    parts += [f"**{escape(describe_best(ladder).en)}**", ""]
    parts += [f"{test['asked']} of {test['reviews']} reviews of `{test['file']}`, sha256 {test['sha256'][:12]}", ""]
    rows = [[title.en for title in HEADER]]
    rows += [[rung["title"]["en"], *list_cells(rung)] for rung in ladder["rungs"].values() if "metrics" in rung]
    parts += [*build_table(rows), ""]
    parts += [f"- {title.en}: {escape(words.en)}" for title, words in list_remarks(ladder)]
    parts += ["", f"Command: `{ladder['command']}`", ""]
    return "\n".join(parts)


def print_ladder(ladder: Mapping[str, Any]) -> None:
    """Print the ladder on stdout."""
    import sys

    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    for warning in ladder["warnings"]:
        console.print(f"WARNING: {warning['en']}", style="bold red")
    table = Table(title=f"{ladder['data']['test']['asked']} reviews of {ladder['data']['test']['file']}")
    for number, title in enumerate(HEADER):
        table.add_column(title.en, justify="right" if number else "left")
    for rung in ladder["rungs"].values():
        if "metrics" in rung:
            table.add_row(rung["title"]["en"], *list_cells(rung))
        else:
            table.add_row(rung["title"]["en"], "missing")
    console.print(table)
    for title, words in list_remarks(ladder):
        console.print(f"{title.en}: {words.en}")
    console.print(describe_best(ladder).en, style="bold")


def format_speed(reviews_per_s: float | None) -> str:
    """Return reviews per second with three digits that count.

    Example:
        >>> format_speed(5.1234), format_speed(1234.5), format_speed(None)
        ('5.12', '1,234', '–')
    """
    if reviews_per_s is None:
        return DASH
    return f"{reviews_per_s:,.0f}" if reviews_per_s >= 100 else f"{reviews_per_s:.3g}"
