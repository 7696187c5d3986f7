"""A small file that is absent, cut off or of another kind is no error: there is nothing to be read in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sentifactory.system.json_text import MAX_DEPTH, DeepJsonError, parse_json, parse_json_at, read_json_object


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


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 101 + "]" * 101, "9" * 5000, '{"a": 1', ""]
)
def test_what_no_parser_of_ours_gets_through_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        parse_json(text)
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json_at(f"  {text}", 2)


def test_what_is_nested_as_deep_as_allowed_is_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json_at(f"x{deep}y", 1)[1] == 1 + len(deep)
    flat = [{"a": [1]}] * MAX_DEPTH  # more brackets than levels
    assert parse_json(json.dumps(flat)) == flat
    with pytest.raises(DeepJsonError):
        parse_json(f"[{deep}]")


@pytest.mark.timeout(10)
def test_a_pipe_that_nobody_writes_to_is_none_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    assert read_json_object(tmp_path / "run.json") is None
