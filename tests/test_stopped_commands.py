"""Real signals to real commands: each says what is kept and how to go on; no process and nothing half-done is left."""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from process_family import Family
from scripted_comparison import write_model, write_reviews
from tiny_models import build_tiny_bert

from sentifactory.cli import run_guarded
from sentifactory.system.stop_signals import describe_kept, note_kept, note_kept_places

SIGNALS = [signal.SIGINT, signal.SIGTERM]
WITHIN_S = 120.0
FakeVllm = Callable[..., None]


def start(folder: Path, *words: str | Path) -> subprocess.Popen[str]:
    """Start a command as a terminal does: in a process group of its own."""
    command = [sys.executable, "-m", "sentifactory.cli", *map(str, words)]
    log = (folder / "stderr.txt").open("w", encoding="utf-8")
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, cwd=folder, start_new_session=True)


def stop(process: subprocess.Popen[str], number: int, is_time: Callable[[], bool], folder: Path) -> str:
    """Send a signal when it is time and return the last line: Ctrl-C to the whole group, SIGTERM to the process."""
    log, deadline = folder / "stderr.txt", time.monotonic() + WITHIN_S
    while not is_time():
        is_waiting = process.poll() is None and time.monotonic() < deadline
        assert is_waiting, log.read_text(encoding="utf-8")
        time.sleep(0.01)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert process.wait(WITHIN_S) == 128 + number, log.read_text(encoding="utf-8")
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    return said.splitlines()[-1]


def has_lines(file: Path, n_lines: int) -> Callable[[], bool]:
    return lambda: file.is_file() and len(file.read_text(encoding="utf-8").splitlines()) >= n_lines


def has_said(folder: Path, words: str) -> Callable[[], bool]:
    return lambda: words in (folder / "stderr.txt").read_text(encoding="utf-8")


def goes_on_with(said: str, *words: str | Path) -> bool:
    return said.endswith(shlex.join(["sentifactory", *map(str, words)]))


def list_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "cache" not in path.as_posix()}


