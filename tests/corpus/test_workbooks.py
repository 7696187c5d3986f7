"""Workbooks of other programs: each cell is read as Excel shows it, or its row is rejected with the reason."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sentifactory.corpus.reading.read_result import ReadResult
from sentifactory.corpus.reading.review_files import read_source
from sentifactory.errors import DataError
from sentifactory.records import Reason
from sentifactory.task.task import BINARY_SENTIMENT

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
# Formats 1 and 2 show a number as a date, 3 as a percentage.
STYLES = (
    '<numFmts><numFmt numFmtId="164" formatCode="yyyy&quot;年&quot;m&quot;月&quot;"/>'
    '<numFmt numFmtId="165" formatCode="0.0&quot;days&quot;"/></numFmts><cellXfs><xf numFmtId="0"/>'
    '<xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="9"/><xf numFmtId="165"/></cellXfs>'
)
TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Override PartName="/xl/workbook.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>'
)
HEADER = "<row><c t='inlineStr'><is><t>标签</t></is></c><c t='inlineStr'><is><t>评论</t></is></c></row>"

Write = Callable[..., Path]


def text(content: str, at: str = "") -> str:
    return f"<c{at and f' r={at!r}'} t='inlineStr'><is><t>{content}</t></is></c>"


def row(label: str | int, review: str) -> str:
    cell = f"<c><v>{label}</v></c>" if isinstance(label, int) else label
    return f"<row>{cell}{text(review)}</row>"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes sheets (their rows as XML, and the XML around them) as a workbook."""

    def write(
        *sheets: str, before: str = "", after: str = "", strings: str = "", namespace: str = MAIN, states: str = ""
    ) -> Path:
        path = tmp_path / "reviews.xlsx"
        kinds = [*(("worksheet", f"worksheets/sheet{n}.xml") for n, _ in enumerate(sheets)), ("styles", "styles.xml")]
        kinds += [("sharedStrings", "/xl/sharedStrings.xml")] if strings else []
        links = "".join(
            f'<Relationship Id="r{n}" Type="{RELATIONS}/{k}" Target="{t}"/>' for n, (k, t) in enumerate(kinds)
        )
        names = "".join(
            f'<sheet name="S{n}" sheetId="{n + 1}" r:id="r{n}"{states if n == 0 else ""}/>'
            for n, _ in enumerate(sheets)
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "xl/workbook.xml",
                f'<workbook xmlns="{namespace}" xmlns:r="{RELATIONS}"><sheets>{names}</sheets></workbook>',
            )
            archive.writestr("[Content_Types].xml", TYPES)
            archive.writestr(
                "xl/_rels/workbook.xml.rels",
                f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{links}</Relationships>',
            )
            archive.writestr("xl/styles.xml", f'<styleSheet xmlns="{namespace}">{STYLES}</styleSheet>')
            if strings:
                archive.writestr("xl/sharedStrings.xml", f'<sst xmlns="{namespace}">{strings}</sst>')
            for number, sheet in enumerate(sheets):
                archive.writestr(
                    f"xl/worksheets/sheet{number}.xml",
                    f'<x:worksheet xmlns:x="{namespace}" xmlns="{namespace}">{before}'
                    f"<sheetData>{sheet}</sheetData>{after}</x:worksheet>",
                )
        return path

    return write


def read(path: Path) -> ReadResult:
    return read_source(path, BINARY_SENTIMENT)


def summarise(result: ReadResult) -> tuple[list[tuple[str, int | None]], list[tuple[int, Reason]]]:
    """Return text and label of each review, line and reason of each rejected row."""
    return (
        [(review.text, review.label) for review in result.reviews],
        [(one.source.line, one.reason) for one in result.rejected],
    )


@pytest.mark.parametrize("namespace", [MAIN, STRICT])
def test_the_stated_size_of_a_sheet_is_not_believed(write: Write, namespace: str) -> None:
    sheet = HEADER + row(1, "好") + row(0, "差") + row(1, "很好")
    for size in ("A1:B2", "A1:A4", "A1", "A1:XFD1048576"):
        path = write(sheet, before=f'<dimension ref="{size}"/>', namespace=namespace)
        assert summarise(read(path)) == ([("好", 1), ("差", 0), ("很好", 1)], [])


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("好_x000D_\n的", "好\n的"),
        ("好_x000A_的", "好\n的"),
        ("好_x000d_的", "好\n的"),
        ("好_x0009_的", "好\t的"),
        ("好_x005F_x000D_的", "好_x000D_的"),
        ("好_x005f_的", "好_的"),
        ("好_xD83D__xDE00_", "好😀"),
        ("好x005F_的", "好x005F_的"),
        ("好_x00D_的_x_", "好_x00D_的_x_"),
    ],
)
@pytest.mark.parametrize("place", ["inline", "shared", "result"])
def test_escaped_characters_are_what_excel_shows(write: Write, written: str, shown: str, place: str) -> None:
    cell = {
        "inline": text(written),
        "shared": "<c t='s'><v>0</v></c>",
        "result": f"<c t='str'><f>A1</f><v>{written}</v></c>",
    }
    path = write(
        f"{HEADER}<row><c><v>1</v></c>{cell[place]}</row>",
        strings=f"<si><r><t>{written[:1]}</t></r><r><rPr/><t>{written[1:]}</t></r><rPh><t>hao</t></rPh></si>",
    )
    assert summarise(read(path)) == ([(shown, 1)], [])


