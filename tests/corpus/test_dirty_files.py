"""Dirty files: each gives the right rows, with the others rejected line by line, or one clear message."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.reading.review_files import read_source
from sentifactory.errors import DataError
from sentifactory.records import Reason
from sentifactory.task.task import BINARY_SENTIMENT

HEAD = "label,text\n"
GOOD = "1,很好\n0,太差\n"
LONG = "很好，" * 350_000
BROKEN, UNKNOWN, MISSING = Reason.BROKEN_ROW, Reason.UNKNOWN_LABEL, Reason.NO_LABEL


@dataclass(frozen=True)
class Dirty:
    """A file, and either its rows (text, label, line) with its rejected rows (line, reason, word), or its message."""

    content: str | bytes
    rows: list[tuple[str, int | None, int]] = field(default_factory=list)
    rejected: list[tuple[int, Reason, str]] = field(default_factory=list)
    encoding: str | None = "utf-8"
    message: list[str] = field(default_factory=list)
    suffix: str = ".csv"
    options: ReadOptions | None = None


def workbook(*rows: tuple[object, ...]) -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def parquet(**columns: list[object]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    stream = io.BytesIO()
    write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


TWO = [("很好", 1, 2), ("太差", 0, 3)]
FILLER = "1,可以\n" * 30
FILLED = [("可以", 1, line) for line in range(2, 32)]
FILES: dict[str, Dirty] = {
    # encodings
    "UTF-8 with BOM": Dirty(("\ufeff" + HEAD + GOOD).encode(), TWO, encoding="utf-8-sig"),
    "two BOMs": Dirty(("\ufeff\ufeff" + HEAD + GOOD).encode(), TWO, encoding="utf-8-sig"),
    "GB18030": Dirty((HEAD + GOOD).encode("gb18030"), TWO, encoding="gb18030"),
    "GB18030 with an emoji": Dirty(
        (HEAD + "1,很好😀，下次还来\n0,太差\n").encode("gb18030"),
        [("很好😀，下次还来", 1, 2), ("太差", 0, 3)],
        encoding="gb18030",
    ),
    "Big5": Dirty(
        (HEAD + "1,房間很乾淨，服務態度也好\n0,隔音太差了，晚上睡不著\n").encode("big5"),
        [("房間很乾淨，服務態度也好", 1, 2), ("隔音太差了，晚上睡不著", 0, 3)],
        encoding="big5",
    ),
    "UTF-16": Dirty((HEAD + GOOD).encode("utf-16"), TWO, encoding="utf-16"),
    "UTF-16 big-endian with BOM": Dirty(b"\xfe\xff" + (HEAD + GOOD).encode("utf-16-be"), TWO, encoding="utf-16"),
    "UTF-16 without BOM": Dirty((HEAD + GOOD).encode("utf-16-le"), TWO, encoding="utf-16-le"),
    "UTF-16 big-endian without BOM": Dirty(
        (HEAD + "1,一一一\n0,太差\n").encode("utf-16-be"), [("一一一", 1, 2), ("太差", 0, 3)], encoding="utf-16-be"
    ),
    "UTF-16 cut off": Dirty((HEAD + GOOD).encode("utf-16")[:-1], message=["UTF-16", "truncated"]),
    "GBK in one row of a UTF-8 file": Dirty(
        (HEAD + "1,可以\n" * 30_000).encode() + "0,很差\n".encode("gbk") + "0,太差\n".encode(),
        [*[("可以", 1, line) for line in range(2, 30_002)], ("太差", 0, 30_003)],
        [(30_002, BROKEN, "0xBA")],
    ),
    "a character cut in two by the end of the file": Dirty(
        (HEAD + "1,很好\n1,好").encode()[:-1], [("很好", 1, 2)], [(3, BROKEN, "0xE5")]
    ),
    "Latin-1": Dirty(
        "label,text\n1,un café\n".encode("latin-1"), message=["line 2", "byte 0xE9", "--encoding"], encoding=None
    ),
    "Latin-1, named": Dirty(
        "label,text\n1,un café\n".encode("latin-1"),
        [("un café", 1, 2)],
        encoding="iso8859-1",
        options=ReadOptions(encoding="latin-1"),
    ),
    "GB18030, named as UTF-8": Dirty(
        (HEAD + GOOD).encode("gb18030"), message=["line 2", "does not fit"], options=ReadOptions(encoding="utf-8")
    ),
    "an image": Dirty(
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)), message=["encoding cannot be detected"]
    ),
    # emptiness
    "empty": Dirty("", message=["The file is empty"]),
    "only a BOM": Dirty(b"\xef\xbb\xbf", message=["The file is empty"]),
    "only blank lines": Dirty("\n\n \n", message=["The file is empty"]),
    "only a header": Dirty(HEAD, message=["a header and no rows"]),
    # structure
    "ragged rows": Dirty(
        HEAD + "1,很好\n1\n0,太差,真的\n0,太差\n1,很好,,\n",
        [("很好", 1, 2), ("太差", 0, 5), ("很好", 1, 6)],
        [(3, BROKEN, "1 cell and the header has 2"), (4, BROKEN, "put the review in double quotes")],
    ),
    "more ragged rows than valid ones": Dirty(
        HEAD + "1,很好，真,好\n" * 2 + "0,太差\n", message=["line 2", "3 cells", "1 more invalid row: line 3"]
    ),
    "embedded line breaks": Dirty(
        HEAD + '1,"第一行\n第二行\r\n第三行"\n\n0,"他说""好"", 真的"\n1,末\u2028尾\x0b\x85\n',
        [("第一行\n第二行\r\n第三行", 1, 2), ('他说"好", 真的', 0, 6), ("末\u2028尾\x0b\x85", 1, 7)],
    ),
    "a 1 MB cell": Dirty(HEAD + f'1,"{LONG}"\n0,太差\n', [(LONG, 1, 2), ("太差", 0, 3)]),
    "an unclosed quote": Dirty(
        HEAD + '1,很好\n0,"差\n1,可以\n0,太差\n',
        [("很好", 1, 2), ("可以", 1, 4), ("太差", 0, 5)],
        [(3, BROKEN, "never closed")],
    ),
    "an unclosed quote, then a closed one": Dirty(
        HEAD + '1,"很好\n0,"太差"\n', [("太差", 0, 3)], [(2, BROKEN, "quotes")]
    ),
    "text after a closing quote": Dirty(
        HEAD + '1,很好\n0,"很差"的店\n', [("很好", 1, 2)], [(3, BROKEN, "must be doubled")]
    ),
    "a quote inside a bare cell": Dirty(HEAD + '1,很"好"\n0,太差\n', [('很"好"', 1, 2), ("太差", 0, 3)]),
    "NUL bytes": Dirty(
        HEAD + "1,很好\n0,差\0劲\n0,太差\n", [("很好", 1, 2), ("太差", 0, 4)], [(3, BROKEN, "NUL byte")]
    ),
    "a NUL byte in the label": Dirty(HEAD + FILLER + "0\0,太差\n", FILLED, [(32, UNKNOWN, "'0\\\\0'")]),
    "duplicate headers": Dirty("label,text,text\n1,a,b\n", message=["'text', 'text'", "a unique name"]),
    "duplicate headers of no importance": Dirty("id,id,label,text\n1,1,1,很好\n", [("很好", 1, 2)]),
    "ambiguous headers": Dirty("label,text,review\n1,a,b\n", message=["'text', 'review'", "--text_column"]),
    "ambiguous headers, named": Dirty(
        "label,text,review\n1,a,b\n", [("b", 1, 2)], options=ReadOptions(text_column="Review")
    ),
    "a column that is not there": Dirty(HEAD + GOOD, message=["'body'"], options=ReadOptions(text_column="body")),
    "no header": Dirty("1,很好\n0,太差\n", message=["line 1", "'1', '很好'", "name the columns"]),
    "no label column": Dirty("text,who\n很好,5\n", message=["line 1", "none of them is a label column"]),
    "semicolons": Dirty("label;text\n1;很好\n0;太差\n", TWO),
    "tabs in a .csv": Dirty("label\ttext\n1\t很好\n0\t太差\n", TWO),
    "tabs and quotes that are no quotes": Dirty(
        'label\ttext\n1\t"很好\n0\t说"差"\n0\t"很"差\n1\t"引""号"\n1\t"两\n行"\n',
        [('"很好', 1, 2), ('说"差"', 0, 3), ('"很"差', 0, 4), ('引"号', 1, 5), ("两\n行", 1, 6)],
        suffix=".tsv",
    ),
    "old line ends": Dirty("label,text\r1,很好\r0,太差\r", TWO),
    # labels
    "mixed labels": Dirty(
        HEAD + "1,可以\n正面,可以\n1.0,可以\npos,可以\n好评,可以\n" + FILLER + "3 stars,中\n,无\n",
        [("可以", 1, line) for line in range(2, 37)],
        [(37, UNKNOWN, "'3 stars'"), (38, MISSING, "missing")],
    ),
    "labels of another task": Dirty(
        HEAD + "1,好\n2,中\n3,中\n" * 9,
        message=["line 3", "18 of 27 labels", "'2' (9 times), '3' (9 times)", "--star_threshold"],
    ),
    "labels in words": Dirty(HEAD + "满意,好\n不满意,差\n", message=["line 2", "'满意' (1 time)", "--label_map"]),
    "labels in words, mapped": Dirty(
        HEAD + "满意,好\n不满意,差\n一般,中\n",
        [("好", 1, 2), ("差", 0, 3)],
        [(4, UNKNOWN, "'一般'")],
        options=ReadOptions(label_map={"满意": "positive", "不满意": "0"}),
    ),
    "a column of stars": Dirty(
        "rating,text\n" + "1,差\n" * 40 + "5,好\n", message=["line 1", "'rating'", "1, 5", "--star_threshold 3"]
    ),
    "stars with a threshold": Dirty(
        "rating,text\n1,差\n4.5,好\n3,中\n五星,好\n★★☆☆☆,差\n5 stars,好\n",
        [("差", 0, 2), ("好", 1, 3), ("好", 1, 5), ("差", 0, 6), ("好", 1, 7)],
        [(4, Reason.MIDDLE_STARS, "'3'")],
        options=ReadOptions(star_threshold=3),
    ),
    "all labels missing": Dirty(HEAD + ",好\n,差\n", message=["line 2", "label is missing", "2 of 2"]),
    "words for missing values": Dirty(
        HEAD + "1,NA\n0,null\n1,None\n0,NaN\n1,#N/A\n0,007\n",
        [("NA", 1, 2), ("null", 0, 3), ("None", 1, 4), ("NaN", 0, 5), ("#N/A", 1, 6), ("007", 0, 7)],
    ),
    "rows without a text": Dirty(
        HEAD + "1,好\n1,\n?,  \n,\n", [("好", 1, 2), ("", 1, 3), ("  ", None, 4), ("", None, 5)]
    ),
    # other formats
    "JSON lines": Dirty(
        '{"text": "很好", "label": 1}\n\n{"text": "差", "label": "0"\n[1]\n{"label": 1}\n{"text": "a", "text": "b"}\n'
        '{"text": "半\\ud83d", "label": 1}\n{"text": ["差"], "label": 0}\n{"text": null, "label": 0}\n'
        '{"label": 0.0, "text": "太差\\u0000"}\n{"label": 0.0, "text": "null"}\n{"label": 1, "text": 5}\n'
        + '{"label": 1, "text": "可以"}\n'
        * 9,
        [("很好", 1, 1), ("", 0, 9), ("null", 0, 11), ("5", 1, 12), *[("可以", 1, line) for line in range(13, 22)]],
        [
            (3, BROKEN, "not JSON"),
            (4, BROKEN, "a JSON list"),
            (5, BROKEN, "no key 'text'"),
            (6, BROKEN, "'text' occurs twice"),
            (7, BROKEN, "half a character (\\ud83d)"),
            (8, BROKEN, "the text is a list"),
            (10, BROKEN, "NUL byte"),
        ],
        suffix=".jsonl",
    ),
    "no JSON lines": Dirty("很好\n太差\n", message=["line 1", "not JSON objects"], suffix=".jsonl"),
    "JSON lines in GB18030": Dirty(
        '{"text": "很好，早餐不错", "label": 1}\n{"text": "太差", "label": 0}\n'.encode("gb18030"),
        [("很好，早餐不错", 1, 1), ("太差", 0, 2)],
        encoding="gb18030",
        suffix=".jsonl",
    ),
    "a JSON list": Dirty(
        '[\n {"text": "很好",\n  "label": 1},\n 7,\n\n {"text": "太差", "label": 0}\n]\n',
        [("很好", 1, 2), ("太差", 0, 6)],
        [(4, BROKEN, "a JSON int")],
        suffix=".json",
    ),
    "a JSON list cut off": Dirty(
        '[{"text": "很好", "label": 1},\n{"te', message=["line 2", "not JSON"], suffix=".json"
    ),
    "JSON lines called .json": Dirty(
        '{"text": "很好", "label": 1}\n{"text": "太差", "label": 0}\n',
        [("很好", 1, 1), ("太差", 0, 2)],
        suffix=".json",
    ),
    "JSON columns": Dirty(
        json.dumps({"text": {"0": "很好", "1": "太差"}, "label": {"0": 1, "1": 0}}),
        [("很好", 1, 1), ("太差", 0, 2)],
        suffix=".json",
    ),
    "JSON of something else": Dirty('{"a": [1], "b": [1, 2]}', message=["cannot be identified"], suffix=".json"),
    "a workbook": Dirty(
        workbook((None,), ("标签", "评论"), (1, "很好"), (), ("负面", "NA"), (1.0, 5), (1, "很好", "?")),
        [("很好", 1, 3), ("NA", 0, 5), ("5", 1, 6)],
        [(7, BROKEN, "cells beyond the 2")],
        encoding=None,
        suffix=".xlsx",
    ),
    "no workbook": Dirty("很好\n太差\n", message=["not an Excel workbook"], suffix=".xlsx"),
    "a broken workbook": Dirty(b"PK\x03\x04" + bytes(99), message=["not an Excel workbook"], suffix=".xlsx"),
    # one kind of file under the name of another
    **{
        f"a workbook called {suffix}": Dirty(
            workbook(("label", "text"), (1, "很好"), (0, "太差")), TWO, encoding=None, suffix=suffix
        )
        for suffix in (".csv", ".CSV", ".txt", ".xls", ".jsonl")
    },
    "Parquet called .csv": Dirty(parquet(text=["好"], label=[1]), [("好", 1, 1)], encoding=None),
    "commas in an .xls": Dirty(HEAD + GOOD, TWO, suffix=".xls"),
    "commas in an .xlsx": Dirty(HEAD + GOOD, TWO, suffix=".xlsx"),
    "tabs in an .xls": Dirty(
        "label\ttext,标签\n1\t很好\n0\t太差\n", TWO, suffix=".xls", options=ReadOptions(text_column="text,标签")
    ),
    "Excel's Unicode text": Dirty(
        "label\ttext\r\n1\t很好\r\n0\t太差\r\n".encode("utf-16"), TWO, encoding="utf-16", suffix=".xls"
    ),
    "GBK in an .xls": Dirty((HEAD + GOOD).encode("gbk"), TWO, encoding="gb18030", suffix=".xls"),
    "a web page called .xls": Dirty(
        "\ufeff<html><table><tr><td>好</td></tr></table>", message=["a web page", "save it as .xlsx"], suffix=".xls"
    ),
    "a web page in UTF-16": Dirty("<HTML>\n".encode("utf-16"), message=["a web page"]),
    "a workbook of 2003 as XML": Dirty(
        '<?xml version="1.0"?>\n<Workbook/>', message=["markup", "save it as .xlsx"], suffix=".xls"
    ),
    "an old workbook called .csv": Dirty(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), message=["workbook in the old format", "password"]
    ),
    "an archive": Dirty(b"PK\x05\x06" + bytes(18), message=["not an Excel workbook", "something else"]),
    "compressed": Dirty(b"\x1f\x8b\x08" + bytes(9), message=["gzip", "unpack"]),
    # the line that tells Excel the delimiter
    **{
        f"{mark + line!r}": Dirty(
            f"{mark}{line}\n" + (HEAD + GOOD).replace(",", sign),
            [(text, label, n + 1) for text, label, n in TWO],
            encoding="utf-8-sig" if mark else "utf-8",
        )
        for line, sign in (
            ("sep=,", ","),
            ("SEP=;", ";"),
            ("sep=\t", "\t"),
            ("Sep=^\r", "^"),
            ('"sep=,"', ","),
            ("sep=;;", ";"),
            ("sep=|", "|"),
        )
        for mark in ("", "\ufeff")
    },
    "sep= alone": Dirty("sep=,\n", message=["The file is empty"]),
    # signs that nobody sees
    "invisible signs": Dirty(
        "\u200blabel\u2060,te\u200dxt,Ｌabel 2\u00ad\n\u200b1 ,很好,\n\ufeff负\u200e面\u00a0,太差,\n",
        TWO,
        options=ReadOptions(label_column="label"),
    ),
    "a label of invisible signs": Dirty(HEAD + GOOD + "\u200b\u00ad,中\n", TWO, [(4, MISSING, "missing")]),
    "an empty workbook": Dirty(workbook(), message=["The workbook is empty"], suffix=".xlsx"),
    "Parquet": Dirty(
        parquet(text=["很好", None, "太差", "None"], label=[1.0, 1.0, 0.0, None], n=[1, 2, 3, 4]),
        [("很好", 1, 1), ("", 1, 2), ("太差", 0, 3)],
        [(4, MISSING, "missing")],
        encoding=None,
        suffix=".parquet",
    ),
    "no Parquet": Dirty("label,text\n1,很好\n", message=["not a Parquet file"], suffix=".parquet"),
    "an old workbook": Dirty(b"\xd0\xcf\x11\xe0", message=["(.xls)", "save it as .xlsx"], suffix=".xls"),
}


def test_there_are_thirty_and_more() -> None:
    assert len(FILES) >= 30


@pytest.mark.parametrize("kind", FILES)
def test_the_right_rows_or_one_clear_message(tmp_path: Path, kind: str) -> None:
    dirty = FILES[kind]
    path = tmp_path / f"reviews{dirty.suffix}"
    path.write_bytes(dirty.content.encode() if isinstance(dirty.content, str) else dirty.content)
    if dirty.message:
        with pytest.raises(DataError) as caught:
            read_source(path, BINARY_SENTIMENT, dirty.options)
        message = caught.value.describe()
        assert caught.value.where.startswith(str(path))
        assert [word for word in dirty.message if word not in message] == []
        assert "\n" not in message
        assert len(message.removeprefix(str(path))) < 600
        return
    result = read_source(path, BINARY_SENTIMENT, dirty.options)
    assert [
        (review.text, review.label, review.source.line) for review in result.reviews if review.source
    ] == dirty.rows
    assert [(row.source.line, row.reason) for row in result.rejected] == [
        (n, reason) for n, reason, _ in dirty.rejected
    ]
    for row, (_, _, word) in zip(result.rejected, dirty.rejected, strict=True):
        assert word in row.detail
        row.text.encode()
    assert [file.n_rows for file in result.inputs] == [len(dirty.rows) + len(dirty.rejected)]
    assert result.encoding == dirty.encoding
    assert all(review.source and review.source.file == str(path) for review in result.reviews)