def test_only_what_is_there_is_kept(tmp_path: Path) -> None:
    for name in ("a.json", "b/run.json", "b/c.csv", "journal/one"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    with note_kept_places():
        assert describe_kept() == ("Stopped: nothing was written.", False)
        for name in ("gone.csv", "b/c.csv", "b", "a.json"):
            note_kept(tmp_path / name)
        assert describe_kept() == (f"Stopped. Written: {tmp_path / 'b'}, {tmp_path / 'a.json'}.", False)
        note_kept(tmp_path / "journal/one")
        note_kept(tmp_path / "journal", "1 of 9 answers")
        note_kept(tmp_path / "journal", "2 of 9 answers")
        what, continues = describe_kept()
        assert continues
        assert what.startswith(f"Stopped. Kept: 2 of 9 answers ({tmp_path / 'journal'}). Written: ")
        assert "one" not in what
        for number in range(9):
            (tmp_path / f"{number}.csv").write_text("x", encoding="utf-8")
            note_kept(tmp_path / f"{number}.csv")
        assert describe_kept()[0].endswith("and 8 more.")
    note_kept(tmp_path / "a.json")
    assert describe_kept() == ("Stopped: nothing was written.", False)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_preparing(tmp_path: Path, number: int) -> None:
    dice = random.Random(0)
    with (tmp_path / "many.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("label", "text"))
        rows.writerows(
            (row % 2, "".join(dice.choices("好坏房间服务价格早餐快递老板味道", k=30))) for row in range(60_000)
        )
    before = list_files(tmp_path)
    words = ("data", "prepare", "many.csv")
    process = start(tmp_path, *words)
    is_reading = lambda: any("many.csv" in one.path for one in psutil.Process(process.pid).open_files())  # noqa: E731
    said = stop(process, number, is_reading, tmp_path)
    assert goes_on_with(said, *words)
    assert list_files(tmp_path) == before | {"stderr.txt"}


@pytest.fixture
def workplace(tmp_path: Path, fake_vllm: FakeVllm) -> Path:
    """Reviews and models for a fake vLLM, which answers one request after the other, slowly."""
    fake_vllm(answer_delay_s=0.1)
    rows = [
        (row % 2, f"第{row}家{'差好'[row % 2]}店，{'又旧又吵' if row % 2 else '干净安静'}{row * 7919}")
        for row in range(400)
    ]
    write_reviews(tmp_path / "test.csv", rows)
    write_reviews(tmp_path / "train.csv", [(label, f"{text}。训练用的另一句话{label}") for label, text in rows[:50]])
    for name in ("base", "tuned"):
        write_model(tmp_path / name)
        (tmp_path / name / "config.json").write_text('{"max_position_embeddings": 2048}', encoding="utf-8")
    return tmp_path


COMPARE = ("eval", "compare", "--csv_path", "test.csv", "--base_model", "base", "--finetuned_model", "tuned")
DISTILL = ("distill", "--teacher", "tuned", "--input_file", "test.csv", "--output_file", "soft/soft.jsonl")
LADDER = ("eval", "ladder", "--csv_path", "test.csv", "--train_csv", "train.csv", "--base_model", "base",
          "--mode", "generate", "--max_samples", "40", "--allow_leaks")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("words", "journal"),
    [(COMPARE, "tuned/reports/report.predictions.base.jsonl"), (DISTILL, "soft/soft.answers.jsonl")],
    ids=["compare", "distill"],
)
def test_asking(workplace: Path, family: Family, number: int, words: tuple[str, ...], journal: str) -> None:
    kept = workplace / journal
    said = stop(start(workplace, *words), number, has_lines(kept, 4), workplace)
    assert family.list_alive() == [], "vLLM is closed when the command ends"
    n_kept = len(kept.read_text(encoding="utf-8").splitlines()) - 1
    assert f"{n_kept} of 400 answers ({journal})" in said
    assert goes_on_with(said, *words)
    begun = stop(start(workplace, *words), number, has_lines(kept, n_kept + 5), workplace)
    assert f"{n_kept} of 400 answers are in" in (workplace / "stderr.txt").read_text(encoding="utf-8")
    assert int(begun.split(" of 400 answers")[0].rpartition(" ")[2]) > n_kept, "the same command continues"
    assert family.list_alive() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_asking_that_has_not_begun(workplace: Path, fake_vllm: FakeVllm, family: Family, number: int) -> None:
    fake_vllm(start_delay_s=60)
    before = list_files(workplace)
    said = stop(start(workplace, *COMPARE), number, has_said(workplace, "Starting vLLM"), workplace)
    assert goes_on_with(said, *COMPARE)
    assert "nothing was written" in said
    assert family.list_alive() == []
    assert list_files(workplace) == before | {"stderr.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_ladder(workplace: Path, family: Family, number: int) -> None:
    kept = workplace / "test_reports" / "ladder.rungs"
    said = stop(start(workplace, *LADDER), number, has_said(workplace, "Asking"), workplace)
    assert "2 of 4 models (test_reports/ladder.rungs)" in said
    assert goes_on_with(said, *LADDER)
    family.wait_for(0, 2.0)  # the process of the entry and its vLLM are gone; Python's resource tracker follows
    assert sorted(file.name for file in kept.iterdir()) == ["majority.json", "tfidf.json"]
    again = start(workplace, *LADDER)
    assert again.wait(WITHIN_S) == 0
    ladder = json.loads((workplace / "test_reports" / "ladder.json").read_text(encoding="utf-8"))
    assert any("2 of the 4 models" in warning["en"] for warning in ladder["warnings"]), "the same command continued"


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_training_before_its_first_step(tmp_path: Path, number: int) -> None:
    (tmp_path / "bert").mkdir()
    build_tiny_bert(tmp_path / "bert")
    write_reviews(
        tmp_path / "train.csv", [(row % 2, f"第{row}家{'差好'[row % 2]}店{row * 7919}") for row in range(60)]
    )
    recipe = "model_name_or_path: bert\nstage: encoder\ndataset: train.csv\noutput_dir: out\nuse_cpu: true\n"
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    before = list_files(tmp_path)
    words = ("train", "recipe.yaml")
    said = stop(start(tmp_path, *words), number, has_said(tmp_path, "Training bert by"), tmp_path)
    assert goes_on_with(said, *words)
    assert list_files(tmp_path) == before | {"stderr.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("words", [("train", "none.yaml"), ("serve", "none"), ("ui",)], ids=lambda words: words[0])
def test_a_command_that_imports(tmp_path: Path, number: int, words: tuple[str, ...]) -> None:
    """Signalled while it imports what answers a signal, and later, while it imports what its work needs."""
    before = list_files(tmp_path)
    process = start(tmp_path, *words)
    said = stop(process, number, lambda: holds_back(process.pid, number), tmp_path)
    assert goes_on_with(said, *words)
    assert list_files(tmp_path) == before | {"stderr.txt"}


def holds_back(pid: int, number: int) -> bool:
    """Whether a process has blocked a signal, as a command does that is still importing what answers it."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(blocked.split()[1], 16) >> (number - 1) & 1)


def test_an_interrupt_within_code_in_a_string_ends_with_130(tmp_path: Path) -> None:
    """Python would end itself by SIGINT: with `python -m`, an interrupted data class makes it forget the exit code."""
    (tmp_path / "interrupted.py").write_text(
        "from sentifactory.cli import run_guarded\n"
        "run_guarded(lambda: exec('import os, signal; os.kill(os.getpid(), signal.SIGINT)'))\n",
        encoding="utf-8",
    )
    finished = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 130, finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_an_import_swallows_is_sent_again(tmp_path: Path, number: int) -> None:
    """A finaliser stands for the modules in C that clear every exception while they are imported."""
    (tmp_path / "swallowing.py").write_text(
        "import os, time\n"
        "class Held:\n"
        f"    def __del__(self): os.kill(os.getpid(), {number}); time.sleep(1)\n"
        "Held()\n"
        "time.sleep(60)\n",
        encoding="utf-8",
    )
    code = "from sentifactory.cli import run_guarded; run_guarded(lambda: __import__('swallowing'))"
    finished = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert finished.returncode == 128 + number, finished.stderr
    assert finished.stderr.splitlines()[-1].startswith("Stopped")


@pytest.mark.parametrize("number", SIGNALS)
def test_an_error_that_follows_from_a_signal_is_a_stop(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """As where an event loop is interrupted, whose tasks then end in an order that their libraries call a defect."""

    def run() -> None:
        try:
            os.kill(os.getpid(), number)
        except BaseException:
            raise RuntimeError("the loop is in disorder") from None

    with pytest.raises(SystemExit) as ended:
        run_guarded(run)
    assert ended.value.code == 128 + number
    assert "nothing was written" in capsys.readouterr().err
