"""A small file that is absent, cut off or of another kind is no error: there is nothing to be read in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.json_object import read_json_object


@pytest.mark.parametrize("content", [b'{"a": ', b'["a"]', b"1", b"", b"\xff\xfe{}", b"[" * 100_000])
def test_what_is_no_object_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(content)
    assert read_json_object(file) is None


def test_an_object_is_read_and_what_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"标签": {"a": null}}', encoding="utf-8")
    assert read_json_object(tmp_path / "run.json") == {"标签": {"a": None}}
    assert read_json_object(tmp_path / "gone.json") is None
    assert read_json_object(tmp_path) is None
