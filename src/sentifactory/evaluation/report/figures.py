"""The figures of a report: their names in English and Chinese and their format, for page, terminal and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.bilingual import Sentence, name_label
from sentifactory.metrics.decided_share import VALIDATION
from sentifactory.metrics.number_formats import format_percent, format_points, format_range, read_interval
from sentifactory.metrics.significance import Interval
from sentifactory.system.formats import DASH

NO_PROBABILITIES = Sentence(
    "ROC-AUC, average precision, calibration and answering only when sure need a probability for each label, which "
    "generated text does not give: the mode score does.",
    "ROC-AUC、平均精确率、校准以及“仅在有把握时回答”需要各标签的概率，模型写出的回答不提供；"
    "以 score 方式对比即可得到。",
)
NOTHING_ANSWERED = Sentence(
    "There are no probability figures, because neither model answered a single review.",
    "没有概率类指标，因为两个模型都没有回答任何一条评论。",
)
NO_CALIBRATION = Sentence(
    "Probabilities are not calibrated: that takes validation reviews.",
    "概率未经校准：校准需要验证评论。",
)

_DECIDED, _DECIDED_ERROR = "decided", "decided_error"
# Key, English, Chinese, kind: `share` in per cent, `number` with three decimals.
_LABEL_FIGURES = (
    ("accuracy", "Accuracy", "准确率", "share"),
    (_DECIDED, "", "", "share"),
    (_DECIDED_ERROR, "Error among the decided", "自动判定部分的错误率", "share"),
    ("precision", "Precision", "精确率", "share"),
    ("recall", "Recall", "召回率", "share"),
    ("f1", "F1", "F1", "share"),
    ("macro_f1", "Macro F1", "宏平均 F1", "share"),
    ("mcc", "MCC", "MCC（马修斯相关系数）", "number"),
    ("coverage", "Coverage (answers that can be read)", "覆盖率（可识别的回答）", "share"),
)
_PROBABILITY_FIGURES = (
    ("roc_auc", "ROC-AUC", "ROC-AUC", "number"),
    ("average_precision", "Average precision", "平均精确率", "number"),
    ("brier", "Brier score (0 is best)", "Brier 分数（越低越好）", "number"),
    ("nll", "Log loss (nats, 0 is best)", "对数损失（nats，越低越好）", "number"),
    ("ece_equal_mass", "ECE, 15 bins of equal mass", "ECE（15 个等量分箱）", "number"),
    ("ece_equal_width", "ECE, 15 bins of equal width", "ECE（15 个等宽分箱）", "number"),
    ("aurc", "Area under risk-coverage", "风险-覆盖曲线下面积", "number"),
)
_NEED_PROBABILITIES = {_DECIDED, _DECIDED_ERROR, *(key for key, *_ in _PROBABILITY_FIGURES)}
_ONE_CLASS_FIGURES = ("precision", "recall", "f1", "roc_auc", "average_precision")


@dataclass(frozen=True, slots=True)
class Value:
    """A figure of one model with its interval; `parsed` covers the parsed answers only, where that differs."""

    value: float
    interval: Interval | None = None
    parsed: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table of figures.

    Attributes:
        key: its name in report.json.
        title: its name for readers.
        kind: `share` (written in per cent) or `number`.
        values: by model; None where the model has none.
        difference: tuned minus base with its interval, where both have a value.
    """

    key: str
    title: Sentence
    kind: str
    values: Mapping[str, Value | None]
    difference: Value | None

    @property
    def needs_probabilities(self) -> bool:
        """Whether only models with probabilities have it."""
        return self.key in _NEED_PROBABILITIES

    def show(self, name: str) -> str:
        """Return the formatted value of a model with its interval."""
        value = self.values[name]
        if value is None:
            return DASH
        return self.show_value(value.value) + (f" ({self.show_interval(value.interval)})" if value.interval else "")

    def show_value(self, value: float) -> str:
        """Return a formatted value."""
        return format_percent(value) if self.kind == "share" else f"{value:.3f}"

    def show_interval(self, interval: Interval) -> str:
        """Return a formatted interval."""
        return f"{self.show_value(interval.low)}–{self.show_value(interval.high)}"

    def show_difference(self) -> str:
        """Return tuned minus base, formatted, with its interval if it has one; shares in percentage points."""
        if self.difference is None:
            return DASH
        if self.kind != "share":
            return f"{self.difference.value:+.3f}"
        interval = self.difference.interval
        words = f" ({format_range(interval, 'to')})" if interval else ""
        return format_points(self.difference.value) + words


