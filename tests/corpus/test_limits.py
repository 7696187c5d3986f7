"""Files that could take quadratic time or all of the memory are read in one pass or refused."""

from __future__ import annotations

import csv
import random
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sentifactory.corpus.cleaning.near_duplicates import find_near_pairs
from sentifactory.corpus.dataset.dataset_info import read_dataset_info
from sentifactory.corpus.files import delimited, delimited_records, json_files, limits, mixed_encodings, workbook_xml
from sentifactory.corpus.files.tables import BrokenRow
from sentifactory.corpus.leakage.containment import find_contained
from sentifactory.corpus.reading import review_files
from sentifactory.corpus.reading.review_files import read_source
from sentifactory.errors import DataError
from sentifactory.serving.labelling.row_files import open_rows
from sentifactory.task.task import BINARY_SENTIMENT

_CELL = '<c r="{}" t="inlineStr"><is><t>{}</t></is></c>'
_HEADER = f'<row r="1">{_CELL.format("A1", "label")}{_CELL.format("B1", "review")}</row>'


@pytest.fixture
def handed_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list whose one number counts the lines that readers of CSV and TSV were given."""
    count = [0]
    given = delimited_records._Lines.__next__

    def count_line(lines: delimited_records._Lines) -> str:
        line = given(lines)
        count[0] += 1
        return line

    monkeypatch.setattr(delimited_records._Lines, "__next__", count_line)
    return count


@pytest.mark.parametrize(
    ("suffix", "header", "line"),
    [
        (".csv", "label,review", 'a","b'),
        (".csv", "label,review", '1,"b'),
        (".csv", "label,review", '1,"b"x'),
        (".csv", "label;review", '1";"b'),
        (".tsv", "id\tlabel\treview", 'a"\t"b'),
        (".tsv", "label\treview", '"a'),
        (".tsv", "label\treview", '"a""'),
        (".txt", "label,review", 'a","b'),
    ],
)
@pytest.mark.parametrize("last", ["", '1,"b"\n', '1\t1\t"b"\n'])
def test_each_line_is_read_a_few_times_at_most(
    tmp_path: Path, handed_out: list[int], suffix: str, header: str, line: str, last: str
) -> None:
    path = tmp_path / f"a{suffix}"
    counts = []
    for n_lines in (500, 1000):
        path.write_text(header + "\n" + (line + "\n") * n_lines + last, encoding="utf-8")
        handed_out[0] = 0
        rows = list(open_rows(path, "review", None).iter_rows())
        counts.append(handed_out[0])
        assert len(rows) >= n_lines // 2
    assert counts[1] <= 2.1 * counts[0]
    assert counts[1] < 40 * 1000


def _read_as_before(text: str, delimiter: str) -> Iterator[tuple[int, object]]:
    """Yield the records of a CSV as one that goes back for every broken row reads it, whatever that costs."""
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        taken = 0

        def take(start: int = at) -> Iterator[str]:
            nonlocal taken
            for line in lines[start:]:
                taken += 1
                yield line

        try:
            cells = next(csv.reader(take(), delimiter=delimiter, strict=True))
        except csv.Error as error:
            yield at + 1, "never closed" if "end of data" in str(error) else "no match"
            at += 1
            continue
        if cells:
            yield at + 1, cells
        at += taken


def test_rows_equal_those_of_a_reader_that_retries_every_broken_row() -> None:
    chance = random.Random(5)
    for _ in range(3000):
        text = "".join(chance.choices(['"', '""', ",", "\n", "a", '","', '"\n', '\n"'], k=chance.randint(1, 30)))
        found = [
            (row.line, "never closed" if "never" in row.detail else "no match") if isinstance(row, BrokenRow) else row
            for row in delimited_records.iter_records(iter(text.splitlines(keepends=True)), ",")
        ]
        assert found == list(_read_as_before(text, ",")), text


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (limits, delimited, delimited_records, json_files, mixed_encodings, review_files):
        for name, value in (("MAX_ROW_CHARS", 1000), ("MAX_TEXT_CHARS", 100), ("MAX_BROKEN_ROWS", 50)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize(
    ("name", "head", "row"),
    [
        ("a.csv", "label,review\n", "{1},{0}\n"),
        ("a.csv", "label,review\n", '{1},"{0}"\n'),
        ("a.tsv", "label\treview\n", "{1}\t{0}\n"),
        ("a.jsonl", "", '{{"label": {1}, "review": "{0}"}}\n'),
    ],
)
@pytest.mark.parametrize("n_chars", [150, 995, 5000])
def test_a_row_or_text_that_is_too_long_is_rejected(
    tmp_path: Path, name: str, head: str, row: str, n_chars: int
) -> None:
    path = tmp_path / name
    rows = [row.format("很好", 1), row.format("x" * n_chars, 1), row.format("不好", 0)]
    path.write_text(head + "".join(rows), encoding="utf-8")
    result = read_source(path, BINARY_SENTIMENT)
    assert [review.text for review in result.reviews] == ["很好", "不好"]
    assert [one.source.line for one in result.rejected] == [2 + bool(head)]
    labelled = list(open_rows(path, None, None).iter_rows())
    assert [isinstance(one, BrokenRow) for one in labelled] == [False, True, False]


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl"])
def test_a_file_of_one_long_line_is_a_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("很" * 5000, encoding="utf-8")
    with pytest.raises(DataError):
        read_source(path, BINARY_SENTIMENT)
    with pytest.raises(DataError):
        open_rows(path, None, None)


@pytest.mark.usefixtures("low_limits")
def test_a_file_of_broken_rows_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("label,review\n" + 'a","b\n' * 1000 + "1,很好\n" * 5000, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_source(path, BINARY_SENTIMENT)
    assert caught.value.where == f"{path}, line 52"


@pytest.mark.parametrize("depth", [101, 900, 990, 100_000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_that_is_nested_too_deep(tmp_path: Path, name: str, depth: int) -> None:
    path = tmp_path / name
    row = '{"label": 1, "review": "很好", "more": ' + "[" * depth + "]" * depth + "}"
    path.write_text(f"[{row}]" if name == "a.json" else f'{{"label": 1, "review": "很好"}}\n{row}\n', encoding="utf-8")
    if name == "a.json":
        with pytest.raises(DataError):
            read_source(path, BINARY_SENTIMENT)
        return
    assert [one.source.line for one in read_source(path, BINARY_SENTIMENT).rejected] == [2]
    (tmp_path / "dataset_info.json").write_text('{"a": ' + "[" * depth + "]" * depth + "}", encoding="utf-8")
    with pytest.raises(DataError):
        read_dataset_info(tmp_path, "b")


def test_a_duplicate_key_among_many_is_found_in_one_pass() -> None:
    pairs = [(f"k{number}", number) for number in range(100_000)]
    with pytest.raises(ValueError, match="k7"):
        json_files._make_object([*pairs, ("k7", 1)])


def _write_book(path: Path, sheet: str | Sequence[str], strings: Sequence[str] = (), n_sheets: int = 1) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        sheets = "".join(f'<sheet name="S{n}" r:id="r{n}"/>' for n in range(n_sheets))
        archive.writestr("xl/workbook.xml", f'<workbook xmlns:r="r"><sheets>{sheets}</sheets></workbook>')
        related = "".join(f'<Relationship Id="r{n}" Type="x/worksheet" Target="a.xml"/>' for n in range(n_sheets))
        related += '<Relationship Id="s" Type="x/sharedStrings" Target="s.xml"/>'
        archive.writestr("xl/_rels/workbook.xml.rels", f"<Relationships>{related}</Relationships>")
        for name, pieces in (("xl/a.xml", [sheet] if isinstance(sheet, str) else sheet), ("xl/s.xml", strings)):
            with archive.open(name, "w") as stream:
                for piece in pieces or ["<sst/>"]:
                    stream.write(piece.encode())
    return path


def _make_sheet(rows: str, *, before: str = "", after: str = "") -> str:
    return f"{before}<worksheet><sheetData>{_HEADER}{rows}</sheetData>{after}</worksheet>"


def _make_row(number: int, text: str = "很好") -> str:
    return f'<row r="{number}">{_CELL.format(f"A{number}", "1")}{_CELL.format(f"B{number}", text)}</row>'


_ENTITIES = "<!DOCTYPE w [" + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12)) + "]>"
_BOOKS: dict[str, Callable[[Path], Path]] = {
    "a row beyond the last": lambda path: _write_book(path, _make_sheet(_make_row(1_000_000_000))),
    "an endless row number": lambda path: _write_book(path, _make_sheet(_make_row(2).replace('"2"', '"1e999"'))),
    "a column beyond the last": lambda path: _write_book(path, _make_sheet(_make_row(2).replace("B2", "ZZZZZZZ2"))),
    "a row of many cells": lambda path: _write_book(path, _make_sheet(f"<row>{'<c/>' * 30_000}</row>")),
    "cells within cells": lambda path: _write_book(path, _make_sheet("<c>" * 5000)),
    "a long text": lambda path: _write_book(path, [_make_sheet("<row><c><v>")[:-30], *["x" * (1 << 20)] * 40]),
    "many empty rows": lambda path: _write_book(path, ["<worksheet><sheetData>", *["<row/>" * 200_000]]),
    "many sheets": lambda path: _write_book(path, _make_sheet(_make_row(2)), n_sheets=300),
    "long strings": lambda path: _write_book(
        path, _make_sheet(_make_row(2)), ["<sst>", *[f"<si><t>{'x' * (1 << 20)}</t></si>"] * 40, "</sst>"]
    ),
    "entities that multiply": lambda path: _write_book(path, _make_sheet(_make_row(2, "&e11;"), before=_ENTITIES)),
    "an external document type": lambda path: _write_book(
        path, _make_sheet(_make_row(2), before='<!DOCTYPE w SYSTEM "file:///etc/hosts">')
    ),
    "a document type in UTF-16": lambda path: _write_book_utf16(path),
}


def _write_book_utf16(path: Path) -> Path:
    _write_book(path, _make_sheet(_make_row(2)))
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/a.xml"] = _make_sheet(_make_row(2), before=_ENTITIES).encode("utf-16")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("write", _BOOKS.values(), ids=_BOOKS)
def test_workbooks_beyond_the_limits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Path]
) -> None:
    monkeypatch.setattr(limits, "SURE_UNPACKED_BYTES", 1 << 20)
    monkeypatch.setattr(workbook_xml, "_MAX_ELEMENTS", 20_000)
    path = write(tmp_path / "a.xlsx")
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read_source(path, BINARY_SENTIMENT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in caught.value.where
    assert peak < 150 << 20


def test_merges_cost_one_lookup_per_row(tmp_path: Path) -> None:
    merges = "".join(f'<mergeCell ref="A{n}:A1000000000"/>' for n in range(2, 2000))
    rows = "".join(map(_make_row, range(2, 2000)))
    path = _write_book(tmp_path / "a.xlsx", _make_sheet(rows, after=f"<mergeCells>{merges}</mergeCells>"))
    assert len(read_source(path, BINARY_SENTIMENT).reviews) == 1998


@pytest.mark.parametrize("kind", ["runs", "dictionary", "plain"])
def test_parquet_files_that_unpack_beyond_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(limits, "SURE_UNPACKED_BYTES", 1 << 20)
    n_rows, n_chars = {"runs": (200_000, 2), "dictionary": (2000, 100_000), "plain": (200, 100_000)}[kind]
    codes = pyarrow.array([0] * n_rows, pyarrow.int32())
    column = pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(["x" * n_chars]))
    column = column.dictionary_decode() if kind == "plain" else column
    table = pyarrow.table({"label": [1] * n_rows, "review": column})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path, compression="zstd", use_dictionary=kind != "plain", store_schema=False)
    before = pyarrow.default_memory_pool().max_memory()
    with pytest.raises(DataError):
        read_source(path, BINARY_SENTIMENT)
    with pytest.raises(DataError):
        list(open_rows(path, "review", None).iter_rows())
    assert pyarrow.default_memory_pool().max_memory() <= max(before, 150 << 20)


def test_long_texts_are_compared_by_their_beginning() -> None:
    words = "".join(chr(0x4E00 + number % 5000) for number in range(300_000))
    pairs = find_near_pairs([words, words[:150_000] + "好" + words[150_001:]])
    assert pairs.left.tolist() == [0]


def test_needles_that_begin_alike_are_searched_together() -> None:
    reviews = [
        f"这家酒店的服务很好房间也很干净下次来还会再住的因为真的是很不错的{number:05}" for number in range(20_000)
    ]
    found = find_contained(reviews, [f"问{review}答" for review in reviews[:10_000]])
    exact = {one.needle: one.text for one in found if one.similarity == 1}
    assert exact == {number: number for number in range(10_000)}
