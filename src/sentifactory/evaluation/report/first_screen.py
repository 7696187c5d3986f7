"""What a report says first: how good the tuned model is, against what, whether that is shown, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.bilingual import Cell, Sentence, name_model, same_in_both
from sentifactory.evaluation.report.figures import name_decided
from sentifactory.metrics.calibration_fit import MIN_VALIDATION_REVIEWS
from sentifactory.metrics.number_formats import (
    format_confidence,
    format_p_value,
    format_percent,
    format_points,
    format_range,
    format_speed,
    read_interval,
    read_p_value,
    read_paired_interval,
)
from sentifactory.metrics.significance import Interval
from sentifactory.system.formats import DASH, format_bytes, name_seconds

# The rows of the table, the tuned model and its rivals; the majority label is in the picture.
_SHOWN = ("tuned", "tfidf", "tfidf_all", "base", "few_shot")
SHOWN = Sentence("shown", "得到证明")
NOT_SHOWN = Sentence("not shown", "未得到证明")


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure in large type.

    Attributes:
        tone: the model whose colour it has; "" for none.
        title: what it is.
        value: the figure.
        notes: below it.
        is_doubtful: whether the notes warn of it.
    """

    tone: str
    title: Sentence
    value: str
    notes: tuple[Sentence, ...]
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the header, whose first cell is that of the row titles, and the rows as (title, cells)."""

    header: tuple[Sentence, ...]
    rows: tuple[tuple[Sentence, tuple[Cell, ...]], ...]


def read_doubt(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return why the base model is no meaningful baseline; None where it is one, or the report is older."""
    doubt = result["verdict"].get("base_doubt")
    return dict(doubt) if doubt else None


def read_lead(result: Mapping[str, Any], rival: str) -> dict[str, Any]:
    """Return the paired test of the tuned model against a rival: `difference` is tuned minus rival."""
    tests = result["paired_tests"]
    if forward := tests.get(f"tuned_vs_{rival}"):
        return dict(forward)
    test = tests[f"{rival}_vs_tuned"]
    intervals = {key: test.get(key) for key in ("interval", "interval_holm")}
    return {
        **test,
        "difference": -test["difference"],
        **{key: asdict(read_interval(one).negate()) if one else None for key, one in intervals.items()},
        "fixed": test["broken"],
        "broken": test["fixed"],
    }


def _read_spread(test: Mapping[str, Any], *, is_planned: bool) -> Interval:
    """Return the interval that agrees with `describe_significance`."""
    return read_interval(test["interval"]) if is_planned else read_paired_interval(test)


def describe_significance(test: Mapping[str, Any], *, is_planned: bool) -> Sentence:
    """Return whether a difference is shown, with its p-value.

    Args:
        test: the paired test.
        is_planned: tuned against base, whose p-value is not corrected; the other pairs are one family (Holm).
    """
    p_value = test["p_value"] if is_planned else read_p_value(test)
    is_shown = test["is_shown"] if is_planned or test["is_shown_holm"] is None else test["is_shown_holm"]
    words = SHOWN if is_shown else NOT_SHOWN
    return Sentence(f"{words.en}, {format_p_value(p_value)}", f"{words.zh}，{format_p_value(p_value)}")


def build_tiles(report: Mapping[str, Any]) -> list[Tile]:
    """Return the tiles: tuned, TF-IDF, their difference, the share that is decided, and the base model.

    Without training reviews there is no TF-IDF, and the difference is that from the base model.
    """
    models, doubt = report["models"], read_doubt(report)
    rival = "tfidf" if "tfidf" in models else "base"
    lead = read_lead(report, rival)
    is_planned = rival == "base"
    spread = _read_spread(lead, is_planned=is_planned)
    confidence = format_confidence(spread)
    notes = [
        Sentence.write(
            f"points, {confidence} interval {format_range(spread, 'to')}",
            f"个百分点，{confidence} 区间 {format_range(spread, '至')}",
        ),
        describe_significance(lead, is_planned=is_planned),
    ]
    title = (
        Sentence("Tuned − TF-IDF", "微调 − TF-IDF") if rival == "tfidf" else Sentence("Tuned − base", "微调 − 原始")
    )
    is_doubtful = is_planned and doubt is not None
    if is_doubtful and doubt is not None:
        notes.append(Sentence(**doubt["note"]))
    tiles = [_show_accuracy("tuned", models)]
    if rival == "tfidf":
        tiles.append(_show_accuracy("tfidf", models))
    tiles.append(Tile("", title, format_points(lead["difference"]), tuple(notes), is_doubtful))
    tiles.append(_show_decided(report))
    base = _show_accuracy("base", models)
    if doubt is not None:
        base = Tile(base.tone, base.title, base.value, (*base.notes, Sentence(**doubt["note"])), is_doubtful=True)
    return [*tiles, base]


