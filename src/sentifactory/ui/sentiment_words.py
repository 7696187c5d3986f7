"""The words by which the page recognises a column of labels."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sentifactory.task.label_names import build_label_index, normalise_label
from sentifactory.task.task import TEXT_SLOT, Task

# Labels from bad to good, with their usual names in both languages.
MOODS = Task("moods", ("negative", "neutral", "positive"), "sentiment", ("-", "0", "+"), TEXT_SLOT)
_OTHER_WORDS = (
    *("满意", "不满意", "非常满意", "很满意", "比较满意", "不太满意", "很不满意", "非常不满意", "基本满意"),
    *("好", "中", "差", "坏", "很好", "很差", "较好", "较差", "非常好", "非常差", "一般", "中等", "还行", "不好"),
    *("推荐", "不推荐", "喜欢", "不喜欢", "正面评价", "中性评价", "负面评价", "正性", "负性", "褒义", "贬义"),
    *("正面情感", "负面情感", "中性情感", "积极评价", "消极评价", "非常正面", "非常负面"),
    *("good", "bad", "great", "poor", "ok", "okay", "mixed", "excellent", "terrible", "fair", "average"),
    *("very positive", "very negative", "somewhat positive", "somewhat negative", "very good", "very bad"),
    *("satisfied", "dissatisfied", "unsatisfied", "happy", "unhappy", "recommended", "not recommended"),
)
_SYMBOLS = re.compile(r"[-+]?\d*(\.\d+)?")


def list_label_words(tasks: Iterable[Task]) -> frozenset[str]:
    """Return the words that some tasks accept as labels, normalised; numbers are none, since they can be anything.

    Example:
        >>> sorted(list_label_words([Task("t", ("bug", "wish"), "kind", (0, 1), TEXT_SLOT)]))
        ['bug', 'wish']
    """
    return frozenset(word for task in tasks for word in build_label_index(task) if not _SYMBOLS.fullmatch(word))


SENTIMENT_WORDS = list_label_words([MOODS]) | {normalise_label(word) for word in _OTHER_WORDS}
