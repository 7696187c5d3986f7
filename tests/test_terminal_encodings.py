"""No character, and no file name, ends a command: terminals that lack it get an escape, and so do files."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sentifactory import cli, guarded_run
from sentifactory.errors import EXIT_BAD_INPUT

# GBK bytes of a name, as Linux keeps them.
NAME = os.fsdecode("房间".encode("gbk"))
EMOJI = "早餐很好😊"


@pytest.fixture(autouse=True)
def keep_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "")  # `main` sets it for its children


def call(monkeypatch: pytest.MonkeyPatch, encoding: str, *words: str) -> tuple[int, bytes]:
    """Run a command in this process on a terminal of an encoding; return its exit code and what it printed."""
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace"))
    monkeypatch.setattr(sys, "argv", ["sentifactory", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    sys.stdout.flush()
    return int(ended.value.code or 0), out.getvalue()


def write_reviews(path: Path) -> Path:
    rows = [f"{n % 2},{n * 7919}号店{'好吃😊' if n % 2 else '难吃'}{n}" for n in range(40)]
    path.write_text("\n".join(["label,text", f"1,{EMOJI}", *rows]), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "utf-8", "cp1252", "big5"])
def test_every_terminal_shows_tables_and_sound_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    source = write_reviews(tmp_path / "reviews.csv")
    page = str(tmp_path / "page.html")
    words = ("data", "show", str(source), "--skip_doubt", "--output_file", page)
    code, said = call(monkeypatch, encoding, *words)
    assert code == 0
    assert ("😊" if encoding == "utf-8" else r"\ud83d\ude0a") in said.decode(encoding)
    code, said = call(monkeypatch, encoding, *words, "--json")
    assert code == 0
    samples = json.loads(said.decode(encoding))["samples"]["positive"]
    assert all("😊" in one["text"] for one in samples)
    code, said = call(monkeypatch, encoding, "predict", EMOJI, "--train_csv", str(source), "--json")
    assert code == 0
    assert json.loads(said.decode(encoding))[0]["text"] == EMOJI


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["gbk", "ascii", "latin-1:strict"])
def test_a_process_of_its_own_ends_well(tmp_path: Path, setting: str) -> None:
    source = write_reviews(tmp_path / "reviews.csv")
    done = subprocess.run(
        [sys.executable, "-m", "sentifactory.cli", "data", "show", source, "--skip_doubt",
         "--output_file", tmp_path / "page.html"],
        env=os.environ | {"PYTHONIOENCODING": setting}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_programs_below_print_as_safely(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, wanted in {"gbk": "gbk:backslashreplace", "": ":backslashreplace", "gbk:ignore": "gbk:ignore"}.items():
        monkeypatch.setenv("PYTHONIOENCODING", given)
        guarded_run.escape_unprintable()
        assert os.environ["PYTHONIOENCODING"] == wanted


def test_names_that_are_not_utf8_go_in_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, folder = write_reviews(tmp_path / f"{NAME}.csv"), tmp_path / NAME
    code, said = call(monkeypatch, "utf-8", "data", "prepare", source.name, "--name", "set", "--output_dir", NAME)
    assert code == 0
    assert r"\udcb7" in said.decode()
    manifest = json.loads((folder / "set" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["source"] == source.name, "the escape is read back as the name"
    code, said = call(monkeypatch, "utf-8", "data", "prepare", source.name, "--output_dir", NAME, "--json")
    assert code == 0
    assert json.loads(said)["inputs"][0]["file"] == source.name
    for words in (
        ("data", "show", source.name, "--skip_doubt", "--output_file", f"{NAME}/page.html"),
        ("data", "show", "set", "--dataset_dir", NAME, "--skip_doubt"),
        ("data", "doubt", source.name, "--output_file", f"{NAME}/doubt.csv"),
        ("label", source.name, f"{NAME}/out.csv", "--model", source.name, "--engine", "tfidf"),
        ("predict", "好", "--train_csv", source.name),
    ):
        code, _ = call(monkeypatch, "utf-8", *words)
        assert code == 0, words
    with (folder / "out.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 41
    (folder / "page.html").read_text(encoding="utf-8")


def test_rejected_rows_of_such_a_file_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_reviews(tmp_path / f"{NAME}.csv")
    with source.open("a", encoding="utf-8") as stream:
        stream.write("\n1\n")
    code, _ = call(monkeypatch, "utf-8", "data", "prepare", str(source), "--name", "a", "--output_dir", str(tmp_path))
    assert code == 0
    with (tmp_path / "a" / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        assert [int(row["line"]) for row in csv.DictReader(stream) if row["reason"] == "broken row"] == [43]


def test_a_missing_file_of_such_a_name_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = call(monkeypatch, "gbk", "data", "prepare", f"{NAME}.csv")
    assert code == EXIT_BAD_INPUT


def test_a_library_that_cannot_take_such_a_name_is_one_sentence() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run_guarded(lambda: NAME.encode("utf-8"))
    assert ended.value.code == EXIT_BAD_INPUT
    assert guarded_run.explain_set_up(UnicodeEncodeError("ascii", "好", 0, 1, "none")) is None, "that is a defect"