def test_escapes_in_the_header_are_line_ends(write: Write) -> None:
    header = "<row>" + text("_x000D_\n标签") + text("评论_x000D_") + "</row>"
    assert summarise(read(write(header + row(1, "好")))) == ([("好", 1)], [])


@pytest.mark.parametrize("error", ["#NAME?", "#N/A", "#REF!", "#VALUE!", "#DIV/0!"])
def test_error_cells_are_neither_reviews_nor_labels(write: Write, error: str) -> None:
    cell = f"<c t='e'><v>{error}</v></c>"
    sheet = HEADER + row(1, "好") + row(0, error) + f"<row><c><v>1</v></c>{cell}</row>" + row(cell, "差")
    result = read(write(sheet))
    assert summarise(result) == ([("好", 1), (error, 0)], [(4, Reason.BROKEN_ROW), (5, Reason.NO_LABEL)])
    assert all(error in one.detail for one in result.rejected)


def test_a_merged_label_is_that_of_all_its_rows(write: Write) -> None:
    none = "<c/>"
    sheet = (
        HEADER
        + row(1, "好")
        + row(none, "很好")
        + row(none, "可以")
        + row(0, "差")
        + row(none, "太差")
        + row(none, "无")
    )
    merges = '<mergeCells><mergeCell ref="A2:A4"/><mergeCell ref="A5:A6"/><mergeCell ref="B1:C1"/></mergeCells>'
    assert summarise(read(write(sheet, after=merges))) == (
        [("好", 1), ("很好", 1), ("可以", 1), ("差", 0), ("太差", 0)],
        [(7, Reason.NO_LABEL)],
    )


def test_a_formula_is_its_saved_result(write: Write) -> None:
    formula = "<c><f>IF(C2&gt;3,1,0)</f>{}</c>".format
    assert summarise(read(write(HEADER + row(formula("<v>1</v>"), "好") + row(formula("<v>0</v>"), "差")))) == (
        [("好", 1), ("差", 0)],
        [],
    )
    sheet = HEADER + row(1, "好") + row(formula("<v/>"), "差") + row(0, "太差")
    assert summarise(read(write(sheet))) == ([("好", 1), ("太差", 0)], [(3, Reason.NO_LABEL)])
    with pytest.raises(DataError, match="2 of 3 reviews have no label: the label is a formula") as caught:
        read(write(HEADER + row(1, "好") + row(formula(""), "差") + row(formula("<v/>"), "太差")))
    assert caught.value.where.endswith("line 3")


def test_numbers_and_dates(write: Write) -> None:
    date, month = "<c s='1'><v>45000</v></c>", "<c s='2'><v>45000</v></c>"
    sheet = (
        HEADER
        + row("<c><v>1.0</v></c>", "好")
        + row("<c s='3'><v>1</v></c>", "对")
        + row("<c s='4'><v>0</v></c>", "差")
    )
    sheet += "".join(f"<row><c><v>1</v></c>{cell}</row>" for cell in (date, month, "<c><v>100</v></c>"))
    assert summarise(read(write(sheet))) == (
        [("好", 1), ("对", 1), ("差", 0), ("100", 1)],
        [(5, Reason.BROKEN_ROW), (6, Reason.BROKEN_ROW)],
    )


def test_titles_and_other_sheets_are_skipped(write: Write) -> None:
    title = f"<row r='2'>{text('2023年评论汇总')}</row>"
    table = (
        HEADER.replace("<row>", "<row r='4'>")
        + row(1, "好")
        + f"<row r='9'>{text('差', 'B9')}<c/></row>".replace("<row r='9'>", "<row r='9'><c r='A9'><v>0</v></c>")
    )
    result = read(write("", title + table, ""))
    assert summarise(result)[0] == [("好", 1), ("差", 0)]
    assert [review.source and review.source.line for review in result.reviews] == [5, 9]
    assert summarise(read(write(HEADER + row(0, "旧"), HEADER + row(1, "好"), states=" state='hidden'")))[0] == [
        ("好", 1)
    ]
    with pytest.raises(DataError, match="2 sheets with data"):
        read(write(HEADER + row(0, "旧"), HEADER + row(1, "好")))


def test_a_truncated_sheet_is_one_clear_error(write: Write) -> None:
    path = write(HEADER + row(1, "好") + "<row><c></row>")
    with pytest.raises(DataError, match="not an Excel workbook"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    with pytest.raises(DataError, match="an archive of something else"):
        read(path)
