"""The command and the script as a user runs them: summary on stdout, one sentence on stderr, exit code 0 or 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = [sys.executable, str(ROOT / "scripts" / "convert_chnsenticorp.py")]
COMMAND = [sys.executable, "-m", "sentifactory.cli", "data", "prepare"]
# Under eight characters: however alike they look, they are no near repeats.
ROWS = "".join(f"{n},{n % 2},{'好' if n % 2 else '差'}的第{n}家\n" for n in range(200))


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)


def test_the_script_converts_a_file_with_qid_and_text_a(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("qid,label,text_a\n" + ROWS + "200,1,好的第1家！\n", encoding="utf-8")
    finished = run([*SCRIPT, "--csv_path", "corpus.csv", "--test_size", "40", "--max_train", "100"], tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    assert lines[0] == "201 rows read = 160 kept + 41 left out (repeat 1, surplus 40)"
    assert lines[1] == "Read as labels 0/1 (corpus.csv)"
    assert lines[3].split() == ["train", "50", "50", "100"]
    assert lines[5].split() == ["test", "20", "20", "40"]
    assert lines[-2] == "Registered in data/dataset_info.json: corpus_train, corpus_val"
    assert len((tmp_path / "data" / "corpus" / "train.jsonl").read_text(encoding="utf-8").splitlines()) == 100


def test_the_script_and_the_command_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("qid,label,text_a\n" + ROWS, encoding="utf-8")
    options = ["--name", "x", "--seed", "5", "--val_size", "0.2", "--eval_classes", "balanced", "--json"]
    script = run([*SCRIPT, "--csv_path", "a.csv", "--output_dir", "one", *options], tmp_path)
    command = run([*COMMAND, "a.csv", "--output_dir", "two", *options], tmp_path)
    assert script.returncode == command.returncode == 0, script.stderr + command.stderr
    assert script.stdout == command.stdout
    manifest = json.loads(script.stdout)
    assert (manifest["seed"], manifest["val_size"], manifest["parts"]["val"]["rows"]) == (5, 0.2, 40)
    one, two = ((tmp_path / folder / "x" / "train.csv").read_bytes() for folder in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["a.csv: The file is empty."]),
        (b"label,colour\n1,x\n", ["a.csv, line 1", "text column"]),
        ("label,text\n1,好\n9,差\n".encode(), ["a.csv, line 3", "'9'", "Expected: 0,"]),
        ('label,text\n1,"好\n'.encode(), ["a.csv, line 2", "never closed"]),
        ("label,text\n1,好\n".encode(), ["usable reviews"]),
        (None, ["a.csv: The file does not exist."]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    finished = run([*SCRIPT, "--csv_path", "a.csv"], tmp_path)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    for word in words:
        assert word in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ([] if content is None else ["a.csv"])


def test_a_source_that_is_neither_a_name_nor_a_file(tmp_path: Path) -> None:
    finished = run([*COMMAND, "snownpl"], tmp_path)
    assert finished.returncode == 2
    assert finished.stderr.startswith("Error: There is no source and no file 'snownpl'. Expected: snownlp, ")
