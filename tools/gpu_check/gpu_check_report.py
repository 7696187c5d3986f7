"""Writes the report of the check as Markdown, in English or Chinese: one table of rows, one of losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.system.formats import DASH, build_table, cut_text, format_bytes
from tools.gpu_check.check_parts import FAILED, MEASURED

SPEED_GOAL, MEMORY_GOAL = 3.0, 0.6
LOSS_GOAL, GRADIENT_GOAL, WEIGHT_GOAL = 1e-5, 1e-4, 1e-5
_WORDS = {
    "en": {"what": "what", "found": "found", "goal": "goal", "step": "step", "not measured": "not measured",
           "failed": "failed", "losses": "Loss of each step:", "stock": "stock", "ours": "ours"},
    "zh": {"what": "项目", "found": "结果", "goal": "目标", "step": "步", "not measured": "未测",
           "failed": "失败", "losses": "每步的 loss：", "stock": "原版", "ours": "本项目"},
}  # fmt: skip
Parts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        what: is shown.
        parts: that it needs.
        show: returns the words of the cell from the values of these parts.
        goal: words of the goal.
    """

    what: Sentence
    parts: tuple[str, ...]
    show: Callable[..., str]
    goal: str = DASH


def _show_ratio(key: str, unit: str) -> Callable[..., str]:
    def show(stock: Any, ours: Any) -> str:
        cells = [format_bytes(one[key]) if key == "peak_bytes" else f"{one[key]:.1f} {unit}" for one in (stock, ours)]
        return f"{cells[0]} → {cells[1]} (× {ours[key] / stock[key]:.2f})"

    return show


def _show_gap(key: str) -> Callable[..., str]:
    return lambda found: ", ".join(f"{family} {values[key]:.1e}" for family, values in found.items())


def _show_losses_gap(stock: Any, ours: Any) -> str:
    return f"{max(abs(a - b) for a, b in zip(stock['losses'], ours['losses'], strict=True)):.1e}"


def _show_half(found: Any) -> str:
    return f"{found['loss']:.1e}; {_show_ratio('samples_per_s', 'samples/s')(found['stock'], found['ours'])}"


def _show_kill(found: Any) -> str:
    return f"exit code {found['exit_code']}, {found['continued_from']}, weights {found['weights']:.1e}"


def _show_processes(found: Any) -> str:
    return f"{found['processes']}: {found['loss']:.1e}"


ROWS = (
    Row(Sentence("samples/s, stock → ours, later epochs", "样本/秒，原版 → 本项目，后续轮次"), ("stock", "ours"),
        _show_ratio("samples_per_s", "samples/s"), f"≥ × {SPEED_GOAL:g}"),
    Row(Sentence("samples/s, stock → ours, first epoch", "样本/秒，原版 → 本项目，第一轮"), ("stock", "ours"),
        _show_ratio("samples_per_s_first_epoch", "samples/s")),
    Row(Sentence("peak memory, stock → ours", "峰值显存，原版 → 本项目"), ("stock", "ours"),
        _show_ratio("peak_bytes", ""), f"≤ × {MEMORY_GOAL:g}"),
    Row(Sentence("largest difference of the losses, bf16", "loss 的最大差，bf16"), ("stock", "ours"),
        _show_losses_gap),
    Row(Sentence("float32, tiny models: losses", "float32 小模型：loss"), ("exactness",), _show_gap("loss"),
        f"≤ {LOSS_GOAL:g}"),
    Row(Sentence("float32, tiny models: gradients, relative", "float32 小模型：梯度（相对）"), ("exactness",),
        _show_gap("gradients"), f"≤ {GRADIENT_GOAL:g}"),
    Row(Sentence("float32, tiny models: final weights", "float32 小模型：最终权重"), ("exactness",),
        _show_gap("weights"), f"≤ {WEIGHT_GOAL:g}"),
    Row(Sentence("QLoRA, 4 bits: losses; samples/s", "QLoRA（4 位）：loss 差；样本/秒"), ("qlora",), _show_half),
    Row(Sentence("fp16 with a gradient scaler: losses; samples/s", "fp16（带梯度缩放）：loss 差；样本/秒"), ("fp16",),
        _show_half),
    Row(Sentence("killed and continued, against an undisturbed run", "被杀后继续，与未中断的运行相比"), ("kill",),
        _show_kill, "0"),
    Row(Sentence("processes of one run: largest difference of the losses from stock", "多进程：loss 与原版的最大差"),
        ("processes",), _show_processes),
)  # fmt: skip


def write_rows(report: Mapping[str, Any], language: str) -> list[str]:
    """Return the lines of the table."""
    words, parts = _WORDS[language], report["parts"]
    rows = [[words["what"], words["found"], words["goal"]]]
    for row in ROWS:
        rows.append([getattr(row.what, language), _fill(row, parts, words), row.goal])
    return build_table(rows)


def _fill(row: Row, parts: Parts, words: Mapping[str, str]) -> str:
    for name in row.parts:
        part = parts.get(name, {"status": "not measured", "note": ""})
        if part["status"] != MEASURED:
            status = "failed" if part["status"] == FAILED else "not measured"
            note = cut_text(" ".join(str(part["note"]).split()), 80)
            return f"{words[status]}{f' ({note})' if note else ''}"
    return row.show(*(parts[name]["values"] for name in row.parts))


def write_report(report: Mapping[str, Any], language: str, *, is_short: bool = False) -> str:
    """Return the rows with the machine, and unless it shall be short, the losses of stock and ours side by side."""
    gpu = report["gpu"]
    device = f"{gpu['count']} × {gpu['name']}" if gpu else report["machine"]["processor"]
    versions = report["versions"]
    caption = f"{device}, torch {versions.get('torch')}, llamafactory {versions.get('llamafactory')}"
    lines = write_rows(report, language)
    if any(part["status"] == MEASURED for part in report["parts"].values()):
        lines += ["", f"{caption}{', --small' if report['is_small'] else ''}."]
    both = [report["parts"].get(name, {}).get("values") for name in ("stock", "ours")]
    if all(both) and not is_short:
        words = _WORDS[language]
        pairs = zip(*(one["losses"] for one in both if one), strict=True)
        table = [[words[key] for key in ("step", "stock", "ours")]]
        table += [[str(step), f"{stock:.5f}", f"{ours:.5f}"] for step, (stock, ours) in enumerate(pairs, start=1)]
        lines += ["", words["losses"], "", *build_table(table)]
    return "\n".join(lines)
