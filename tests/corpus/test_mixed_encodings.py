"""Files in two encodings are refused, and a broken byte in GBK rejects only its row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sentifactory.corpus.files.encodings import inspect_text
from sentifactory.corpus.files.mixed_encodings import GBK, UTF8, count_line_kinds
from sentifactory.corpus.leakage.leak_report import check_leaks_in_files
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.reading.review_files import read_source
from sentifactory.engines.side_by_side import collect_texts
from sentifactory.errors import DataError
from sentifactory.records import Reason
from sentifactory.serving.labelling.row_files import open_rows
from sentifactory.task.task import BINARY_SENTIMENT

TEXTS = [f"第{number}间房很干净，服务也不错，{'早餐丰富' if number % 2 else '就是太吵'}" for number in range(20)]
HEADS = {".csv": "label,text\n", ".tsv": "label\ttext\n", ".txt": "label,text\n", ".jsonl": ""}


def write_lines(suffix: str, texts: list[str]) -> str:
    if suffix == ".jsonl":
        return "".join(json.dumps({"label": 1, "text": text}, ensure_ascii=False) + "\n" for text in texts)
    return "".join(f"1{HEADS[suffix][5]}{text}\n" for text in texts)


@pytest.mark.parametrize("suffix", HEADS)
@pytest.mark.parametrize("order", [("utf-8", "gbk"), ("gbk", "utf-8"), ("gb18030", "utf-8-sig"), ("utf-8-sig", "gbk")])
def test_two_encodings_are_refused_with_the_first_line_of_each(
    tmp_path: Path, suffix: str, order: tuple[str, str]
) -> None:
    path = tmp_path / f"reviews{suffix}"
    head = HEADS[suffix]
    start = head.encode("utf-8-sig" if order[0] == "utf-8-sig" else "ascii")
    first = write_lines(suffix, TEXTS[:10]).encode("gbk" if order[0].startswith("gb") else "utf-8")
    path.write_bytes(start + first + write_lines(suffix, TEXTS[10:]).encode(order[1]))
    n_head = 1 if head else 0
    kinds = count_line_kinds(path)
    assert kinds.counts[UTF8] == kinds.counts[GBK] == 10
    assert sorted(kinds.first.values()) == [1 + n_head, 11 + n_head]
    for read in (
        lambda: read_source(path, BINARY_SENTIMENT),
        lambda: read_source(path, BINARY_SENTIMENT, ReadOptions(encoding="gbk")),
        lambda: open_rows(path, None, None),
        lambda: check_leaks_in_files([str(path)], [str(path)], BINARY_SENTIMENT),
        lambda: collect_texts([], path, BINARY_SENTIMENT),
    ):
        with pytest.raises(DataError) as refused:
            read()
        assert refused.value.where == f"{path}, line {11 + n_head}"


@pytest.mark.parametrize("at", [0, 7, 18])
@pytest.mark.parametrize("bad", [b"\xff", b"\x80\xff"])
def test_a_broken_byte_in_gbk_rejects_only_its_row(tmp_path: Path, at: int, bad: bytes) -> None:
    path = tmp_path / "reviews.csv"
    rows = [f"1,{text}\n".encode("gbk") for text in TEXTS]
    rows[at] = rows[at][:6] + bad + rows[at][6:]
    path.write_bytes(b"label,text\n" + b"".join(rows))
    result = read_source(path, BINARY_SENTIMENT)
    assert result.encoding == "gb18030"
    assert [review.text for review in result.reviews] == TEXTS[:at] + TEXTS[at + 1 :]
    assert [(row.source.line, row.reason) for row in result.rejected] == [(at + 2, Reason.BROKEN_ROW)]


def test_truncated_gbk_rejects_the_last_row(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_bytes("".join(["label,text\n", *(f"1,{text}\n" for text in TEXTS)]).encode("gbk")[:-2])
    result = read_source(path, BINARY_SENTIMENT)
    assert [row.source.line for row in result.rejected] == [21]
    assert len(result.reviews) == 19


def test_one_gbk_row_in_utf8_is_rejected_and_one_utf8_row_in_gbk_refuses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    many, one = "1,可以，下次还来\n" * 200, "0,房间很差，不会再来\n"
    path.write_bytes(b"label,text\n" + many.encode() + one.encode("gbk"))
    assert [row.source.line for row in read_source(path, BINARY_SENTIMENT).rejected] == [202]
    path.write_bytes(b"label,text\n" + many.encode("gbk") + one.encode())
    with pytest.raises(DataError) as refused:
        read_source(path, BINARY_SENTIMENT)
    assert refused.value.where.endswith("line 202")


def test_the_wrong_encoding_given_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("label,text\n" + write_lines(".csv", TEXTS), encoding="utf-8")
    with pytest.raises(DataError):
        inspect_text(path, "gbk")


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_short_rows_are_of_one_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "reviews.csv"
    words = ["好", "很好", "太差", "联通", "不错。", "一般般", "寰宇", "房间·大", "café", "濂", "10°C", "😀好"]
    path.write_bytes("".join(f"1,{word}\n" for word in ["text", *words]).encode(encoding))
    kinds = count_line_kinds(path)
    assert kinds.counts[GBK if encoding == "utf-8" else UTF8] == 0
