"""Readers: the right rows with the right lines, or one clear message that names the file, the line and the value."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.corpus.labels import build_label_index, find_label
from sentifactory.corpus.readers import read_reviews
from sentifactory.errors import DataError
from sentifactory.task import BINARY_SENTIMENT, Task


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


DIRTY: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["The file is empty"]),
    "only a BOM": (b"\xef\xbb\xbf", ["The file is empty"]),
    "only blank lines": ("\n\n\n", ["The file is empty"]),
    "only a header": ("label,text\n", ["a header and no rows"]),
    "no text column": ("label,content\n1,好\n", ["line 1", "'label', 'content'", "none of them is a text column"]),
    "no label column": ("text,stars\n好,5\n", ["line 1", "none of them is a label column", "label"]),
    "no header": ("1,很好\n0,差\n", ["line 1", "'1', '很好'", "name the columns"]),
    "two text columns": ("label,text,review\n1,a,b\n", ["more than one of them is a text column"]),
    "duplicate header": ("label,text,text\n1,a,b\n", ["more than one of them is a text column"]),
    "semicolons": ("label;text\n1;好\n", ["'label;text'", "label,review"]),
    "unknown label": ("label,text\n1,好\n2,差\n", ["line 3", "The label is '2'", "0, negative, 负面, 消极"]),
    "label in words": ("label,text\n1,好\ngood,好\n", ["line 3", "The label is 'good'"]),
    "missing label": ("label,text\n1,好\n,差\n", ["line 3", "The label is missing"]),
    "missing value written by pandas": ("label,text\nnan,好\n", ["line 2", "The label is 'nan'"]),
    "mixed labels": (
        "label,text\n" + "1,好\n3 stars,中\n" * 9,
        ["line 3", "'3 stars'", "8 more bad rows", "5, 7, 9, 11, 13, ..."],
    ),
    "a huge label": ("label,text\n" + "x" * 90_000 + ",好\n", ["line 2", "x…"]),
    "a comma in the review": ("label,text\n1,好\n1,好，真,好\n", ["line 3", "3 cells", "has 2", "double quotes"]),
    "a row too short": ("label,text\n1\n", ["line 2", "1 cell ", "has 2"]),
    "an unclosed quote": ('label,text\n1,好\n0,"差\n1,好\n', ["line 3", "never closed"]),
    "an unclosed quote, then a closed one": ('label,text\n1,"好\n0,"差"\n', ["line 2", "quotes"]),
    "text after a closing quote": ('label,text\n1,好\n0,"很差"的店\n', ["line 3", "quotes", "doubled"]),
    "NUL byte": ("label,text\n1,好\n0,差\0劲\n", ["line 3", "NUL byte"]),
    "GB18030": (
        "label,text\n1,好\n0,很差\n".encode("gb18030"),
        ["line 2", "not UTF-8", "byte 0x", "iconv -f GB18030"],
    ),
    "GBK late in the file": (
        b"label,text\n" + "1,好\n".encode() * 50_000 + "0,很差\n".encode("gbk"),
        ["line 50002", "not UTF-8"],
    ),
    "UTF-16": ("label,text\n1,好\n".encode("utf-16"), ["UTF-16", "iconv -f UTF-16"]),
    "UTF-16 without BOM": ("label,text\n1,good\n".encode("utf-16-le"), ["line 1", "NUL byte", "UTF-16"]),
    "a character cut in two": ("label,text\n1,好".encode()[:-1], ["line 2", "not UTF-8"]),
    "Latin-1": ("label,text\n1,café\n".encode("latin-1"), ["line 2", "byte 0xE9"]),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", ["line 1", "not UTF-8", "byte 0x89"]),
}


@pytest.mark.parametrize("kind", DIRTY)
def test_dirty_files_give_one_clear_message(tmp_path: Path, kind: str) -> None:
    content, words = DIRTY[kind]
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    message = caught.value.describe()
    assert caught.value.where.startswith(str(tmp_path / "reviews.csv"))
    for word in words:
        assert word in message
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("name", "word"), [("none.csv", "does not exist"), ("folder.csv", "not a file"), ("reviews.tsv", "'.tsv'")]
)
def test_what_is_no_csv_file_is_named(tmp_path: Path, name: str, word: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "reviews.tsv").write_text("label\ttext\n1\t好\n", encoding="utf-8")
    with pytest.raises(DataError, match=word) as caught:
        read_reviews(tmp_path / name, BINARY_SENTIMENT)
    assert name in caught.value.describe()


def test_the_answer_values_of_a_task_come_before_names_and_other_words() -> None:
    stars = Task("stars", ("one", "two", "3"), "stars", (1, 2, 3), "{text}")
    index = build_label_index(stars)
    assert [find_label(word, index) for word in ["1", "2", "3", "two", "0", "4", ""]] == [0, 1, 2, 1, None, None, None]
    reversed_task = Task("reversed", ("1", "0"), "k", (0, 1), "{text}")
    assert find_label("0", build_label_index(reversed_task)) == 0
