"""Texts of `sentifactory predict`: read in any encoding, cleaned as training texts, shown as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.engines.side_by_side import answer_side_by_side, collect_texts
from sentifactory.errors import ConfigError, DataError
from sentifactory.task.task import BINARY_SENTIMENT


def test_lines_of_a_file_in_gbk_are_read_and_blank_ones_left_out(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes("房间干净\n&nbsp;\n服务太差，下次不会再来了\n".encode("gbk"))
    assert [review.text for review in collect_texts([], file, BINARY_SENTIMENT)] == [
        "房间干净",
        "服务太差，下次不会再来了",
    ]


def test_a_byte_that_fits_no_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes("房间干净，服务也好\n".encode() * 3 + b"\xe6\n")
    with pytest.raises(DataError) as refused:
        collect_texts([], file, BINARY_SENTIMENT)
    assert refused.value.where == f"{file}, line 4"


@pytest.mark.parametrize("texts", [["\u200b\ufeff"], ["好", "&nbsp;\u200b"], ["", "好"]])
def test_a_blank_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError):
        collect_texts(texts, None, BINARY_SENTIMENT)


@pytest.mark.parametrize("text", ["\udcff好", "好\ud83d", "好\0"])
def test_what_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        collect_texts([text], None, BINARY_SENTIMENT)


def test_rows_of_a_file_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "很好"}\n{"text": "太差\\ud83d"}\n{"text": "值得"}\n', "utf-8")
    assert [review.text for review in collect_texts([], file, BINARY_SENTIMENT)] == ["很好", "值得"]


def test_texts_are_asked_as_training_texts_are(tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    rows = [
        f"{label},{text}{number}" for number in range(10) for label, text in ((1, "很好&amp;棒"), (0, "太差\u200b了"))
    ]
    train.write_text("\n".join(["label,text", *rows]), encoding="utf-8")
    texts = ["很好&amp;棒", "很好&棒", "太差\u200b了", "太差了"]
    answers = answer_side_by_side(collect_texts(texts, None, BINARY_SENTIMENT), [], None, train_csv=str(train))
    assert [row["text"] for row in answers] == texts
    shares = [row["answers"][0]["probabilities"] for row in answers]
    assert shares[0] == shares[1]
    assert shares[2] == shares[3]