def _show_accuracy(name: str, models: Mapping[str, Any]) -> Tile:
    figures = models[name]["metrics"]
    low, high = (format_percent(figures["accuracy_interval"][end]) for end in ("low", "high"))
    note = Sentence.write(f"right; 95% interval {low} – {high}", f"准确率；95% 区间 {low} – {high}")
    title = Sentence("TF-IDF", "TF-IDF") if name == "tfidf" else name_model(name)
    return Tile(name, title, format_percent(figures["accuracy"]), (note,))


def _show_decided(report: Mapping[str, Any]) -> Tile:
    """Return the tile of the share that the tuned model decides, or why there is none."""
    models = report["models"]
    decided = models["tuned"].get("decided")
    target = decided["target_error"] if decided else 1 - report["settings"]["target_accuracy"]
    error = f"{target * 100:.3g}%"
    title = Sentence.write(f"Decided at {error} error", f"错误率 {error} 时可自动判定")
    if not decided:
        return Tile("", title, DASH, (_explain_undecided(report),))
    notes = [Sentence("of the reviews, by the tuned model", "的评论（微调模型）")]
    if other := models.get("tfidf", {}).get("decided"):
        share = format_percent(other["share"])
        notes.append(Sentence.write(f"TF-IDF: {share}", f"TF-IDF：{share}"))
    return Tile("tuned", title, format_percent(decided["share"]), tuple(notes))


def _explain_undecided(report: Mapping[str, Any]) -> Sentence:
    """Return why the tuned model has no share of reviews that it decides."""
    probability = report["models"]["tuned"].get("probability")
    if probability is None:
        return Sentence("needs a probability for each answer", "需要每个回答的概率")
    if "val" in report["data"]:
        return Sentence("no calibration on the validation reviews", "验证评论上没有得到校准")
    needed, n = 2 * MIN_VALIDATION_REVIEWS, probability["reviews"]
    if n < needed:
        return Sentence.write(
            f"needs {needed} answered test reviews; there are {n}",
            f"至少需要 {needed} 条有回答的测试评论，这里只有 {n} 条",
        )
    return Sentence("not in reports of earlier versions", "早期版本的报告没有此项")


def build_overview(report: Mapping[str, Any]) -> Table:
    """Return the table of the tuned model and its rivals: accuracy, the tuned model's lead, and the costs.

    Columns that are unknown for all models are left out.
    """
    names = [name for name in _SHOWN if name in report["models"]]
    columns: list[tuple[Sentence, list[Cell]]] = [
        (Sentence("Accuracy", "准确率"), [_list_accuracy(report["models"][name]) for name in names]),
        (
            Sentence("Tuned model's lead, points", "微调模型领先（百分点）"),
            [Cell.show(DASH) if name == "tuned" else _list_lead(report, name) for name in names],
        ),
    ]
    if any(report["models"][name].get("decided") for name in names):
        columns.append((name_decided(report["models"]), [_list_decided(report["models"][name]) for name in names]))
    for title, key, show in (
        (Sentence("Training", "训练时间"), "train_s", name_seconds),
        (Sentence("Reviews/s", "每秒评论数"), "reviews_per_s", lambda value: same_in_both(format_speed(value))),
        (Sentence("Memory", "内存"), "peak_bytes", lambda value: same_in_both(format_bytes(value))),
        (Sentence("Size", "模型大小"), "size_bytes", lambda value: same_in_both(format_bytes(value))),
    ):
        values = [report["models"][name].get(key) for name in names]
        if any(value is not None for value in values):
            columns.append((title, [Cell(show(value)) for value in values]))
    rows = zip(*(cells for _, cells in columns), strict=True)
    return Table(
        (Sentence("Model", "模型"), *(title for title, _ in columns)),
        tuple((name_model(name), cells) for name, cells in zip(names, rows, strict=True)),
    )


def _list_accuracy(model: Mapping[str, Any]) -> Cell:
    figures = model["metrics"]
    low, high = (format_percent(figures["accuracy_interval"][end]) for end in ("low", "high"))
    return Cell.show(format_percent(figures["accuracy"]), f"{low}–{high}")


def _list_lead(report: Mapping[str, Any], rival: str) -> Cell:
    test = read_lead(report, rival)
    interval = _read_spread(test, is_planned=rival == "base")
    words = describe_significance(test, is_planned=rival == "base")
    small = Sentence(f"{format_range(interval, 'to')}; {words.en}", f"{format_range(interval, '至')}；{words.zh}")
    return Cell(Sentence(*[format_points(test["difference"])] * 2), small)


def _list_decided(model: Mapping[str, Any]) -> Cell:
    decided = model.get("decided")
    if not decided:
        return Cell.show(DASH)
    share = format_percent(decided["share"])
    if decided["error"] is None:
        return Cell.show(share)
    error = format_percent(decided["error"])
    return Cell(Sentence(share, share), Sentence.write(f"error {error}", f"错误率 {error}"))
