"""`data doubt` and `data show` as a user runs them: stdout, stderr, files, exit codes."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_reviews import make_reviews, write_csv
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.errors import ConfigError, DataError

LABELS = ("negative", "positive")
HOSTILE = 'x\x1b[2J<script>alert(1)</script>\u202e[bold red]好[/] ":smile:"'


def run(*command: str) -> tuple[str, str]:
    """Run a command in this process and return what it printed; its error is raised."""
    result = CliRunner().invoke(build_app(), ["data", *command], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


@pytest.fixture
def reviews_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """120 reviews of which the one on line 33 has the wrong label, in the folder where the command runs."""
    monkeypatch.chdir(tmp_path)
    rows = [(review.label or 0, review.text) for review in make_reviews(120, LABELS)]
    rows[31] = (0, HOSTILE + rows[31][1])
    return write_csv(tmp_path / "a.csv", rows)


def test_doubt_writes_a_list_and_changes_nothing(reviews_file: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(reviews_file.read_bytes()).hexdigest()
    stdout, stderr = run("doubt", "a.csv")
    with (tmp_path / "a_reports" / "doubtful.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "file",
        "line",
        "part",
        "label",
        "suggested_label",
        "quality",
        "probability",
        "is_probable",
        "text",
    ]
    assert (rows[0]["file"], rows[0]["line"], rows[0]["part"]) == ("a.csv", "33", "file")
    assert (rows[0]["label"], rows[0]["suggested_label"]) == ("negative", "positive")
    with reviews_file.open(encoding="utf-8", newline="") as stream:
        assert rows[0]["text"] == list(csv.DictReader(stream))[31]["text"]
    assert [float(row["quality"]) for row in rows] == sorted(float(row["quality"]) for row in rows)
    assert f"{len(rows)} of 120 labels are contradicted" in stdout
    assert "Nothing was changed" in stdout
    assert "\x1b" not in stdout
    assert "[bold red]" in stdout
    assert "5 models" in stderr
    assert hashlib.sha256(reviews_file.read_bytes()).hexdigest() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.csv", "a_reports", "doubtful.csv"]


def test_doubt_is_deterministic_and_prints_only_json(reviews_file: Path, tmp_path: Path) -> None:
    first, _ = run("doubt", "a.csv", "--json", "--folds", "3", "--top", "1", "--output_file", "one.csv")
    second, _ = run("doubt", "a.csv", "--json", "--folds", "3", "--top", "1", "--output_file", "one.csv")
    assert first == second
    found = json.loads(first)
    assert (found["folds"], found["written"], len(found["rows"]), found["searched"]) == (3, 1, 1, 120)
    assert found["rows"][0]["line"] == 33
    # Somebody has worked through the list.
    (tmp_path / "one.csv").write_bytes((tmp_path / "one.csv").read_bytes() + "看过，标签没错\n".encode())
    noted = (tmp_path / "one.csv").read_bytes()
    with pytest.raises(ConfigError) as refused:
        run("doubt", "a.csv", "--folds", "3", "--top", "1", "--output_file", "one.csv")
    assert refused.value.where == "one.csv"
    assert (tmp_path / "one.csv").read_bytes() == noted


def test_doubt_searches_all_parts_of_a_data_set(reviews_file: Path) -> None:
    prepare_reviews("a.csv", name="shop", output_dir="data", val_size=0.2, test_size=0.2, balance="none")
    found = json.loads(run("doubt", "shop", "--json")[0])
    place = found["rows"][0]
    assert found["searched"] == 120
    assert place["file"] == str(Path("data", "shop", f"{place['part']}.csv"))
    with Path(place["file"]).open(encoding="utf-8", newline="") as stream:
        row = list(csv.DictReader(stream))[place["line"] - 2]
    assert (row["text"], row["label"]) == (place["text"], "0")
    assert "<script>" in row["text"]


def test_what_people_wrote_into_the_reports_of_a_data_set_stays_when_it_is_prepared_again(reviews_file: Path) -> None:
    options = {"name": "shop", "output_dir": "data", "val_size": 0.2, "test_size": 0.2, "balance": "none"}
    prepare_reviews("a.csv", **options)
    run("doubt", "shop", "--folds", "3")
    place = Path("data", "shop", "reports", "doubtful.csv")
    noted = place.read_bytes() + "看过，标签没错\n".encode()
    place.write_bytes(noted)
    manifest = prepare_reviews("a.csv", **options, seed=3)
    assert place.read_bytes() == noted
    assert "reports/doubtful.csv" not in manifest["outputs"]
    (place.parents[1] / "notes.txt").write_text("mine")  # other files are not kept, and not replaced either
    with pytest.raises(DataError) as refused:
        prepare_reviews("a.csv", **options)
    assert "notes.txt" in refused.value.what


def test_show_prints_tables_and_draws_a_page(reviews_file: Path, tmp_path: Path) -> None:
    stdout, _ = run("show", "a.csv", "--top", "3")
    assert "a.csv: 120 reviews, 120 of them different." in stdout
    for words in ("Reviews by part", "Length in characters", "Duplicates and leaks", "Doubtful labels", "Samples"):
        assert words in stdout
    assert "Written: a_reports/data_report.html\n" in stdout
    assert "\x1b" not in stdout
    page = (tmp_path / "a_reports" / "data_report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.csv", "a_reports", "data_report.html"]


@pytest.mark.slow
def test_show_as_json_is_alone_on_stdout_and_the_page_is_the_same_twice(reviews_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sentifactory.cli", "data", "show", "a.csv", "--json", "--skip_doubt"]
    outputs, pages = [], []
    for _ in range(2):
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        outputs.append(finished.stdout)
        pages.append((tmp_path / "a_reports" / "data_report.html").read_bytes())
        assert b"looking for duplicates" in finished.stderr
    assert outputs[0] == outputs[1]
    assert pages[0] == pages[1]
    profile = json.loads(outputs[0])
    assert profile["rows"] == {"in": 120, "kept": 120, "rejected": 0, "rejected_by_reason": {}}


@pytest.mark.parametrize("command", ["doubt", "show"])
def test_inspecting_data_cannot_replace_it(reviews_file: Path, command: str) -> None:
    before = reviews_file.read_bytes()
    with pytest.raises(ConfigError, match=r"would replace the input a\.csv"):
        run(command, "a.csv", "--output_file", "./a.csv")
    with pytest.raises(ConfigError, match="This is a folder"):
        run(command, "a.csv", "--output_file", ".")
    assert reviews_file.read_bytes() == before


@pytest.mark.slow
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sentifactory.cli", "data"]
    write_csv(tmp_path / "one.csv", [(1, f"好{n}") for n in range(9)])
    for arguments, words in (
        (["doubt", "nosuch"], "no file and no prepared data set 'nosuch'"),
        (["doubt", "one.csv"], "only the label 'positive'"),
        (["doubt", "one.csv", "--top", "0"], "The number is 0"),
        (["show", "one.csv", "--tokenizer", "."], "no tokenizer.json"),
    ):
        finished = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (finished.returncode, finished.stdout) == (2, ""), finished.stderr
        assert words in finished.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["one.csv"]