def explain_no_probabilities(report: Mapping[str, Any]) -> Sentence | None:
    """Return why neither base nor tuned has probability figures; None where one of them has."""
    if any(report["models"][side]["probability"] for side in ("base", "tuned")):
        return None
    return NOTHING_ANSWERED if report["settings"]["mode"] == "score" else NO_PROBABILITIES


def list_figures(result: Mapping[str, Any], labels: list[str] | None = None) -> list[Figure]:
    """Return the rows of the table of figures of one test file; figures that no model has are left out.

    Args:
        result: the results of one test file in a report.
        labels: the task's labels; with two of them, figures of one class name it. None: no figure names its class.
    """
    rows = []
    for key, en, zh, kind in (*_LABEL_FIGURES, *_PROBABILITY_FIGURES):
        values = {name: _read_value(model, key) for name, model in result["models"].items()}
        if all(value is None for value in values.values()):
            continue
        title = name_decided(result["models"]) if key == _DECIDED else _name_figure(key, en, zh, labels)
        rows.append(Figure(key, title, kind, values, _subtract(result, key, values)))
    return rows


def _name_figure(key: str, en: str, zh: str, labels: list[str] | None) -> Sentence:
    if labels is None or key not in _ONE_CLASS_FIGURES:
        return Sentence(en, zh)
    if len(labels) == 2:
        return Sentence(f"{en} ({labels[-1]})", f"{zh}（{name_label(labels[-1])[1]}）")
    return Sentence(f"{en} (macro)", f"{zh}（宏平均）")


def name_decided(models: Mapping[str, Any]) -> Sentence:
    """Return the title of the share that is decided without a person; at least one model has such a share."""
    known = next(model["decided"] for model in models.values() if model.get("decided"))
    error = f"{known['target_error'] * 100:g}%"
    source = Sentence("cross-fitted", "交叉拟合")
    if known["source"] == VALIDATION:
        source = Sentence("validation", "阈值取自验证集")
    return Sentence(
        f"Decided at up to {error} error ({source.en})",
        f"错误率不超过 {error} 时可自动判定的比例（{source.zh}）",
    )


def _read_decided(model: Mapping[str, Any], key: str) -> Value | None:
    known = model.get("decided")  # reports of earlier versions have none
    name = "share" if key == _DECIDED else "error"
    if not known or known[name] is None:
        return None
    return Value(known[name], read_interval(known[f"{name}_interval"]))


def _read_value(model: Mapping[str, Any], key: str) -> Value | None:
    if key in (_DECIDED, _DECIDED_ERROR):
        return _read_decided(model, key)
    metrics = model["metrics"]
    if key not in metrics:
        probability = model["probability"]
        if probability is None or probability[key] is None:
            return None
        interval = probability["intervals"].get(key)
        return Value(probability[key], read_interval(interval) if interval else None)
    interval = metrics["accuracy_interval"] if key == "accuracy" else metrics["intervals"].get(key)
    parsed = metrics["parsed_only"][key] if metrics["parsed_only"] and key != "coverage" else None
    return Value(metrics[key], read_interval(interval) if interval else None, parsed)


def _subtract(result: Mapping[str, Any], key: str, values: Mapping[str, Value | None]) -> Value | None:
    base, tuned = values["base"], values["tuned"]
    # A difference of shares that are decided by thresholds of their own has no interval here, and is not shown.
    if base is None or tuned is None or key in (_DECIDED, _DECIDED_ERROR):
        return None
    interval = result["differences"].get(key)
    return Value(tuned.value - base.value, read_interval(interval) if interval else None)
