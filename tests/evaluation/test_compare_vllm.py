"""The script against real vLLM processes: two servers, one after the other, and nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
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


def list_vllm_processes() -> set[int]:
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if "vllm.entrypoints" in " ".join(process.info["cmdline"] or []):
            found.add(process.pid)
    return found


@pytest.mark.slow
@pytest.mark.vllm
def test_the_script_compares_through_vllm(repo_root: Path, tmp_path: Path, gemma_checkpoint: Path) -> None:
    """The same checkpoint on both sides must give the same answers: greedy decoding, twice in a row."""
    before = list_vllm_processes()
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
    assert "accuracy" in finished.stdout
    assert list_vllm_processes() <= before
