"""Files that `label` does not read are named for what they are, before any model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sentifactory.errors import DataError
from sentifactory.serving.labelling.row_files import open_rows

ROWS = [{"text": "很好", "label": 1}, {"text": "太差", "label": 0}]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_a_json_document_under_another_name_is_told(tmp_path: Path, name: str, indent: int | None) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(ROWS, ensure_ascii=False, indent=indent), encoding="utf-8")
    with pytest.raises(DataError, match="JSON") as caught:
        open_rows(path, None, None)
    assert ".jsonl" in caught.value.next_step


def test_lines_of_json_are_rows_under_their_own_name_alone(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    open_rows(tmp_path / "a.jsonl", None, None)
    (tmp_path / "a.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(DataError, match="JSON"):
        open_rows(tmp_path / "a.txt", None, None)
