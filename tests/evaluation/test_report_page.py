"""The page: well-formed, self-contained, in both languages, with the figures of the report."""

from __future__ import annotations

import re

import pytest
from page_reader import read_page
from scripted_comparison import TUNED_REPLIES, Workplace, write_reviews

from sentifactory.evaluation.report.report_page import (
    EXAMPLES_SHOWN,
    FLIPS_SHOWN,
    build_matrix,
    find_flips,
    flatten_card,
    group_unparsed,
    render_page,
)
from sentifactory.task.task import NAMED_TASKS, Task


def test_the_page_is_self_contained(workplace: Workplace) -> None:
    workplace.run()
    page = workplace.page()
    reader = read_page(page)
    assert reader.addresses == []
    assert not re.search(r"url\(|@import|https?://", page)


def test_both_languages_have_the_same_content(workplace: Workplace) -> None:
    workplace.run()
    page = workplace.page()
    reader = read_page(page)
    assert len(reader.words["en"]) == len(reader.words["zh"]) > 50
    assert "微调模型" in "".join(reader.words["zh"])
    for words in reader.words["en"]:
        assert not re.search(r"[\u4e00-\u9fff]", words), words
    assert page.count('name="language"') == 2


def test_the_page_shows_verdict_and_figures(workplace: Workplace) -> None:
    result = workplace.run()
    page = workplace.page()
    english = "".join(read_page(page).words["en"]).replace("\u00a0", " ")  # in p-values, so that they are never broken
    assert result["verdict"]["headline"]["en"] in english
    assert "83.3%" in page
    assert "4 fixed, 1 broken" in english
    assert result["data"]["test"]["sha256"][:12] in page
    assert "未识别" in page


def test_the_bars_match_the_figures(workplace: Workplace) -> None:
    metrics = workplace.run()["models"]["tuned"]["metrics"]
    low, high = (metrics["accuracy_interval"][end] for end in ("low", "high"))
    whisker = f"left: {100 * low:.2f}%; right: {100 - 100 * high:.2f}%".replace(".00%", ".0%")
    assert 'class="bar tuned" style="width: 83.33%"' in workplace.page()
    assert re.search(rf'class="bar tuned".*?{re.escape(whisker.rstrip("%0"))}', workplace.page())


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
    replies = [("</code><script>1</script>", 1), ("", 1), ("好的", 1)]
    assert group_unparsed(result) == [{"name": "base", "count": 3, "replies": replies}]


def test_equal_replies_that_cannot_be_read_are_one_line(workplace: Workplace) -> None:
    workplace.replies = {"base": ["好的"] * 4 + ["", "1"], "tuned": TUNED_REPLIES}
    result = workplace.run()
    assert group_unparsed(result) == [{"name": "base", "count": 6, "replies": [("好的", 4), ("", 1), ("1", 1)]}]
    page = workplace.page()
    assert page.count('<code class="reply">好的</code>') == 2, "in the line, and in the folded list"
    assert "3 different replies" in page


def test_long_lists_are_cut_and_the_rest_is_counted(workplace: Workplace) -> None:
    result = workplace.run()
    result["predictions"] *= 20
    page = render_page(result)
    assert f"{80 - FLIPS_SHOWN} more are in flips.csv." in page
    assert f"{20 - EXAMPLES_SHOWN} more are in mistakes.csv." in page
    read_page(page)


def test_a_report_read_from_its_file_gives_the_same_page(workplace: Workplace) -> None:
    workplace.run()
    assert render_page(workplace.read()) == workplace.page()


def test_three_classes(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("three", ("negative", "neutral", "mixed"), "mood", ("bad", "so-so", "both"), "Mood of {text}?")
    monkeypatch.setitem(NAMED_TASKS, "three", task)
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
