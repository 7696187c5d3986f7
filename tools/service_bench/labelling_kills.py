"""Kills labelling runs repeatedly and checks that every row is written once, in order."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sentifactory.serving.labelling.resumable_output import name_journal
from sentifactory.system.progress import show_progress
from sentifactory.task.task import BINARY_SENTIMENT

LONGEST_PAUSE_S = 2.0
_SHOWN_CHARS = 2000  # of the end of the log of a failed run


def write_reviews(path: Path, texts: Sequence[str], n_rows: int) -> None:
    """Write a CSV with `n_rows` different reviews."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text"])
        writer.writerows((number, f"{texts[number % len(texts)]} {number}") for number in range(n_rows))


def label_with_kills(command: Sequence[str], source: Path, out: Path, n_kills: int) -> dict[str, Any]:
    """Run a labelling command until it has finished, killing it `n_kills` times; return times, memory and row counts.

    Every third run is killed at a random moment after it has written something, so that there is progress; the other
    runs are killed soon after their start.
    """
    journal = name_journal(out)
    chance = random.Random(0)  # noqa: S311 - moments, not secrets
    kills, peak_kib, start = 0, 0, time.monotonic()
    log_path = out.with_name(out.name + ".log")
    with (
        show_progress(f"Labelling with {n_kills} kills", total=n_kills, unit="kills") as progress,
        log_path.open("wb") as log,
    ):
        while True:
            process = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL)
            if kills < n_kills:
                if kills % 3 == 2:
                    _wait_for_growth(process, journal)
                time.sleep(chance.random() * LONGEST_PAUSE_S)
                os.kill(process.pid, signal.SIGKILL)  # `send_signal` would reap a process that has ended
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak_kib = max(peak_kib, usage.ru_maxrss)
            if process.returncode == -signal.SIGKILL:
                kills += 1
                progress.advance()
            # The kill may arrive after everything has been written.
            is_done = out.exists() and not journal.exists()
            if is_done or process.returncode != -signal.SIGKILL:
                break
    seconds = time.monotonic() - start
    if not is_done:
        log_end = log_path.read_text(encoding="utf-8", errors="replace")[-_SHOWN_CHARS:]
        raise RuntimeError(f"labelling ended with {process.returncode}: {' '.join(command)}\n{log_end}")
    return {"kills": kills, "seconds": round(seconds, 1), "peak_mib": peak_kib // 1024, **compare_rows(source, out)}


def _wait_for_growth(process: subprocess.Popen[bytes], journal: Path) -> None:
    def read() -> int:
        try:
            return journal.stat().st_ino  # each write replaces the file
        except FileNotFoundError:
            return 0

    before = read()
    # Not `poll`: it would reap the process, and its memory usage would be lost.
    while read() in (0, before) and _is_running(process.pid):
        time.sleep(0.005)


def _is_running(pid: int) -> bool:
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is None


def compare_rows(source: Path, out: Path) -> dict[str, Any]:
    """Count the input rows, the output rows, and the output rows with a wrong position or without a label."""
    wrong = n_in = n_out = 0
    with source.open(encoding="utf-8", newline="") as before, out.open(encoding="utf-8", newline="") as after:
        for left, right in zip_longest(csv.DictReader(before), csv.DictReader(after)):
            n_in += left is not None
            n_out += right is not None
            is_same = left is not None and right is not None and left["id"] == right["id"]
            has_label = right is not None and right["label"] in BINARY_SENTIMENT.labels
            wrong += not (is_same and has_label)
    return {"rows_in": n_in, "rows_out": n_out, "rows_wrong": wrong}


def bench_stub(folder: Path, texts: Sequence[str], n_rows: int, n_kills: int) -> dict[str, Any]:
    """Label rows with the scripted engine."""
    source, out = folder / "stub.csv", folder / "stub_labelled.csv"
    write_reviews(source, texts, n_rows)
    command = [sys.executable, "-m", "tools.service_bench.labelling_kills", str(source), str(out)]
    return label_with_kills(command, source, out, n_kills)


def bench_real(
    folder: Path, texts: Sequence[str], n_rows: int, n_kills: int, name: str, words: Sequence[str]
) -> dict[str, Any]:
    """Label rows with a real engine, using `sentifactory label`."""
    source, out = folder / f"{name}.csv", folder / f"{name}_labelled.csv"
    write_reviews(source, texts, n_rows)
    command = [sys.executable, "-m", "sentifactory.cli", "label", str(source), str(out), *words]
    return label_with_kills(command, source, out, n_kills)


def main(arguments: Sequence[str]) -> None:
    """Label a file with the scripted engine: the process that the benchmark kills."""
    from sentifactory.serving.answer_format import AnswerFormatter
    from sentifactory.serving.labelling.label_file import EngineRowPredictor, LabelOptions, RowPredictor, label_file
    from tools.service_bench.scripted_engine import ScriptedEngine

    source, out = map(Path, arguments)

    def open_predictor() -> RowPredictor:
        return EngineRowPredictor(ScriptedEngine(BINARY_SENTIMENT), source.name)

    formatter = AnswerFormatter(BINARY_SENTIMENT, "stub")
    label_file(LabelOptions(source, out), formatter, {"engine": "stub"}, open_predictor)


if __name__ == "__main__":
    main(sys.argv[1:])
