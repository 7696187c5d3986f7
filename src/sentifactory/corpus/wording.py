"""What labels, parts and reasons are called in English and in Chinese."""

from __future__ import annotations

import unicodedata
from itertools import accumulate

LABELS_ZH = {"negative": "负面", "positive": "正面", "neutral": "中性", "unlabelled": "无标签"}
PARTS = {
    "train": ("training", "训练集"),
    "val": ("validation", "验证集"),
    "test": ("test", "测试集"),
    "file": ("file", "文件"),
}
REASONS_ZH = {
    "broken row": "残缺行",
    "unknown label": "未知标签",
    "no label": "无标签",
    "middle stars": "中间星级",
    "too long": "过长",
    "empty": "空白",
    "repeat": "重复",
    "more than one label": "标签矛盾",
    "as a held-out review": "与留出的评论重复",
    "surplus": "富余",
}


# What a reader asks on seeing the reason; the others say it themselves.
_EXPLANATIONS = {
    "repeat": ("the first one stays", "保留首次出现的一条"),
    "more than one label": ("which is right is not known", "无法确定哪个标签正确"),
    "as a held-out review": ("or the test would not be honest", "否则测试结果不可信"),
    "surplus": (
        "nothing is wrong with them: left out to balance the labels, or by a limit",
        "评论本身无误：为平衡类别或受数量限制而未选用",
    ),
}


def name_label(label: str) -> tuple[str, str]:
    """Return a label's name in English and in Chinese."""
    return label, LABELS_ZH.get(label, label)


def name_part(part: str) -> tuple[str, str]:
    """Return the name of a part in English and in Chinese.

    Example:
        >>> name_part("fold_0/val")
        ('fold 0', '第 0 折')
    """
    if part.startswith("fold_"):
        number = part.removeprefix("fold_").split("/")[0]
        return f"fold {number}", f"第 {number} 折"
    return PARTS.get(part, (part, part))


def name_reason(reason: str) -> tuple[str, str]:
    """Return why a row was left out, in English and in Chinese."""
    return reason, REASONS_ZH.get(reason, reason)


def explain_reason(reason: str) -> tuple[str, str] | None:
    """Return why rows of a reason had to go, in English and in Chinese; None where the reason says it itself."""
    return _EXPLANATIONS.get(reason)


def format_share(share: float) -> str:
    """Return a share in per cent; one that is not nothing is never shown as 0.0%.

    Example:
        >>> format_share(0.1234), format_share(0.0001), format_share(0)
        ('12.3%', '<0.1%', '0.0%')
    """
    return "<0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


def shorten_name(name: str, n_cells: int) -> str:
    """Return the beginning of a name that takes so many cells, of which a Chinese character takes two.

    Example:
        >>> shorten_name("ChnSentiCorp_htl_all", 10), shorten_name("电脑与配件", 6)
        ('ChnSentiC…', '电脑…')
    """
    widths = [2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in name]
    if sum(widths) <= n_cells:
        return name
    return name[: sum(total < n_cells for total in accumulate(widths))] + "…"


def count(number: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "review"), count(1200, "review")
        ('1 review', '1,200 reviews')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
