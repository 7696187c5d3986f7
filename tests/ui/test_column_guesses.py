"""Which columns of a file are taken for reviews and labels."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sentifactory.task.task import TEXT_SLOT, Task
from sentifactory.ui.column_guesses import LabelWords, Recognised, guess_label, guess_text, recognise_cells

SHOPS = Task("shops", ("京东", "淘宝"), "shop", (0, 1), TEXT_SLOT)
DICE = random.Random(1)
CELLS: dict[str, Callable[[int], str]] = {
    "shop": lambda at: ("京东", "淘宝")[at % 2],
    "moods": lambda at: ("好评", "中评", "差评")[at % 3],
    "bad alone": lambda _: "差评",
    "opinion": lambda at: ("满意", "不满意")[at % 2],
    "english": lambda at: ("Positive", "negative", "neutral")[at % 3],
    "binary": lambda at: str(at % 2),
    "three": lambda at: str(at % 3),
    "five": lambda at: str(at % 5 + 1),
    "spelled": lambda at: f"{at % 5 + 1}星",
    "topic": lambda at: ("物流", "质量", "其他", "客服")[at % 4],
    "text": lambda at: f"第{at}条评论说了很多不一样的话",
    "remark": lambda at: f"备注{at}",
    "typing error": lambda at: "好坪" if at == 7 else ("好评", "差评")[at % 2],
    "many": lambda at: f"第{at % 40}组",
    "empty": lambda _: "",
}


def build_rows(columns: dict[str, str], n_rows: int = 60) -> list[list[str]]:
    return [[CELLS[kind](at) for kind in columns.values()] for at in range(n_rows)]


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"日期": "many", "平台": "shop", "顾客说的话": "text", "结论": "moods"}, "结论"),
        ({"结论": "moods", "顾客说的话": "text", "平台": "shop"}, "结论"),
        ({"结论": "bad alone", "顾客说的话": "text", "平台": "shop"}, "结论"),  # sorted by the label
        ({"结论": "typing error", "顾客说的话": "text", "平台": "shop"}, "结论"),
        ({"评价": "opinion", "内容": "text", "平台": "shop", "会员": "binary"}, "评价"),
        ({"stuff": "text", "shop": "shop", "outcome": "english"}, "outcome"),
        ({"stuff": "text", "shop": "shop", "outcome": "binary"}, "outcome"),
        ({"stuff": "text", "shop": "shop", "outcome": "three"}, "outcome"),
        ({"stuff": "text", "shop": "shop", "outcome": "five"}, "outcome"),
        ({"stuff": "text", "count": "five", "outcome": "spelled"}, "outcome"),
        ({"stuff": "text", "评分": "five", "结论": "moods"}, "结论"),
        ({"stuff": "text", "评分": "five", "会员": "binary"}, "评分"),
        ({"label": "binary", "text": "text", "结论": "moods"}, "label"),
        ({"label": "topic", "text": "text", "结论": "moods"}, "结论"),
        ({"label": "topic", "text": "text", "平台": "shop", "会员": "binary"}, "label"),
        ({"label": "binary", "text": "text", "prediction": "moods"}, "label"),
        ({"text": "text", "prediction": "moods", "会员": "shop"}, "会员"),
        ({"text": "text", "问题": "topic"}, "问题"),
        ({"标签": "topic", "情感": "moods", "text": "text"}, "情感"),
        ({"text": "text", "remark": "remark"}, None),
        ({"text": "text", "empty": "empty"}, None),
    ],
)
def test_recognised_labels_come_before_columns_of_few_words(columns: dict[str, str], label: str | None) -> None:
    rows, names = build_rows(columns), list(columns)
    text = guess_text(names, rows, LabelWords(), None)
    assert text is not None
    assert columns[text] == "text"
    assert guess_label(names, rows, LabelWords(), text) == label


def test_labels_of_tasks_are_recognised_and_sentiments_before_them() -> None:
    words = LabelWords.collect([SHOPS])
    rows = build_rows({"问题": "topic", "平台": "shop", "话": "text"})
    assert guess_label(["问题", "平台", "话"], rows, words, "话") == "平台"
    columns = {"平台": "shop", "话": "text", "结论": "moods"}
    assert guess_label(list(columns), build_rows(columns), words, "话") == "结论"
    chosen = LabelWords.collect([SHOPS], SHOPS)
    assert guess_label(list(columns), build_rows(columns), chosen, "话") == "平台"


def test_a_text_column_of_a_known_name_that_holds_labels_is_no_text() -> None:
    columns = {"评价": "moods", "顾客说的话": "text"}
    assert guess_text(list(columns), build_rows(columns), LabelWords(), None) == "顾客说的话"
    columns = {"remark": "text", "review": "remark"}
    assert guess_text(list(columns), build_rows(columns), LabelWords(), None) == "review"
    assert guess_text(["review", "label"], [], LabelWords(), None) == "review"


def test_a_few_cells_may_be_anything() -> None:
    assert recognise_cells("a", ["好评"] * 96 + ["?"] * 4, LabelWords()) == Recognised.SENTIMENT
    assert recognise_cells("a", ["好评"] * 90 + ["?"] * 10, LabelWords()) == Recognised.NOTHING
    assert recognise_cells("a", ["0"] * 60, LabelWords()) == Recognised.NOTHING
    assert recognise_cells("label", ["0"] * 60, LabelWords()) == Recognised.NUMBERS
