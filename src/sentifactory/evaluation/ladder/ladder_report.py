"""Renders the ladder as an HTML page, as Markdown and as a table on the terminal, all with the same cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Cell, Sentence, same_in_both
from sentifactory.evaluation.ladder.ladder_adaptation import build_adapted
from sentifactory.evaluation.report.report_console import print_adapted
from sentifactory.evaluation.report.report_markdown import show_adapted
from sentifactory.evaluation.report.shown_paths import hide_folders
from sentifactory.metrics.number_formats import (
    format_p_value,
    format_percent,
    format_points,
    format_range,
    format_speed,
    read_p_value,
    read_paired_interval,
)
from sentifactory.pages.charts import build_bars, build_cost_plane
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.command_line import describe_command
from sentifactory.system.formats import DASH, build_table, escape, format_bytes, name_seconds

TITLE = Sentence("Ladder of models", "模型阶梯")
HEADER = (
    Sentence("Model", "模型"),
    Sentence("Accuracy", "准确率"),
    Sentence("Against TF-IDF, points (Holm)", "相对 TF-IDF，百分点（经 Holm 校正）"),
    Sentence("Decided at up to 5% error", "错误率不超过 5% 时可自动判定"),
    Sentence("Macro F1", "宏平均 F1"),
    Sentence("ECE (by chance)", "ECE（偶然值）"),
    Sentence("Reviews/s", "每秒评论数"),
    Sentence("Peak memory", "内存峰值"),
    Sentence("Model size", "模型大小"),
    Sentence("Training", "训练时间"),
)
# Their places in the list of cells, which is without the title.
_LEAD, _DECIDED = 1, 2
_FLAGS = ("--snownlp",)
# The colour of each entry's bar.
TONES = {
    "majority": "majority",
    "tfidf": "tfidf",
    "snownlp": "tfidf",
    "encoder": "tuned",
    "freeze": "tuned",
    "lora": "tuned",
    "stack": "tuned",
}


def choose_tone(key: str) -> str:
    """Return the colour of an entry; one of several encoders has a number after its key."""
    return TONES.get("encoder" if key.startswith("encoder") else key, "base")


def list_cells(entry: Mapping[str, Any]) -> list[Cell]:
    """Return the cells of an entry after its title; unknown figures are a dash."""
    figures = entry["metrics"]
    low, high = (format_percent(figures["accuracy_interval"][end]) for end in ("low", "high"))
    ece = entry["ece_equal_mass"]
    chance = f"{entry['ece_by_chance']:.3f}" if ece is not None else ""
    return [
        Cell.show(format_percent(figures["accuracy"]), f"{low}–{high}"),
        _show_lead(entry.get("against_tfidf")),
        _show_decided(entry.get("decided")),
        Cell.show(format_percent(figures["macro_f1"])),
        Cell.show(DASH)
        if ece is None
        else Cell(
            same_in_both(f"{ece:.3f}"),
            Sentence(f"{chance}, calibrated", f"{chance}，已校准")
            if entry.get("calibration")
            else same_in_both(chance),
        ),
        Cell.show(format_speed(entry["reviews_per_s"])),
        Cell.show(format_bytes(entry["peak_bytes"])),
        Cell.show(format_bytes(entry.get("size_bytes"))),
        Cell(name_seconds(entry.get("train_s"))),
    ]


def _show_lead(test: Mapping[str, Any] | None) -> Cell:
    """Return the lead over TF-IDF with its interval and p-value."""
    if not test:
        return Cell.show(DASH)
    interval, p_value = read_paired_interval(test), format_p_value(read_p_value(test))
    small = Sentence(f"{format_range(interval, 'to')}; {p_value}", f"{format_range(interval, '至')}；{p_value}")
    return Cell(same_in_both(format_points(test["difference"])), small)


def _show_decided(decided: Mapping[str, Any] | None) -> Cell:
    """Return the share that is decided without a person, and the error among it."""
    if decided is None:
        return Cell.show(DASH)
    share = format_percent(decided["share"])
    if decided["error"] is None:
        return Cell.show(share)
    error, low, high = map(
        format_percent, (decided["error"], *(decided["error_interval"][e] for e in ("low", "high")))
    )
    return Cell(same_in_both(share), Sentence.write(f"error {error}, {low}–{high}", f"错误率 {error}，{low}–{high}"))


def describe_addable(ladder: Mapping[str, Any]) -> tuple[Sentence, str] | None:
    """Return what could be added to a ladder, and the command for it; None where nothing could."""
    addable = ladder.get("addable")  # ladders of earlier versions list what is missing instead
    if not addable:
        return None
    titles = [Sentence(**title) for one in addable for title in one["titles"]]
    words = Sentence.write(
        f"Can be added: {'; '.join(title.en for title in titles)}.",
        f"还可加入：{'；'.join(title.zh for title in titles)}。",
    )
    options = [one["option"] + ("" if one["option"] in _FLAGS else " FOLDER") for one in addable]
    return words, " ".join([ladder["command"], *options])


def list_columns(ladder: Mapping[str, Any]) -> list[int]:
    """Return the columns of `HEADER` after the title in which any entry has a figure."""
    rows = [list_cells(entry) for entry in ladder["rungs"].values() if "metrics" in entry]
    return [at for at in range(len(HEADER) - 1) if any(row[at].text.en != DASH for row in rows)]


def describe_best(ladder: Mapping[str, Any]) -> Sentence:
    """Return which entry has the highest accuracy, and whether it beats TF-IDF after Holm's correction.

    Entries with a note (they have seen test reviews) are left out, unless all have one; so it is said.
    """
    answered = {key: entry for key, entry in ladder["rungs"].items() if "metrics" in entry}
    known = {key: entry for key, entry in answered.items() if not entry["note"]} or answered
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
        n_tests = sum(entry.get("against_tfidf") is not None for entry in ladder["rungs"].values())
        has_family = test["p_value_holm"] is not None
        corrected_en = f", corrected for {n_tests} comparisons (Holm)" if has_family else ""
        corrected_zh = f"，已对 {n_tests} 次比较作 Holm 校正" if has_family else ""
        en += f" It {how_en} TF-IDF: {points} points, {p_value}{corrected_en}."
        zh += f"{how_zh}：{points} 个百分点，{p_value}{corrected_zh}。"
    elif key == "tfidf":
        en, zh = f"{en} No other model is better.", f"{zh}没有模型超过它。"
    if len(known) < len(answered):
        en, zh = f"{en} Models that have seen test reviews are left out.", f"{zh}见过测试评论的模型不参与比较。"
    return Sentence.write(en, zh)


def describe_unanswered(entry: Mapping[str, Any]) -> Sentence | None:
    """Return how many reviews an entry gave no label to; None where it answered all of them."""
    n, unparsed = entry["metrics"]["reviews"], entry["metrics"]["unparsed"]
    if not unparsed:
        return None
    en, zh = (
        f"no readable answer to {unparsed} of {n} reviews; these count as wrong",
        f"{n} 条评论中有 {unparsed} 条没有给出可识别的答案，均按错误计",
    )
    if entry["ece_equal_mass"] is not None:
        en, zh = f"{en}; the ECE covers the others", f"{zh}，ECE 只统计其余评论"
    return Sentence.write(f"{en}.", f"{zh}。")


def list_remarks(ladder: Mapping[str, Any]) -> list[tuple[Sentence, Sentence]]:
    """Return (title, remark) of every entry that has a remark: missing, unanswered reviews, notes."""
    found = []
    for entry in ladder["rungs"].values():
        title = Sentence(**entry["title"])
        if words := entry.get("missing") or entry.get("note"):
            found.append((title, Sentence(**words)))
        if "metrics" in entry and (unanswered := describe_unanswered(entry)) is not None:
            found.append((title, unanswered))
    return found


def write_ladder(ladder: Mapping[str, Any], path: str | Path) -> Path:
    """Write the ladder as JSON and, next to it, as a page and as Markdown; return the path of the page.

    Raises:
        ConfigError: when a file cannot be written.
    """
    page, text = render_ladder(ladder), render_markdown(ladder)
    place = Path(path)
    write_json(place, ladder)
    write_text(place.with_suffix(".md"), text)
    write_text(place.with_suffix(".html"), page)
    return place.with_suffix(".html")


def render_ladder(ladder: Mapping[str, Any]) -> str:
    """Return the ladder as a self-contained HTML page in English and Chinese."""
    from sentifactory.evaluation.report.report_page import make_environment

    ladder = hide_folders(ladder)
    known = {key: entry for key, entry in ladder["rungs"].items() if "metrics" in entry}
    titles = {
        key: tuple(f"{entry['title'][language]}{' *' if entry['note'] else ''}" for language in ("en", "zh"))
        for key, entry in known.items()
    }
    columns = list_columns(ladder)
    return (
        make_environment()
        .get_template("ladder.html.j2")
        .render(
            ladder=ladder,
            title=TITLE,
            headline=describe_best(ladder),
            header=[HEADER[0], *(HEADER[at + 1] for at in columns)],
            rows=[
                (titles[key], [cells[at] for at in columns])
                for key, entry in known.items()
                for cells in (list_cells(entry),)
            ],
            titles=titles,
            remarks=list_remarks(ladder),
            addable=describe_addable(ladder),
            bars=build_bars(
                {key: entry["metrics"] for key, entry in known.items()},
                {key: (title[0], title[1]) for key, title in titles.items()},
                {key: choose_tone(key) for key in known},
            ),
            plane=plan_costs(known, titles),
            has_lead=_LEAD in columns,
            has_decided=_DECIDED in columns,
            adapted=build_adapted(ladder),
        )
    )


def plan_costs(known: Mapping[str, Mapping[str, Any]], titles: Mapping[str, tuple[str, ...]]) -> dict[str, Any] | None:
    """Return the picture of accuracy against speed; None without a model that takes time to answer.

    The majority label, which takes none, is a line. A model that has seen test reviews is left out.
    """
    points = [
        (key, choose_tone(key), entry["reviews_per_s"], entry["metrics"])
        for key, entry in known.items()
        if key != "majority" and entry["reviews_per_s"] and not entry["note"]
    ]
    if not points:
        return None
    majority = known.get("majority")
    return build_cost_plane(points, titles, majority["metrics"]["accuracy"] if majority else None)


def render_markdown(ladder: Mapping[str, Any]) -> str:
    """Return the ladder as Markdown."""
    ladder = hide_folders(ladder)
    test = ladder["data"]["test"]
    parts = [f"# {TITLE.en}", ""]
    parts += [f"> **Warning:** {escape(warning['en'])}\n" for warning in ladder["warnings"]]
    parts += [f"**{escape(describe_best(ladder).en)}**", ""]
    parts += [f"{test['asked']} of {test['reviews']} reviews of `{test['file']}`, sha256 {test['sha256'][:12]}", ""]
    rows = [[title.en for title in HEADER]]
    rows += [
        [entry["title"]["en"], *(cell.line for cell in list_cells(entry))]
        for entry in ladder["rungs"].values()
        if "metrics" in entry
    ]
    parts += [*build_table(rows), ""]
    parts += [f"- {title.en}: {escape(words.en)}" for title, words in list_remarks(ladder)]
    if (adapted := build_adapted(ladder)) is not None:
        parts += ["", f"## {adapted['title'].en}", "", *show_adapted(adapted)]
    if (addable := describe_addable(ladder)) is not None:
        parts.append(f"- {escape(addable[0].en)} `{addable[1]}`")
    parts += ["", f"Command: `{ladder['command']}`", ""]
    return "\n".join(parts)


def print_ladder(ladder: Mapping[str, Any]) -> None:
    """Print the ladder on stdout."""
    import sys

    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 220, highlight=False, markup=False)
    for warning in ladder["warnings"]:
        console.print(f"WARNING: {warning['en']}", style="bold red")
    table = Table(title=f"{ladder['data']['test']['asked']} reviews of {ladder['data']['test']['file']}")
    for number, title in enumerate(HEADER):
        table.add_column(title.en, justify="right" if number else "left")
    for entry in ladder["rungs"].values():
        if "metrics" in entry:
            table.add_row(entry["title"]["en"], *(cell.line for cell in list_cells(entry)))
        else:
            table.add_row(entry["title"]["en"], "missing")
    console.print(table)
    for title, words in list_remarks(ladder):
        console.print(f"{title.en}: {words.en}")
    # The ladder's own command is without the folders of this machine, and could not be run again.
    if (addable := describe_addable({**ladder, "command": describe_command()})) is not None:
        console.print(*(addable[0].en, addable[1]))
    console.print(describe_best(ladder).en, style="bold")
    print_adapted(console, build_adapted(ladder))
