"""The script as a user runs it: real engines on a tiny model, and the mistakes people make."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_comparison import TEST_ROWS, write_model, write_reviews

pytestmark = pytest.mark.slow


def run_script(repo_root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = repo_root / "scripts" / "eval_sentiment_compare.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_two_real_models_on_transformers(repo_root: Path, tmp_path: Path, short_gemma: Path) -> None:
    """A random model answers nonsense: the report says so, and says the same on a second run."""
    write_reviews(tmp_path / "test.csv", TEST_ROWS)
    write_reviews(tmp_path / "train.csv", [(i % 2, f"第{i}条训练评论") for i in range(20)])
    arguments = ["--csv_path", "test.csv", "--base_model", str(short_gemma), "--finetuned_model", str(short_gemma)]
    arguments += [
        "--engine",
        "transformers",
        "--max_samples",
        "4",
        "--train_csv",
        "train.csv",
        "--max_new_tokens",
        "8",
    ]
    first = run_script(repo_root, tmp_path, *arguments, "--json", "--output_file", "out/report.json")
    assert first.returncode == 0, first.stderr
    printed = json.loads(first.stdout)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert printed == {key: value for key, value in report.items() if key != "predictions"}
    assert len(report["predictions"]) == 4
    assert [row["base"]["raw"] for row in report["predictions"]] == [
        row["tuned"]["raw"] for row in report["predictions"]
    ]
    assert any(row["base"]["raw"] for row in report["predictions"])
    assert report["verdict"]["winner"] != "tuned"
    assert report["paired_tests"]["tuned_vs_base"]["difference"] == 0
    assert "eval_sentiment_compare.py --csv_path test.csv" in report["command"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_leak_is_one_sentence_and_exit_code_3(repo_root: Path, tmp_path: Path) -> None:
    write_reviews(tmp_path / "test.csv", TEST_ROWS)
    write_model(tmp_path / "model")
    words = [
        "--csv_path",
        "test.csv",
        "--base_model",
        "model",
        "--finetuned_model",
        "model",
        "--engine",
        "transformers",
    ]
    finished = run_script(repo_root, tmp_path, *words, "--train_file", "test.csv", "--output_file", "out/report.json")
    assert (finished.returncode, finished.stdout) == (3, "")
    (error,) = [line for line in finished.stderr.splitlines() if line.startswith("Error: ")]
    assert "6 of the 6 test reviews are among the 6 training reviews" in error
    assert "test.csv, line 2 duplicates test.csv, line 2 (exact" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--csv_path": "missing.csv"}, "missing.csv"),
        ({"--base_model": "no/such/model"}, "no/such/model"),
        ({"--finetuned_model": "empty"}, "empty"),
        ({"--max_samples": "0"}, "--max_samples is 0"),
        ({"--output_file": "test.csv/report.json"}, "test.csv/report.json"),
        ({"--output_file": "/proc/none/report.json"}, "/proc/none/report.json"),
        ({"--output_file": "empty"}, "ends in .json"),
        ({"--engine": "nonsense"}, "nonsense"),
        ({"--csv_path": "labels.csv"}, "labels.csv, line 3"),
        ({"--engine": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    repo_root: Path, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    write_reviews(tmp_path / "test.csv", TEST_ROWS)
    write_reviews(tmp_path / "labels.csv", [(1, "好"), ("maybe", "不知道")])
    write_model(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    options = {
        "--csv_path": "test.csv",
        "--base_model": "model",
        "--finetuned_model": "model",
        "--engine": "transformers",
        "--output_file": "out/report.json",
        **changes,
    }
    before = list_files(tmp_path)
    finished = run_script(repo_root, tmp_path, *(word for pair in options.items() for word in pair))
    assert finished.returncode == 2, finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""
    assert list_files(tmp_path) == before
