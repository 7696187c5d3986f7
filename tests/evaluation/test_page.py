"""The page: well-formed, self-contained, in both languages, with the figures of the report."""

from __future__ import annotations

import re

import pytest
from page_reader import read_page
from scripted_comparison import Workplace, write_reviews

from sentifactory.evaluation.charts import build_bars
from sentifactory.evaluation.page import (
    EXAMPLES_SHOWN,
    build_matrix,
    find_flips,
    find_unparsed,
    flatten_card,
    render_page,
)
from sentifactory.task import TASKS, Task


def test_the_page_is_whole_and_asks_nothing_of_the_network(workplace: Workplace) -> None:
    workplace.run()
    page = workplace.page()
    reader = read_page(page)
    assert reader.addresses == []
    assert not re.search(r"url\(|@import|https?://", page)


def test_both_languages_say_the_same_things(workplace: Workplace) -> None:
    workplace.run()
    page = workplace.page()
    reader = read_page(page)
    assert len(reader.words["en"]) == len(reader.words["zh"]) > 50
    assert "微调模型" in "".join(reader.words["zh"])
    for words in reader.words["en"]:
        assert not re.search(r"[\u4e00-\u9fff]", words), words
    assert page.count('name="language"') == 2


def test_the_page_says_who_wins_and_shows_the_figures(workplace: Workplace) -> None:
    result = workplace.run()
    page = workplace.page()
    english = "".join(read_page(page).words["en"]).replace("\u00a0", " ")  # in p-values, so that they are never broken
    assert result["verdict"]["headline"]["en"] in english
    assert "83.3%" in page
    assert "4 / 1" in page
    assert result["data"]["test"]["sha256"][:12] in page
    assert "未识别" in page


def test_the_bars_stand_where_the_figures_say(workplace: Workplace) -> None:
    result = workplace.run()
    chart = build_bars({name: model["metrics"] for name, model in result["models"].items()})
    tuned = next(bar for bar in chart["bars"] if bar["name"] == "tuned")
    zero, hundred = chart["ticks"][0][0], chart["ticks"][-1][0]
    assert tuned["width"] / (hundred - zero) == pytest.approx(5 / 6, abs=1e-3)
    assert tuned["low_x"] < zero + tuned["width"] < tuned["high_x"] <= hundred
    assert (tuned["low_x"] - zero) / (hundred - zero) == pytest.approx(tuned["low"], abs=1e-3)


def test_the_shade_of_a_cell_is_its_share_of_the_row(workplace: Workplace) -> None:
    matrix = build_matrix(workplace.run(), "base")
    assert [[cell["strength"] for cell in row] for row in matrix["rows"]] == [[0.333, 0, 0.667], [0.333, 0.333, 0.333]]
    assert [[cell["is_right"] for cell in row] for row in matrix["rows"]] == [
        [True, False, False],
        [False, True, False],
    ]


def test_flips_and_unparsed_replies(workplace: Workplace) -> None:
    result = workplace.run()
    assert [row["source"]["line"] for row in find_flips(result, fixed=True)] == [2, 4, 5, 7]
    assert [row["source"]["line"] for row in find_flips(result, fixed=False)] == [3]
    assert [item["raw"] for item in find_unparsed(result)] == ["</code><script>1</script>", "", "好的"]


def test_long_lists_are_cut_and_the_rest_is_counted(workplace: Workplace) -> None:
    result = workplace.run()
    result["predictions"] *= 10
    page = render_page(result)
    assert f"{40 - EXAMPLES_SHOWN} more are in report.json." in page
    read_page(page)


def test_a_report_read_from_its_file_gives_the_same_page(workplace: Workplace) -> None:
    workplace.run()
    assert render_page(workplace.read()) == workplace.page()


def test_three_classes(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("three", ("negative", "neutral", "mixed"), "mood", ("bad", "so-so", "both"), "Mood of {text}?")
    monkeypatch.setitem(TASKS, "three", task)
    write_reviews(workplace.folder / "test.csv", [("bad", "差"), ("so-so", "一般"), ("both", "好坏参半")])
    replies = [f'{{"mood": "{word}"}}' for word in ("bad", "so-so", "both")]
    workplace.replies = {"base": [replies[0]] * 3, "tuned": [replies[0], replies[2], replies[2]]}
    result = workplace.run(task="three")
    assert result["models"]["tuned"]["metrics"]["confusion"] == ((1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 1, 0))
    page = workplace.page()
    read_page(page)
    assert "Precision (macro)" in page
    assert "中性" in page


def test_the_run_card_is_shown_without_its_long_lists() -> None:
    lines = flatten_card({"seed": 42, "recipe": {"lr": 0.0003, "words": ["a"]}, "metrics": [{"loss": 1}], "x": None})
    assert lines == [("seed", "42"), ("recipe.lr", "0.0003"), ("recipe.words", '["a"]'), ("x", "None")]
