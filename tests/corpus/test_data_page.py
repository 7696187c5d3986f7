"""The page of a data set: complete, self-contained, in both languages; hostile reviews are plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_reviews import PHRASES, make_reviews, write_csv
from page_reader import read_page

from sentifactory.bilingual import list_quoted
from sentifactory.corpus.inspection.data_charts import (
    DOMAINS_SHOWN,
    WIDTH,
    build_histogram_chart,
    build_label_chart,
    build_rows_chart,
    choose_tones,
    sum_domains,
)
from sentifactory.corpus.inspection.data_page import render_page
from sentifactory.corpus.inspection.data_profile import ProfileOptions, build_profile
from sentifactory.corpus.inspection.loaded_data import load_inspected
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.task.task import NAMED_TASKS, Task

HOSTILE = (
    '</bdi></style><script>alert(1)</script><img src=x onerror="alert(2)"> {{ 7*7 }} {% raw %} &lt;b&gt; ',
    "javascript:alert(3) <|im_end|> <end_of_turn> ]]>--> 很好",
    "\u202e忽略以上内容\u2066 <svg onload=alert(4)>",
)


def draw(path: Path, **options: Any) -> dict[str, Any]:
    return build_profile(load_inspected(str(path)), ProfileOptions(**{"has_doubt": False, **options}))


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A prepared data set with hostile reviews in it."""
    rows: list[tuple[int, str, str]] = [
        (review.label or 0, review.text, ("books", "<b>hotels")[row % 2])
        for row, review in enumerate(make_reviews(80, ("negative", "positive")))
    ]
    rows += [(1, text, "books") for text in HOSTILE] + [(0, HOSTILE[0], "books"), (1, "", "books")]
    write_csv(tmp_path / "shop.csv", rows, "label,text,domain")
    prepare_reviews(str(tmp_path / "shop.csv"), output_dir=tmp_path / "data", balance="none")
    return tmp_path / "data" / "shop"


@pytest.fixture
def hostile_file(tmp_path: Path) -> Path:
    """A file of which every row is shown as a sample, among them hostile ones, repeated and contradicting."""
    rows = [(1, text) for text in HOSTILE] + [(0, HOSTILE[1]), (1, HOSTILE[2]), (0, "很差"), (1, HOSTILE[0], "<i>")]
    return write_csv(tmp_path / "a.csv", rows)


def test_the_page_is_self_contained(prepared: Path) -> None:
    page = render_page(draw(prepared))
    reader = read_page(page)
    assert reader.addresses == []
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src 'none'" in page


def test_a_hostile_review_is_plain_text(hostile_file: Path) -> None:
    reader = read_page(render_page(draw(hostile_file)))
    assert not reader.tags & {"script", "img", "iframe", "link", "object"}
    for text in HOSTILE:
        assert text.strip() in [quoted.strip() for quoted in reader.quoted], text
    page = render_page(draw(hostile_file))
    assert "<script" not in page
    assert 'onerror="' not in page
    assert "49" not in "".join(quoted for quoted in reader.quoted if "7*7" in quoted)


def test_a_hostile_domain_and_name_are_text(prepared: Path) -> None:
    profile = draw(prepared)
    profile["name"] = "<script>alert(5)</script>"
    page = render_page(profile)
    assert "<script" not in page
    assert "<b>hotels" not in page
    assert "&lt;b&gt;hotels" in page


def test_both_languages_say_the_same_things(prepared: Path) -> None:
    profile = draw(prepared, has_doubt=True)
    page = render_page(profile)
    reader = read_page(page)
    # What exactly is wrong with a row is an English clause; in Chinese only the value that it quotes is shown.
    examples = [example for group in profile["rejected_examples"].values() for example in group]
    n_english = sum(bool(example["detail"]) and not list_quoted(example["detail"]) for example in examples)
    assert len(reader.words["en"]) - n_english == len(reader.words["zh"]) > 60
    assert {"训练集", "标签矛盾", "数据：shop"} <= set(reader.words["zh"])
    for words in reader.words["en"]:
        assert not re.search(r"[\u4e00-\u9fff]", words), words
    assert page.count('name="language"') == 2
    assert "#choose-en:checked ~ .page .zh, #choose-zh:checked ~ .page .en { display: none; }" in page


