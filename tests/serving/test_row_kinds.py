"""Files that `label` does not read are named for what they are, before any model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sentifactory.corpus.files.json_files import HEADER_ROWS
from sentifactory.errors import DataError
from sentifactory.serving.labelling.row_files import Answer, WholeRow, open_rows

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


def test_a_key_of_a_late_object_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    objects = [*({"text": f"第{number}条"} for number in range(HEADER_ROWS + 1)), ROWS[0] | {"model": "手机"}]
    path.write_text("".join(json.dumps(one) + "\n" for one in objects), encoding="utf-8")
    rows = open_rows(path, None, None)
    assert rows.added == ("predicted_label", "probability", "predicted_model")
    last = [row for row in rows.iter_rows() if isinstance(row, WholeRow)][-1]
    written = json.loads(rows.encode([last], [Answer("差", 0.5, "m")]))
    assert written == {**objects[-1], "predicted_label": "差", "probability": 0.5, "predicted_model": "m"}


@pytest.mark.parametrize("number", ["1e400", "3.14159265358979323846264338327950288", "1E5", "-0.0", "1.50"])
def test_what_stands_in_json_lines_stays_as_it_is_written(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.jsonl"
    line = f'{{"n":{number},  "text": "\\u597d", "half": "\\ud83d" }}'
    path.write_text(f"{line}\r\n", encoding="utf-8", newline="")
    rows = open_rows(path, None, None)
    written = rows.encode([row for row in rows.iter_rows() if isinstance(row, WholeRow)], [Answer("差", None, "模")])
    assert written.decode() == f'{line[:-1]}, "label": "差", "probability": null, "model": "模"}}\r\n'


def test_bytes_that_are_no_text_become_escapes_of_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "很好", "note": "caf'.encode() + b'\xe9"}\n')
    rows = open_rows(path, None, "utf-8")
    written = rows.encode([row for row in rows.iter_rows() if isinstance(row, WholeRow)], [Answer("差", None, "m")])
    assert json.loads(written)["note"] == "caf\udce9"
