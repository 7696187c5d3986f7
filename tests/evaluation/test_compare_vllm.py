"""The script against real vLLM processes: two servers, one after the other, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest
from scripted_comparison import write_reviews

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


@pytest.mark.slow
@pytest.mark.vllm
def test_the_script_compares_through_vllm(repo_root: Path, tmp_path: Path, gemma_checkpoint: Path) -> None:
    """The same checkpoint on both sides must give the same answers: greedy decoding, twice in a row."""
    mark = uuid.uuid4().hex
    shared_memory = Path("/dev/shm")
    before = {entry.name for entry in shared_memory.glob("psm_*")}
    write_reviews(tmp_path / "test.csv", ROWS)
    finished = subprocess.run(
        [
            sys.executable,
            "scripts/eval_sentiment_compare.py",
            *("--csv_path", str(tmp_path / "test.csv")),
            *("--base_model", str(gemma_checkpoint)),
            *("--finetuned_model", str(gemma_checkpoint)),
            *("--output_file", str(tmp_path / "report.json")),
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
    assert all(row["base"]["raw"] for row in report["predictions"])
    assert [row["base"]["raw"] for row in report["predictions"]] == [
        row["tuned"]["raw"] for row in report["predictions"]
    ]
    assert report["settings"]["engines"] == {"base": "vllm", "tuned": "vllm"}
    assert report["versions"]["vllm"]
    assert report["models"]["base"]["reviews_per_s"] > 0
    assert "Accuracy" in finished.stdout
    assert find_marked(mark) == []
    assert {entry.name for entry in shared_memory.glob("psm_*")} <= before