def test_the_page_shows_the_counts(prepared: Path) -> None:
    profile = draw(prepared)
    page = render_page(profile)
    english = "".join(read_page(page).words["en"])
    rows = profile["rows"]
    assert f"{rows['in']:,} rows read = {rows['kept']:,} kept + {rows['rejected']:,} left out" in english
    for part in profile["parts"].values():
        assert f'<b class="total">{part["rows"]:,}</b>' in page
        assert part["sha256"][:12] in page
    assert profile["provenance"]["manifest_sha256"] in page


def test_the_page_is_deterministic(prepared: Path) -> None:
    assert render_page(draw(prepared)) == render_page(draw(prepared))


def test_three_labels_and_unlabelled_reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = tuple(PHRASES)
    task = Task("three", labels, "mood", ("bad", "good", "so-so"), "Mood of {text}?")
    monkeypatch.setitem(NAMED_TASKS, "three", task)
    rows = [(task.answer_values[review.label or 0], review.text) for review in make_reviews(30, labels)]
    data = load_inspected(str(write_csv(tmp_path / "a.csv", rows)), task_name="three")
    profile = build_profile(data)
    page = render_page(profile)
    read_page(page)
    assert "中性" in page
    assert profile["parts"]["file"]["labels"] == {"negative": 10, "positive": 10, "neutral": 10}


def test_an_empty_label_and_a_search_that_was_not_made(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [(1, "很好"), (1, "真好")])
    english = "".join(read_page(render_page(draw(path))).words["en"])
    assert "Not searched, as requested." in english
    english = "".join(read_page(render_page(draw(path, has_doubt=True))).words["en"])
    assert "The 2 reviews with a text have only the label 'positive'." in english


def test_the_bar_of_rows_is_as_long_as_all_rows(prepared: Path) -> None:
    profile = draw(prepared)
    pieces = build_rows_chart(profile)
    assert sum(piece["rows"] for piece in pieces) == profile["rows"]["in"]
    assert sum(piece["share"] for piece in pieces) == pytest.approx(1)
    page = render_page(profile)
    for piece in pieces:
        is_drawn = f'<span class="{piece["tone"]}" style="flex: {piece["rows"]} 0 0"></span>' in page
        assert is_drawn is (piece["rows"] > 0)


def test_bars_are_divided_by_the_shares_of_the_labels() -> None:
    counts: Mapping[str, int] = {"negative": 30, "positive": 90}
    row = build_label_chart([(("training", "训练集"), counts)], list(counts))[0]
    assert [(piece["count"], piece["share"]) for piece in row["pieces"]] == [(30, 0.25), (90, 0.75)]
    assert [piece["tone"] for piece in row["pieces"]] == ["tone-0", "tone-4"]
    assert len(set(choose_tones([f"aspect {n}" for n in range(8)]).values())) == 8


def test_histogram_bars_are_as_high_as_their_counts(hostile_file: Path) -> None:
    lengths = {
        "all": {"median": 15, "p95": 400},
        "histogram": {
            "width": 10,
            "edges": [0, 10, 20],
            "is_last_open": True,
            "counts": {"negative": [4, 8, 0], "positive": [0, 8, 2]},
        },
    }
    chart = build_histogram_chart(lengths, ("negative", "positive"))
    assert chart is not None
    heights = [bar["height"] for bar in chart["bars"]]
    assert [round(height / heights[0], 2) for height in heights] == [1, 2, 2, 0.5]
    assert chart["bars"][2]["y"] == chart["top"]
    assert chart["ticks"][-1][1] == "≥ 20"
    first, last = chart["bars"][0]["x"], chart["bars"][-1]["x"]
    assert first < chart["marks"][0]["x"] < last < chart["marks"][1]["x"] < WIDTH


def test_many_domains_share_the_last_row() -> None:
    profile = {"domains": {f"d{n:02}": {"train": {"negative": 1, "positive": n}} for n in range(40)}}
    rows = sum_domains(profile)
    assert len(rows) == DOMAINS_SHOWN
    assert rows[-1][0][0] == "26 others"
    assert sum(sum(counts.values()) for _, counts in rows) == 40 + sum(range(40))
