"""The script against real vLLM processes: two servers, one after the other, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import psutil
import pytest
from scripted_comparison import write_reviews
from tiny_models import link_model

ROWS = [
    (1, "酒店位置很好，房间干净，服务员热情，下次还会来"),
    (0, "房间又小又脏，隔音极差，再也不会来了"),
    (1, "这本书写得非常好，值得一读"),
    (0, "电脑用了三天就坏了，售后态度恶劣"),
    (1, "早餐丰富，交通方便"),
    (0, "内容空洞，浪费钱"),
    (1, "性价比高，速度快，很满意"),
    (0, "服务态度太差，非常失望"),
]


def find_marked(mark: str) -> list[str]:
    """The processes that carry a mark in their environment: whatever the script started, and what that started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SENTIFACTORY_TEST_MARK") == mark:
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found


def list_shared_memory() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").glob("psm_*")}


def is_mapped(name: str) -> bool:
    """Return whether a process uses this shared memory: a vLLM of another test, started in the meantime."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if name in maps.read_text(encoding="utf-8", errors="replace"):
                return True
    return False


@pytest.mark.slow
@pytest.mark.vllm
def test_the_script_compares_through_vllm(repo_root: Path, tmp_path: Path, gemma_checkpoint: Path) -> None:
    """The same checkpoint on both sides must give the same answers; each server is asked twice and started once."""
    mark = uuid.uuid4().hex
    before = list_shared_memory()
    write_reviews(tmp_path / "test.csv", ROWS)
    write_reviews(tmp_path / "train.csv", [(label, f"第{n}次{text[:12]}") for n, (label, text) in enumerate(ROWS)])
    tuned = link_model(gemma_checkpoint, tmp_path / "tuned")
    finished = subprocess.run(
        [
            sys.executable,
            "scripts/eval_sentiment_compare.py",
            *("--csv_path", str(tmp_path / "test.csv")),
            *("--base_model", str(gemma_checkpoint)),
            *("--finetuned_model", str(tuned)),
            *("--output_file", str(tmp_path / "report.json")),
            *("--mode", "score", "--train_csv", str(tmp_path / "train.csv"), "--shots", "1"),
            *("--written_samples", "4"),
        ],
        cwd=repo_root,
        env={**os.environ, "SENTIFACTORY_TEST_MARK": mark},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [row["text"] for row in report["predictions"]] == [text for _, text in ROWS]
    base, few_shot, tuned_ones = (
        [row[name]["probabilities"] for row in report["predictions"]] for name in ("base", "few_shot", "tuned")
    )
    assert np.allclose(base, tuned_ones, atol=1e-4)
    assert not np.allclose(base, few_shot, atol=1e-2)
    assert report["written"]["reviews"] == 4
    assert all(reply["raw"] for reply in report["written"]["replies"])
    assert set(re.findall(r"Starting vLLM for (\w+)", finished.stderr)) == {"base", "tuned"}
    assert report["settings"]["engines"] == {"base": "vllm", "tuned": "vllm"}
    assert report["versions"]["vllm"]
    assert report["models"]["base"]["reviews_per_s"] > 0
    assert "Accuracy" in finished.stdout
    assert find_marked(mark) == []
    assert [name for name in list_shared_memory() - before if not is_mapped(name)] == []
