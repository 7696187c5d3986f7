"""The doctor: on an empty folder, on one with everything, and on machines that are not this one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.doctor import machine_checks
from sentifactory.doctor.project_checks import check_data, check_models, check_reports, check_runs
from sentifactory.system.environments import STAMP_NAME, compute_stamp


def write_tool(folder: Path, name: str, output: str, code: int = 0) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {code}\n", encoding="utf-8")
    tool.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize(
    ("row", "status", "has_bf16"),
    [
        ("Tesla T4, 15360, 7.5, 550.54", "note", False),
        ("NVIDIA A100-SXM4-40GB, 40960, 8.0, 550.54", "ok", True),
        ("NVIDIA H100 80GB HBM3, 81559, 9.0, 570.10", "ok", True),
    ],
)
def test_what_a_gpu_can_do(tools: Path, row: str, status: str, has_bf16: bool) -> None:
    write_tool(tools, "nvidia-smi", row)
    found = machine_checks.check_gpu()
    assert found.status == status
    assert found.facts["has_bf16"] is has_bf16
    assert row.split(",")[0] in found.summary
    assert ("bf16=false fp16=true" in found.next_step) is not has_bf16


def test_one_old_chip_among_new_ones_decides(tools: Path) -> None:
    write_tool(tools, "nvidia-smi", "NVIDIA A100, 40960, 8.0, 1\nTesla T4, 15360, 7.5, 1")
    assert machine_checks.check_gpu().facts["has_bf16"] is False


@pytest.mark.parametrize(("output", "code"), [("NVIDIA-SMI has failed", 9), ("", 0), ("odd words", 0)])
def test_a_driver_that_does_not_answer_is_no_gpu(tools: Path, output: str, code: int) -> None:
    write_tool(tools, "nvidia-smi", output, code)
    assert machine_checks.check_gpu().facts["gpus"] == []


def test_a_chip_that_does_not_say_what_it_can_is_not_trusted_with_bf16(tools: Path) -> None:
    write_tool(tools, "nvidia-smi", "Some GPU, [N/A], [N/A], 1")
    assert machine_checks.check_gpu().facts["has_bf16"] is False


def test_an_environment_that_the_lock_has_moved_away_from(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    for name in ("bootstrap.txt", "train.txt"):
        (tmp_path / "requirements" / name).write_text("x")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".venv").mkdir()
    assert machine_checks.check_training(tmp_path).next_step == "make setup"
    (tmp_path / ".venv" / STAMP_NAME).write_text(compute_stamp("train", tmp_path))
    assert machine_checks.check_training(tmp_path).status == "ok"
    (tmp_path / "requirements" / "train.txt").write_text("y")
    assert machine_checks.check_training(tmp_path).status == "note"


def test_without_vllm_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTIFACTORY_VLLM_PYTHON", str(tmp_path / "none"))
    found = machine_checks.check_vllm(tmp_path)
    assert found.status == "missing"
    assert found.next_step
    monkeypatch.setenv("SENTIFACTORY_VLLM", "none")
    assert machine_checks.check_vllm(tmp_path).status == "note"


def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretverysecret")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = machine_checks.check_hub()
    assert "verysecret" not in json.dumps(found.to_dict())
    assert found.facts["has_token"]
    assert found.facts["endpoint"] == "https://mirror.example"
    assert found.status == "note"


def test_a_way_to_the_hub_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "me:secret@mirror.example")
    found = machine_checks.check_hub()
    assert found.status == "note"
    assert "HF_ENDPOINT=https://mirror.example," in found.next_step
    assert "secret" not in json.dumps(found.to_dict())


def test_an_empty_folder_lacks_everything_and_names_the_commands(tmp_path: Path) -> None:
    for check, command in (
        (check_models, "sentifactory model fetch"),
        (check_data, "sentifactory data prepare"),
        (check_runs, "sentifactory train"),
        (check_reports, "sentifactory eval compare"),
    ):
        found = check(tmp_path)
        assert found.status == "missing"
        assert command in found.next_step


def test_reviews_that_are_there_and_those_that_lost_a_file(tmp_path: Path) -> None:
    rows = [f"{number % 2},第{number}条评论说得很清楚{number * 31}" for number in range(60)]
    (tmp_path / "mine.csv").write_text("label,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    prepare_reviews(str(tmp_path / "mine.csv"), output_dir=tmp_path / "data", val_size=6, test_size=6)
    found = check_data(tmp_path)
    assert found.status == "ok"
    assert found.facts["data"]["mine"]["test"] == 6
    (tmp_path / "data" / "mine" / "train.jsonl").unlink()
    found = check_data(tmp_path)
    assert found.status == "missing"
    assert "train.jsonl" in found.summary


def test_runs_by_their_status(tmp_path: Path) -> None:
    for name, status in (("one", "finished"), ("two", "interrupted")):
        folder = tmp_path / "saves" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"status": status}))
    export = tmp_path / "saves" / "one-gguf"
    shutil.copytree(tmp_path / "saves" / "one", export)
    (export / "sentifactory_export.json").write_text(json.dumps({"kind": "gguf"}))
    found = check_runs(tmp_path)
    assert found.facts["runs"] == {"saves/one": "finished", "saves/two": "interrupted"}
    assert found.status == "note"


def test_a_pretrained_model_that_was_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "saves" / "pretrained" / "gemma-3-270m"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"half")
    found = check_models(tmp_path)
    assert found.status == "missing"
    assert "sentifactory model fetch gemma-3-270m" in found.next_step


def test_the_command_prints_json_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = json.loads(CliRunner().invoke(build_app(), ["doctor", "--json"]).stdout)
    topics = [finding["topic"] for finding in result["findings"]]
    assert topics[:4] == ["machine", "gpu", "training", "vllm"]
    assert result["is_ready"] is False
    assert all(finding["next_step"] for finding in result["findings"] if finding["status"] == "missing")
