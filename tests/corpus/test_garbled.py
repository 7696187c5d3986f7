"""Garbled and escaped texts are told with their share, and sound texts of many languages are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sentifactory.corpus.findings import BAD, NOTE, build_findings
from sentifactory.corpus.garbled import ESCAPED, GARBLED, describe_garbled, judge_text
from sentifactory.corpus.inspected import load_inspected
from sentifactory.corpus.picture import PictureOptions, build_picture
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.corpus.summary import summarise_manifest
from sentifactory.records import Review, Source

SOUND = "房间很干净，早餐也不错，下次还来"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SOUND.encode().decode("gbk", "replace"), GARBLED),
        (SOUND.encode().decode("gbk", "ignore"), GARBLED),
        (SOUND.encode().decode("latin-1"), GARBLED),
        (SOUND.encode().decode("cp1252", "ignore"), GARBLED),
        (SOUND.encode("gbk").decode("latin-1"), GARBLED),
        (SOUND.encode("gbk").decode("utf-8", "replace"), GARBLED),
        ("锟斤拷锟斤拷", GARBLED),
        ("很好\ufffd", GARBLED),
        ("I donâ€™t like it", GARBLED),
        ("CafÃ© trÃ¨s bon", GARBLED),
        (SOUND.encode("unicode_escape").decode(), ESCAPED),
        (r"房间\u4e0d错", ESCAPED),
        (r"\xe5\xa5\xbd", ESCAPED),
    ],
)
def test_what_is_told(text: str, kind: str) -> None:
    assert judge_text(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        SOUND,
        "房間很乾淨，服務態度也好",
        "鐨的鏄是",
        "25°C ±3×4 · 房间·大",
        "Très bon hôtel, «CAFÉ» déjà vu… « É »",
        "CAFÉ… São Paulo",
        "größer schön für ÄÖÜ",
        "Phòng sạch, nhân viên thân thiện à á â ã",
        "Привет Ελληνικά 한국어 日本語",
        r"C:\users\abc \n \x41",
        "🏨👍🏽",
        "",
    ],
)
def test_what_is_not(text: str) -> None:
    assert judge_text(text) is None


def test_share_and_first_place() -> None:
    texts = [SOUND, "锟斤拷", r"\u597d", "锟斤拷", SOUND]
    found = describe_garbled(Review(text, 1, Source("a.csv", line)) for line, text in enumerate(texts, start=2))
    assert found == {
        GARBLED: {"rows": 2, "of": 5, "first": "a.csv, line 3"},
        ESCAPED: {"rows": 1, "of": 5, "first": "a.csv, line 4"},
    }


@pytest.mark.parametrize(("n_garbled", "kind"), [(1, NOTE), (10, BAD), (0, None)])
def test_they_are_told_in_manifest_summary_and_picture(tmp_path: Path, n_garbled: int, kind: str | None) -> None:
    path = tmp_path / "reviews.csv"
    texts = [f"{number * 7919}号店{'好吃' if number % 2 else '难吃'}{number}" for number in range(40)]
    texts[:n_garbled] = [text.encode().decode("latin-1") for text in texts[:n_garbled]]
    rows = [{"label": number % 2, "text": text} for number, text in enumerate(texts)]
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    manifest = prepare_reviews(str(path), name="set", output_dir=tmp_path / "data", val_size=0, test_size=0)
    told = {GARBLED: {"rows": n_garbled, "of": 40, "first": f"{path}, line 1"}} if n_garbled else {}
    assert manifest.get("suspect_texts", {}) == told
    assert ("Warning" in summarise_manifest(manifest, "data")) == bool(n_garbled)
    picture = build_picture(load_inspected(str(path)), PictureOptions(has_doubt=False))
    assert picture["suspect_texts"] == told
    found = [one for one in build_findings(picture)["sentences"] if "mojibake" in one["en"]]
    assert [one["kind"] for one in found] == ([kind] if kind else [])
    assert all("乱码" in one["zh"] for one in found)
