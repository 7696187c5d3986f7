"""The check of a GPU runs end to end on the CPU at the small shape, and loses no row to a part that fails or hangs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tools.gpu_check import gpu_check
from tools.gpu_check.check_parts import FAILED, MEASURED, NOT_MEASURED, PARTS, CheckPart
from tools.gpu_check.gpu_check_report import GRADIENT_GOAL, LOSS_GOAL, ROWS, WEIGHT_GOAL, write_report, write_rows
from tools.gpu_check.measure import SAVE_STEPS, SMALL_STEPS
from tools.gpu_check.wheels import (
    ALONE,
    IMAGE,
    LIMIT_BYTES,
    NEEDED,
    find_wheels,
    list_missing,
    list_required,
    read_lock,
    write_table,
)


@pytest.mark.slow
def test_every_part_but_those_of_cuda_runs_here(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo_root)
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: None)
    reports: list[str] = []
    patient = [CheckPart(part.name, 600, part.after, part.needs_cuda) for part in PARTS]
    report = gpu_check.run_check(
        tmp_path, is_small=True, limit_s=3600, parts=patient, follow=lambda one: reports.append(json.dumps(one))
    )
    parts = report["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {
        part.name: NOT_MEASURED if part.needs_cuda else MEASURED for part in PARTS
    }, [part.get("log") for part in parts.values()]
    assert parts["fp16"]["note"] == "no CUDA GPU"
    values = {name: part["values"] for name, part in parts.items() if "values" in part}
    for name in ("stock", "ours"):
        assert len(values[name]["losses"]) == SMALL_STEPS
        assert min(values[name]["samples_per_s"], values[name]["peak_bytes"]) > 0
    assert values["stock"]["accelerations"] == []
    assert len(values["ours"]["accelerations"]) >= 4
    assert values["ours"]["losses"] == pytest.approx(values["stock"]["losses"], abs=2**-8)  # bf16
    assert values["exactness"].keys() == {"Qwen2", "Gemma3", "Llama"}
    for gaps in values["exactness"].values():
        assert gaps["loss"] <= LOSS_GOAL
        assert gaps["gradients"] <= GRADIENT_GOAL
        assert gaps["weights"] <= WEIGHT_GOAL
    assert math.isfinite(values["qlora"]["loss"])
    assert SAVE_STEPS < values["kill"]["killed_at"] < SMALL_STEPS
    assert values["kill"]["continued_from"] in ("checkpoint-4", "checkpoint-8")
    assert (values["kill"]["exit_code"], values["kill"]["weights"]) == (0, 0)
    assert (values["processes"]["exit_codes"], values["processes"]["processes"]) == ([0, 0], 2)
    assert len(values["processes"]["accelerations"]) >= 4
    assert values["processes"]["loss"] <= 2**-8
    assert len(reports) == len(PARTS) + 1
    text = write_report(report, "zh")
    assert text.count("未测") == 1
    assert text.count("\n| ") == len(ROWS) + 1 + SMALL_STEPS + 2


def test_a_part_that_fails_or_hangs_costs_its_own_rows(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo_root)
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: {"name": "a GPU", "memory_bytes": 1, "count": 1})
    driver = tmp_path / "tools.py"
    driver.write_text("")
    fake = tmp_path / "python"
    # Stands for the interpreter: the third word is the part, and the fourth the folder.
    fake.write_text(
        "#!/bin/sh\n"
        'case "$3" in\n'
        '  model) echo \'{"seconds": 1}\' > "$4/model.json" ;;\n'
        "  stock) sleep 60 & wait ;;\n"
        "  ours) kill -SEGV $$ ;;\n"
        "  exactness) echo \"ModuleNotFoundError: No module named 'x'\" >&2; exit 1 ;;\n"
        "  *) echo 'ValueError: wrong' >&2; exit 1 ;;\n"
        "esac\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(gpu_check.sys, "executable", str(fake))
    parts = [CheckPart("model", 30), CheckPart("stock", 0.5), CheckPart("ours", 30), CheckPart("exactness", 30)]
    parts += [CheckPart("qlora", 30), CheckPart("fp16", 30, after="stock"), CheckPart("kill", 30)]
    report = gpu_check.run_check(tmp_path, is_small=False, limit_s=20, parts=parts)
    status = {name: part["status"] for name, part in report["parts"].items()}
    assert status == {
        "model": MEASURED, "stock": FAILED, "ours": FAILED, "exactness": NOT_MEASURED, "qlora": FAILED,
        "fp16": NOT_MEASURED, "kill": FAILED,
    }  # fmt: skip
    assert report["parts"]["qlora"]["note"] == "ValueError: wrong"
    assert report["parts"]["ours"]["exit_code"] == -11
    late = gpu_check.run_check(tmp_path, is_small=False, limit_s=0, parts=parts)
    assert {part["note"] for part in late["parts"].values() if "model" not in part["note"]} == {
        "the time was over", "the part stock has not been measured",
    }  # fmt: skip
    assert len(write_rows(late, "en")) == len(ROWS) + 2


def test_without_a_gpu_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: None)
    gpu_check.check_gpu(tmp_path, 8.0, small=False)
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    assert {part["status"] for part in report["parts"].values()} == {NOT_MEASURED}
    assert (tmp_path / "gpu_check.md").read_text().count("not measured") == len(ROWS)


def test_what_an_image_has_is_left_out(repo_root: Path) -> None:
    plain: dict[str, Any] = dict.fromkeys(list_required(IMAGE))
    missing = list_missing(plain)
    assert {"llamafactory", "transformers", "datasets", "pydantic-core"} <= set(missing)
    assert not {"torch", "numpy", "pandas", "pyarrow", "gradio", "av"} & set(missing)
    assert missing == sorted(read_lock((repo_root / "requirements" / "train.txt").read_text()).keys() & set(missing))
    other = {**plain, "transformers": "5.17.0", "datasets": "3.1.0", "tqdm": "4.70.0", "peft": None}
    left = set(list_missing(other))
    assert "transformers" in left  # LLaMA-Factory refuses it
    assert not {"datasets", "tqdm", "peft"} & left


def test_the_largest_come_first_and_the_rest_in_one_row() -> None:
    wheels = [{"name": "a", "version": "1", "size_bytes": 2_000_000}, {"name": "b", "version": "2", "size_bytes": 4}]
    table = write_table({"wheels": wheels, "size_bytes": 2_000_004}, "en").splitlines()
    assert table[2:] == ["| a | 1 | 2.0 |", "| 1 others |  | 0.0 |", "| together |  | 2.0 |"]


@pytest.mark.slow
@pytest.mark.repetition
def test_the_registry_tells_the_sizes(repo_root: Path) -> None:
    lock = read_lock((repo_root / "requirements" / "train.txt").read_text())
    wheels = find_wheels(list_missing(dict.fromkeys(list_required(IMAGE))), lock, "3.12")
    assert 20e6 < sum(wheel.size_bytes for wheel in wheels) <= LIMIT_BYTES


@pytest.mark.slow
def test_the_listed_packages_are_enough(tmp_path: Path, repo_root: Path) -> None:
    """A step is trained in an environment of links to these packages and to those of the image alone."""
    site, folder = tmp_path / "site", tmp_path / "check"
    site.mkdir()
    folder.mkdir()
    for name in sorted(list_required(IMAGE) | list_required(NEEDED) | set(ALONE)):
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # not for this system
            continue
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    paths = os.pathsep.join(map(str, (repo_root / "src", repo_root, site)))
    for part in ("model", "ours"):
        done = subprocess.run(
            [sys.executable, "-S", "-m", "tools.gpu_check.measure", part, folder, "--small"],
            cwd=repo_root, env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    assert sysconfig.get_path("purelib") not in paths
    assert len(json.loads((folder / "ours.json").read_text())["losses"]) == SMALL_STEPS
