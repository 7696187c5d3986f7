"""The figures of a report by name, in English and Chinese, and how each is written; for page, table and text alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.corpus.wording import name_label
from sentifactory.evaluation.formats import format_percent, format_points, format_range
from sentifactory.evaluation.significance import Interval
from sentifactory.evaluation.verdict import Sentence
from sentifactory.quantities import DASH

CONTENDERS = {
    "majority": Sentence("Majority label", "多数类"),
    "base": Sentence("Base model", "原始模型"),
    "tuned": Sentence("Tuned model", "微调模型"),
    "tfidf": Sentence("TF-IDF + logistic regression", "TF-IDF + 逻辑回归"),
}
NO_PROBABILITIES = Sentence(
    "ROC-AUC, average precision, calibration and answering only when sure need a probability for each label, which "
    "written answers do not give: compare with --mode score for these.",
    "ROC-AUC、平均精确率、校准以及“仅在有把握时回答”需要各标签的概率，模型写出的回答不提供；请用 --mode score "
    "进行比较。",
)
NOTHING_ANSWERED = Sentence(
    "There are no figures of probabilities, because neither model answered a single review.",
    "没有概率类指标，因为两个模型都没有回答任何一条评论。",
)
NO_CALIBRATION = Sentence(
    "Probabilities are shown as the models give them. With --val_path a calibration is fitted on validation reviews.",
    "概率按模型原样给出；加上 --val_path 可在验证评论上拟合校准。",
)

# Key, English, Chinese, kind: `share` in per cent, `number` with three decimals. Those of labels first.
_LABEL_FIGURES = (
    ("accuracy", "Accuracy", "准确率", "share"),
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
_OF_ONE_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision")


@dataclass(frozen=True, slots=True)
class Value:
    """A figure of one model with its interval; `parsed` is that of the parsed answers alone, where it differs."""

    value: float
    interval: Interval | None = None
    parsed: float | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table of figures.

    Attributes:
        key: its name in report.json.
        title: what it is called.
        kind: `share` (written in per cent) or `number`.
        values: by contender; None where it has none.
        difference: tuned minus base with its interval, where both have it.
    """

    key: str
    title: Sentence
    kind: str
    values: Mapping[str, Value | None]
    difference: Value | None

    def show(self, name: str) -> str:
        """Return a contender's value with its interval, as it is written."""
        value = self.values[name]
        if value is None:
            return DASH
        return self.show_value(value.value) + (f" ({self.show_interval(value.interval)})" if value.interval else "")

    def show_value(self, value: float) -> str:
        """Return a value as it is written."""
        return format_percent(value) if self.kind == "share" else f"{value:.3f}"

    def show_interval(self, interval: Interval) -> str:
        """Return an interval as it is written."""
        return f"{self.show_value(interval.low)}–{self.show_value(interval.high)}"

    def show_difference(self) -> str:
        """Return tuned minus base, with its interval where it has one; shares in percentage points."""
        if self.difference is None:
            return DASH
        if self.kind != "share":
            return f"{self.difference.value:+.3f}"
        interval = self.difference.interval
        words = f" ({format_range(interval, 'to')})" if interval else ""
        return format_points(self.difference.value) + words


def explain_no_probabilities(report: Mapping[str, Any]) -> Sentence | None:
    """Return why neither base nor tuned has figures of probabilities, None where one has."""
    if any(report["models"][side]["probability"] for side in ("base", "tuned")):
        return None
    return NOTHING_ANSWERED if report["settings"]["mode"] == "score" else NO_PROBABILITIES


def name_contender(name: str) -> Sentence:
    """Return what a contender is called in a table."""
    return CONTENDERS.get(name, Sentence(name, name))


def read_interval(values: Mapping[str, float]) -> Interval:
    """Return an interval from its JSON values."""
    return Interval(**values)


def list_figures(result: Mapping[str, Any], labels: list[str] | None = None) -> list[Figure]:
    """Return the figures of one test file, as rows of a table; those that no model has are left out.

    Args:
        result: the results of one test file in a report.
        labels: the task's labels, to name the class that a figure with two labels is about; None leaves it unnamed.
    """
    rows = []
    for key, en, zh, kind in (*_LABEL_FIGURES, *_PROBABILITY_FIGURES):
        values = {name: _read_value(model, key) for name, model in result["models"].items()}
        if all(value is None for value in values.values()):
            continue
        rows.append(Figure(key, _name_figure(key, en, zh, labels), kind, values, _subtract(result, key, values)))
    return rows


def _name_figure(key: str, en: str, zh: str, labels: list[str] | None) -> Sentence:
    if labels is None or key not in _OF_ONE_CLASS:
        return Sentence(en, zh)
    if len(labels) == 2:
        return Sentence(f"{en} ({labels[-1]})", f"{zh}（{name_label(labels[-1])[1]}）")
    return Sentence(f"{en} (macro)", f"{zh}（宏平均）")


def _read_value(model: Mapping[str, Any], key: str) -> Value | None:
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
    if base is None or tuned is None:
        return None
    interval = result["differences"].get(key)
    return Value(tuned.value - base.value, read_interval(interval) if interval else None)
