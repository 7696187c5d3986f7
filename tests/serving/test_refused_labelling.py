"""A labelling that is refused leaves nothing: no journal, no folder, no part of an output."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_comparison import write_reviews
from typer.testing import CliRunner

from sentifactory.cli import build_app

TFIDF = ("--model", "train.csv", "--engine", "tfidf")


@pytest.mark.parametrize(
    "words",
    [
        ("missing.csv", "made/out.csv", *TFIDF),
        ("broken.csv", "made/out.csv", *TFIDF),
        ("other.csv", "made/out.csv", *TFIDF),
        ("in.csv", "made/out.csv", *TFIDF, "--text_column", "nowhere"),
        ("in.csv", "made/out.csv", "--model", "nowhere"),
        ("in.csv", "made/out.csv", "--model", "three.csv", "--engine", "tfidf"),
        ("in.csv", "made/out.csv", *TFIDF, "--task", "no_such_task"),
        ("in.csv", "made/out.csv", *TFIDF, "--threshold", "7"),
        ("in.csv", "made/out.tsv", *TFIDF),
        ("in.csv", "in.csv", *TFIDF),
        ("in.csv", "in.csv/out.csv", *TFIDF),
        ("in.csv", "/proc/out.csv", *TFIDF),
    ],
)
def test_nothing_is_left(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "in.csv", [(0, "又差又旧"), (1, "很好很新")])
    write_reviews(tmp_path / "train.csv", [(row % 2, f"{'差好'[row % 2]}{row}") for row in range(20)])
    write_reviews(tmp_path / "three.csv", [(("差评", "中评", "好评")[row % 3], f"话{row}") for row in range(30)])
    (tmp_path / "broken.csv").write_bytes(b"PK\x00\x01\xff\xfe")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = CliRunner().invoke(build_app(), ["label", *words])
    assert getattr(result.exception, "exit_code", None) == 2, result.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "made").exists()
