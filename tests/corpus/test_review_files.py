"""Readers: the right rows with the right lines, or one error that names the file, the line and the value."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentifactory.corpus.files.columns import find_columns
from sentifactory.corpus.reading.label_reader import LabelReader, parse_label_map
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.reading.review_files import read_reviews, read_source
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Reason
from sentifactory.task.label_names import build_label_index, find_label
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import load_task


def read(folder: Path, content: str | bytes, name: str = "reviews.csv") -> list[tuple[str, int | None, int]]:
    """Write a file, read it, and return text, label and line of each review."""
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    reviews = read_reviews(path, BINARY_SENTIMENT)
    assert all(review.source and review.source.file == str(path) for review in reviews)
    return [(review.text, review.label, review.source.line) for review in reviews if review.source]


@pytest.mark.parametrize(
    "content",
    [
        "label,review\n1,很好\n0,太差\n",
        "qid,label,text_a\n0,1,很好\n1,0,太差\n",
        "label,text_a,qid\n1,很好,7\n0,太差,8\n",
        "text,label\n很好,1\n太差,0\n",
        "评论,标签\n很好,正面\n太差,负面\n",
        "label,text\npositive,很好\nnegative,太差\n",
        "label,text\n积极,很好\n消极,太差\n",
        "label,text\n Positive ,很好\nNEGATIVE,太差\n",
        "label,text\n1.0,很好\n０,太差\n",
        'label,text\n"1","很好"\n"0","太差"\n',
        " Label , TEXT \n1,很好\n0,太差\n",
        "label,text\r\n1,很好\r\n0,太差\r\n",
        "label,text\r1,很好\r0,太差\r",
        "label,text\n1,很好\n0,太差",
        "\ufefflabel,text\n1,很好\n0,太差\n",
        '\ufeff"label","text"\n1,很好\n0,太差\n',
    ],
)
def test_known_forms(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == [("很好", 1, 2), ("太差", 0, 3)]


def test_words_for_missing_values_are_text(tmp_path: Path) -> None:
    words = ["NA", "null", "None", "NaN", "nan", "N/A", "#N/A", "-", "0", "1.50", "true", "007"]
    rows = read(tmp_path, "text,label\n" + "".join(f"{word},1\n" for word in words))
    assert [text for text, *_ in rows] == words


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    content = 'label,text\n\n1,"第一行\n第二行\r\n第三行"\n\n0,"他说""好"", 真的"\n1,\n1,末\u2028尾\x0b\x85\n'
    assert read(tmp_path, content) == [
        ("第一行\n第二行\r\n第三行", 1, 3),
        ('他说"好", 真的', 0, 7),
        ("", 1, 8),
        ("末\u2028尾\x0b\x85", 1, 9),
    ]


def test_a_cell_of_a_megabyte_is_a_review(tmp_path: Path) -> None:
    long = "很好，" * 350_000
    assert read(tmp_path, f'label,text\n1,"{long}"\n0,差\n') == [(long, 1, 2), ("差", 0, 3)]


def test_a_row_without_text_needs_no_label(tmp_path: Path) -> None:
    assert read(tmp_path, "label,text\n1,好\n,\nwhat,  \n") == [("好", 1, 2), ("", None, 3), ("  ", None, 4)]


# `read_reviews` refuses files in which `read_source` would reject single rows.
UNSOUND: dict[str, tuple[str | bytes, list[str]]] = {
    "unknown label": ("label,text\n1,好\n2,差\n", ["line 3", "The label is '2'", "0, negative, 负面, 消极"]),
    "label in words": ("label,text\n1,好\ngood,好\n", ["line 3", "The label is 'good'"]),
    "missing label": ("label,text\n1,好\n,差\n", ["line 3", "The label is missing"]),
    "most labels missing": ("label,text\n1,好\n,差\n,坏\n", ["line 3", "2 of 3 reviews have no label"]),
    "missing value written by pandas": ("label,text\nnan,好\n", ["line 2", "The label is 'nan'"]),
    "mixed labels": (
        "label,text\n" + "1,好\n3 stars,中\n" * 9,
        ["line 3", "'3 stars' (9 times)", "positive (9 times)", "9 of 18 labels", "binary_sentiment", "--task"],
    ),
    "a huge label": ("label,text\n" + "x" * 90_000 + ",好\n", ["line 2", "x…"]),
    "a comma in the review": ("label,text\n1,好\n1,好，真,好\n", ["line 3", "3 cells", "has 2", "double quotes"]),
    "a row too short": ("label,text\n1\n", ["line 2", "1 cell ", "has 2"]),
    "an unclosed quote": ('label,text\n1,好\n0,"差\n1,好\n', ["line 3", "never closed"]),
    "text after a closing quote": ('label,text\n1,好\n0,"很差"的店\n', ["line 3", "quotes", "doubled"]),
    "NUL byte": ("label,text\n1,好\n0,差\0劲\n", ["line 3", "NUL byte"]),
    "a character cut in two": ("label,text\n1,好".encode()[:-1], ["line 2", "0xE5"]),
    "only a header": ("label,text\n", ["a header and no rows"]),
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_a_file_with_invalid_rows_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    content, words = UNSOUND[kind]
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    message = caught.value.describe()
    assert caught.value.where.startswith(str(tmp_path / "reviews.csv"))
    for word in words:
        assert word in message
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("name", "word"), [("none.csv", "does not exist"), ("folder.csv", "not a file"), ("reviews.doc", "'.doc'")]
)
def test_files_that_are_not_reviews_are_named(tmp_path: Path, name: str, word: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "reviews.doc").write_text("label\ttext\n1\t好\n", encoding="utf-8")
    with pytest.raises(DataError, match=word) as caught:
        read_reviews(tmp_path / name, BINARY_SENTIMENT)
    assert name in caught.value.describe()


def test_domains_are_read_and_kept_short(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "cat,label,review\n书籍,1,好\n 酒店 ,0,差\n,1,好\n\u200b书籍\ufeff,1,可以\n", encoding="utf-8"
    )
    reviews = read_reviews(tmp_path / "a.csv", BINARY_SENTIMENT)
    assert [review.domain for review in reviews] == ["书籍", "酒店", None, "书籍"]
    (tmp_path / "a.csv").write_text("cat,label,review\n书籍,1,好\n书籍,1,可以\n", encoding="utf-8")
    reviews = read_reviews(tmp_path / "a.csv", BINARY_SENTIMENT)
    assert reviews[0].domain is reviews[1].domain


@pytest.mark.parametrize(
    "name",
    ["text", "text_a", "review", "content", "comment", "评论", "内容", "文本", "评价内容", "Review Text", "TEXT-A"],
)
@pytest.mark.parametrize("label", ["label", "sentiment", "标签", "情感", "rating", "stars", "评分", "Ｌabel"])
def test_column_names(name: str, label: str) -> None:
    found = find_columns(["id", name, label, "类别"], "a.csv")
    assert (found.text, found.label, found.domain) == (1, 2, 3)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("three_classes", ["负面", "中性", "2", "neutral", "一般", "1.0"]),
        ("star_rating", ["1", "3.0", "五星", "三星", "★★", "5 stars"]),
        ("aspect_service", ["差", "未提及", "good", "none", "bad", "满意"]),
    ],
)
def test_labels_of_more_than_two_classes(repo_root: Path, task: str, words: list[str]) -> None:
    labels = LabelReader(load_task(str(repo_root / "examples" / "tasks" / f"{task}.yaml")))
    expected = {
        "three_classes": [0, 1, 2, 1, 1, 1],
        "star_rating": [0, 2, 4, 2, 1, 4],
        "aspect_service": [0, 1, 2, 1, 0, 2],
    }
    assert [labels.find(word) for word in words] == expected[task]
    assert labels.find("9") == Reason.UNKNOWN_LABEL


@pytest.mark.parametrize("threshold", [2.5, 3, 3.5])
def test_stars_and_the_threshold(threshold: float) -> None:
    labels = LabelReader(BINARY_SENTIMENT, star_threshold=threshold)
    for stars in (1, 2, 3, 4, 5):
        expected = Reason.MIDDLE_STARS if stars == threshold else int(stars > threshold)
        for word in (
            str(stars),
            f"{stars}.0",
            f"{stars}星",
            "★" * stars,
            "一二三四五"[stars - 1] + "星",
            f"{stars} stars",
        ):
            assert labels.find(word) == expected
    assert labels.find("-1") == labels.find("good") == labels.find_stars("11", 10) == Reason.UNKNOWN_LABEL
    assert (labels.find("11"), labels.find("positive"), labels.find_stars("positive")) == (1, 1, Reason.UNKNOWN_LABEL)


def test_three_stars_are_neutral_where_that_is_a_label(repo_root: Path) -> None:
    task = load_task(str(repo_root / "examples" / "tasks" / "three_classes.yaml"))
    labels = LabelReader(task, star_threshold=3)
    assert [labels.find(stars) for stars in "12345"] == [0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        ({"label_map": {"好": "great"}}, "no label 'great'"),
        ({"label_map": {}}, "The map is empty"),
        ({"label_map": {"1": "positive", "1.0": "negative"}}, "mapped to two labels"),
        ({"star_threshold": 0}, "--star_threshold"),
        ({"star_threshold": 3, "label_map": {"1": "0"}}, "one of them"),
    ],
)
def test_options_that_do_not_fit(choices: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        LabelReader(BINARY_SENTIMENT, **choices)


def test_label_maps_as_options() -> None:
    assert parse_label_map(["满意=positive", " 1=2 = 0"]) == {"满意": "positive", "1=2": "0"}
    assert parse_label_map(["a=1,b=0", "c,d=0,e=1"]) == {"a": "1", "b": "0", "c,d=0,e": "1"}
    assert parse_label_map(["满意=1，好，真=1"]) == {"满意=1，好，真": "1"}
    assert parse_label_map([]) is None
    for bad in (["满意"], ["=1"], ["满意="], ["a=1", "a=0"]):
        with pytest.raises(ConfigError, match="--label_map"):
            parse_label_map(bad)


@pytest.mark.parametrize("form", ["messages", "conversations", "alpaca", "alpaca in JSON"])
def test_training_files_are_read_back(tmp_path: Path, form: str) -> None:
    texts = ["很好", "太差\n真的", "好<|im_end|>```{"]
    shown = ["很好", "太差\n真的", "好＜|im_end|>｀｀｀｛"]
    rows = []
    for number, text in enumerate(texts):
        chat = BINARY_SENTIMENT.render_messages(text, number % 2)
        turns = [{"from": {"user": "human"}.get(t["role"], "gpt"), "value": t["content"]} for t in chat]
        rows.append(
            {"messages": {"messages": chat}, "conversations": {"conversations": turns}}.get(
                form, BINARY_SENTIMENT.render_alpaca(text, number % 2)
            )
        )
    path = tmp_path / ("a.json" if form.endswith("JSON") else "a.jsonl")
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text(f"[{','.join(lines)}]" if form.endswith("JSON") else "\n".join(lines), encoding="utf-8")
    assert [(review.text, review.label) for review in read_reviews(path, BINARY_SENTIMENT)] == [
        (text, number % 2) for number, text in enumerate(shown)
    ]


def test_reviews_are_extracted_from_unknown_prompts(tmp_path: Path) -> None:
    asked = Task("other", ("bad", "good"), "mood", (0, 1), "How is this? {text}\nAnswer in JSON.")
    texts = ["很好", "很好用", "太差", "H", "."]
    rows = [{"messages": asked.render_messages(text, number % 2)} for number, text in enumerate(texts)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)).replace("mood", "sentiment"), encoding="utf-8")
    assert [review.text for review in read_reviews(path, BINARY_SENTIMENT)] == texts
    same = [{"instruction": "同一句话", "output": "正面"}] * 2
    path.write_text("\n".join(map(json.dumps, same)), encoding="utf-8")
    assert [(review.text, review.label) for review in read_reviews(path, BINARY_SENTIMENT)] == [("同一句话", 1)] * 2


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.json", "a.tsv"])
def test_json_is_read_under_any_name_of_a_text_file(tmp_path: Path, name: str) -> None:
    rows = [{"id": 1, "text": "很好", "label": 1}, {"id": 2, "text": "太差，\n真的", "label": 0}]
    wanted = [("很好", 1), ("太差，\n真的", 0)]
    path = tmp_path / name
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    for content in (json.dumps(rows, indent=1), f"\ufeff[{','.join(lines)}]", "\n".join(lines)):
        path.write_text(content, encoding="utf-8")
        assert [(one.text, one.label) for one in read_reviews(path, BINARY_SENTIMENT)] == wanted
    path.write_text(f"[{lines[0]}]\n[{lines[1]}]\n", encoding="utf-8")  # no row may be lost behind the first list
    with pytest.raises(DataError, match="line 2"):
        read_reviews(path, BINARY_SENTIMENT)


def test_text_that_only_looks_like_json_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text('label,"{text}",text\n1,x,很好\n', encoding="utf-8")
    assert [one.text for one in read_reviews(tmp_path / "a.txt", BINARY_SENTIMENT)] == ["很好"]
    (tmp_path / "b.txt").write_text("{label}\ttext\n1\t[很好]\n", encoding="utf-8")
    options = ReadOptions(label_column="{label}")
    assert [one.text for one in read_reviews(tmp_path / "b.txt", BINARY_SENTIMENT, options)] == ["[很好]"]


@pytest.mark.parametrize("form", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    "others", [["predicted_label"], ["prediction"], ["pred"], ["score"], ["Predicted Label", "score"], ["预测标签"]]
)
def test_the_true_label_is_read_and_reported(
    tmp_path: Path, others: list[str], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{form}"
    if form == ".csv":
        path.write_text(f"text,{','.join(others)},label\n很好{',0' * len(others)},1\n", encoding="utf-8")
    else:
        path.write_text(json.dumps({"text": "很好", **dict.fromkeys(others, 0), "label": 1}), encoding="utf-8")
    assert [one.label for one in read_reviews(path, BINARY_SENTIMENT)] == [1]
    said = capsys.readouterr().err
    assert "'label'" in said
    assert all(repr(name) in said for name in others)
    if "score" in others:
        with pytest.raises(DataError, match="More than one column"):
            read_reviews(path, BINARY_SENTIMENT, ReadOptions(star_threshold=3))
    named = ReadOptions(label_column=others[0])
    assert [one.label for one in read_reviews(path, BINARY_SENTIMENT, named)] == [0]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("header", ["text,predicted_label", "text,prediction,score", "text,label_pred"])
def test_predictions_alone_are_not_labels(tmp_path: Path, header: str) -> None:
    cells = ",1" * header.count(",")
    (tmp_path / "a.csv").write_text(f"{header}\n很好{cells}\n", encoding="utf-8")
    with pytest.raises(DataError, match="none of them is a label column"):
        read_reviews(tmp_path / "a.csv", BINARY_SENTIMENT)


def test_rows_of_ms_swift_have_their_label_next_to_the_chat(tmp_path: Path) -> None:
    said = {"role": "user", "content": "很好"}
    graded = [said, {"role": "assistant", "content": '{"sentiment": 0}'}]
    rows = [
        {"messages": [said], "label": 1},
        {"messages": [{"role": "system", "content": "判断情感"}, said], "label": 0.0},
        {"messages": [said], "label": "正面"},
        {"messages": [said]},
        {"messages": [said], "label": [1, 0]},
        {"messages": graded, "label": True},  # there the label says whether the answer is a good one
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = read_source(tmp_path / "a.jsonl", BINARY_SENTIMENT)
    assert [(one.text, one.label) for one in result.reviews] == [("很好", label) for label in (1, 0, 1, 0)]
    assert [(one.source.line, one.reason) for one in result.rejected] == [(4, Reason.NO_LABEL), (5, Reason.NO_LABEL)]


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.integers(0, 1)))
)
@settings(deadline=None, max_examples=60)
def test_csv_and_json_are_read_back_exactly(rows: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        for suffix in (".csv", ".jsonl", ".json", ".tsv"):
            if suffix == ".tsv":  # a line with as many tabs as the header counts as a row there, quotes or not
                rows = [(text.replace("\t", " "), label) for text, label in rows]
            path = Path(folder, f"a{suffix}")
            with path.open("w", encoding="utf-8", newline="") as stream:
                if suffix in (".csv", ".tsv"):
                    writer = csv.writer(stream, delimiter=",\t"[suffix == ".tsv"], quoting=csv.QUOTE_NONNUMERIC)
                    writer.writerow(["label", "text"])
                    writer.writerows((label, text) for text, label in rows)
                elif suffix == ".jsonl":
                    stream.writelines(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
                else:
                    json.dump([{"text": text, "label": label} for text, label in rows], stream, ensure_ascii=False)
            if rows:
                assert [(review.text, review.label) for review in read_reviews(path, BINARY_SENTIMENT)] == rows
            else:
                with pytest.raises(DataError):
                    read_reviews(path, BINARY_SENTIMENT)


@given(st.binary(max_size=200), st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".txt"]), st.booleans())
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_rows_or_a_message(content: bytes, suffix: str, has_header: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes((b"label,text\n1,ok\n" if has_header else b"") + content)
        try:
            result = read_source(path, BINARY_SENTIMENT)
        except DataError as error:
            assert "\n" not in error.describe()  # noqa: PT017 - the other outcome is tested below
        else:
            assert result.inputs[0].n_rows == len(result.reviews) + len(result.rejected) > 0
            for row in [*result.reviews, *result.rejected]:
                row.text.encode()


def test_the_answer_values_of_a_task_come_before_names_and_other_words() -> None:
    stars = Task("stars", ("one", "two", "3"), "stars", (1, 2, 3), "{text}")
    index = build_label_index(stars)
    assert [find_label(word, index) for word in ["1", "2", "3", "two", "0", "4", ""]] == [0, 1, 2, 1, None, None, None]
    reversed_task = Task("reversed", ("1", "0"), "k", (0, 1), "{text}")
    assert find_label("0", build_label_index(reversed_task)) == 0
