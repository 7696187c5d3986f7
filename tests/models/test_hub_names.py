"""A name that no hub can have is refused in one sentence, before any network is asked, wherever a name is taken."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer import Exit

from sentifactory.cli import build_app, run_guarded
from sentifactory.system.network_settings import is_hub_id

pytestmark = pytest.mark.slow

NAMES = [
    "a/b/c", "..//x", "../x", "/no/such", "a/", "/b", "a/my model", "a/b\nc", "a/b\0c", "a" * 10_000,
    "a/" + "b" * 10_000, "a/..", "a/b--c", "-a/b", "a/b.", "名/字", "a/b?x=1", "a@b/c", "a/b.git", " a/b",
    "~nobody/b/c",
]  # fmt: skip
COMMANDS = [
    ["predict", "很好", "--model", "{}"],
    ["predict", "很好", "--model", "{}", "--engine", "encoder"],
    ["predict", "很好", "--model", "{}", "--engine", "transformers"],
    ["label", "rows.csv", "out.csv", "--model", "{}", "--engine", "encoder"],
    ["serve", "{}", "--engine", "encoder", "--port", "0"],
    ["eval", "compare", "--csv_path", "rows.csv", "--base_model", "{}", "--finetuned_model", "{}", "--engine", "auto"],
    ["distill", "--teacher", "{}", "--engine", "encoder", "--input_file", "rows.csv", "--output_file", "s.jsonl"],
    ["export", "onnx", "{}", "--val_path", "rows.csv", "--output_dir", "new"],
    ["export", "dtype", "{}", "--val_path", "rows.csv", "--output_dir", "new"],
    ["publish", ".", "--repo_id", "{}", "--dry_run"],
    ["model", "fetch", "{}"],
    ["data", "prepare", "hf:{}", "--name", "a"],
    ["train", "encoder.yaml", "model_name_or_path='{}'"],
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_no_hub_is_asked_for_what_is_no_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **_: asked.append(given))
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text,label\n" + "".join(f"第{at}次很好,{at % 2}\n" for at in range(40)), "utf-8")
    Path("encoder.yaml").write_text("stage: encoder\ndataset: rows.csv\noutput_dir: out\n")
    before = sorted(Path().iterdir())
    assert not is_hub_id(name)
    for command in COMMANDS:
        words = [word.format(name) for word in command]
        with pytest.raises((SystemExit, Exit)) as stop:
            run_guarded(lambda words=words: build_app()(words))
        told = capsys.readouterr().err
        assert stop.value.code == 2, (words[:4], told[-1500:])
        assert told.splitlines()[-1].startswith("Error: "), words[:4]
        assert len(told) < 3000, words[:4]
    assert asked == []
    assert sorted(Path().iterdir()) == before
