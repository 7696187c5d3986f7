"""Garbled and escaped texts are counted, and valid texts of many languages are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sentifactory.corpus.dataset.manifest import summarise_manifest
from sentifactory.corpus.files.garbled_text import ESCAPED, GARBLED, classify_text, describe_garbled
from sentifactory.corpus.inspection.data_profile import ProfileOptions, build_profile
from sentifactory.corpus.inspection.findings import BAD, NOTE, build_findings
from sentifactory.corpus.inspection.loaded_data import load_inspected
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.records import Review, Source

VALID = "房间很干净，早餐也不错，下次还来"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (VALID.encode().decode("gbk", "replace"), GARBLED),
        (VALID.encode().decode("gbk", "ignore"), GARBLED),
        (VALID.encode().decode("latin-1"), GARBLED),
        (VALID.encode().decode("cp1252", "ignore"), GARBLED),
        (VALID.encode("gbk").decode("latin-1"), GARBLED),
        (VALID.encode("gbk").decode("utf-8", "replace"), GARBLED),
        ("锟斤拷锟斤拷", GARBLED),
        ("很好\ufffd", GARBLED),
        ("I donâ€™t like it", GARBLED),
        ("CafÃ© trÃ¨s bon", GARBLED),
        (VALID.encode("unicode_escape").decode(), ESCAPED),
        (r"房间\u4e0d错", ESCAPED),
        (r"\xe5\xa5\xbd", ESCAPED),
    ],
)
def test_garbled_texts(text: str, kind: str) -> None:
    assert classify_text(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        VALID,
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
def test_valid_texts_are_not_garbled(text: str) -> None:
    assert classify_text(text) is None


def test_share_and_first_place() -> None:
    texts = [VALID, "锟斤拷", r"\u597d", "锟斤拷", VALID]
    found = describe_garbled(Review(text, 1, Source("a.csv", line)) for line, text in enumerate(texts, start=2))
    assert found == {
        GARBLED: {"rows": 2, "of": 5, "first": "a.csv, line 3"},
        ESCAPED: {"rows": 1, "of": 5, "first": "a.csv, line 4"},
    }


@pytest.mark.parametrize(("n_garbled", "kind"), [(1, NOTE), (10, BAD), (0, None)])
def test_garbled_texts_are_in_manifest_summary_and_profile(tmp_path: Path, n_garbled: int, kind: str | None) -> None:
    path = tmp_path / "reviews.csv"
    texts = [f"{number * 7919}号店{'好吃' if number % 2 else '难吃'}{number}" for number in range(40)]
    texts[:n_garbled] = [text.encode().decode("latin-1") for text in texts[:n_garbled]]
    rows = [{"label": number % 2, "text": text} for number, text in enumerate(texts)]
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    manifest = prepare_reviews(str(path), name="set", output_dir=tmp_path / "data", val_size=0, test_size=0)
    expected = {GARBLED: {"rows": n_garbled, "of": 40, "first": f"{path}, line 1"}} if n_garbled else {}
    assert manifest.get("suspect_texts", {}) == expected
    assert ("Warning" in summarise_manifest(manifest, "data")) == bool(n_garbled)
    profile = build_profile(load_inspected(str(path)), ProfileOptions(has_doubt=False))
    assert profile["suspect_texts"] == expected
    found = [one for one in build_findings(profile)["sentences"] if "mojibake" in one["en"]]
    assert [one["kind"] for one in found] == ([kind] if kind else [])
    assert all("乱码" in one["zh"] for one in found)
