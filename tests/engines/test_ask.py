"""A comparison that is killed continues where it was, and its result is that of one that was left in peace."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import resume_driver
from resume_driver import REVIEWS, answer_all

from sentifactory.engines.ask import PredictionJournal, collect_answers
from sentifactory.engines.base import ClosingEngine
from sentifactory.errors import ConfigError, EngineError
from sentifactory.records import Review

JOURNAL = "report.predictions.base.jsonl"


def count_asked(folder: Path) -> Counter[str]:
    file = folder / "asked.txt"
    return Counter(file.read_text(encoding="utf-8").splitlines()) if file.exists() else Counter()


@pytest.fixture
def undisturbed(tmp_path: Path) -> tuple:
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    return answer_all(folder).predictions


def test_kill_9_at_any_moment_changes_no_result_and_asks_nothing_twice(tmp_path: Path, undisturbed: tuple) -> None:
    chance = random.Random(7)
    command = [sys.executable, str(Path(resume_driver.__file__)), str(tmp_path), "0.01"]
    n_kills = 5
    for _ in range(n_kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
            assert driver.stdout is not None
            driver.stdout.readline()
            time.sleep(chance.uniform(0, 0.15))
            driver.kill()
    assert answer_all(tmp_path).predictions == undisturbed
    asked = count_asked(tmp_path)
    assert len(asked) == len(REVIEWS)
    assert asked.total() <= len(REVIEWS) + n_kills  # at most the one in flight is asked again


@pytest.mark.slow
def test_a_journal_cut_off_at_any_byte_is_continued(tmp_path: Path, undisturbed: tuple) -> None:
    whole = (tmp_path / "undisturbed" / JOURNAL).read_bytes()
    for end in [*range(0, 400), *range(400, len(whole), 97)]:
        (tmp_path / JOURNAL).write_bytes(whole[:end])
        (tmp_path / "asked.txt").unlink(missing_ok=True)
        assert answer_all(tmp_path).predictions == undisturbed
        n_lines = whole[:end].count(b"\n")
        assert count_asked(tmp_path).total() == len(REVIEWS) - max(0, n_lines - 1)
        assert json.loads((tmp_path / JOURNAL).read_bytes().splitlines()[-1])


def test_rubbish_in_the_middle_ends_what_is_believed(tmp_path: Path, undisturbed: tuple) -> None:
    lines = (tmp_path / "undisturbed" / JOURNAL).read_bytes().splitlines(keepends=True)
    lines[11] = b'{"position": 3, "at_s"\n'
    (tmp_path / JOURNAL).write_bytes(b"".join(lines))
    assert answer_all(tmp_path).predictions == undisturbed
    assert count_asked(tmp_path).total() == len(REVIEWS) - 10


def test_a_complete_journal_starts_no_engine(tmp_path: Path, undisturbed: tuple) -> None:
    def refuse() -> None:
        raise AssertionError("started")

    path = tmp_path / "undisturbed" / JOURNAL
    again = collect_answers(refuse, REVIEWS, path, "one")
    assert again.predictions == undisturbed


def test_another_model_prompt_or_file_begins_anew(tmp_path: Path) -> None:
    answer_all(tmp_path)
    answer_all(tmp_path, fingerprint="two")
    assert count_asked(tmp_path).total() == 2 * len(REVIEWS)
    shutil.copy(tmp_path / JOURNAL, tmp_path / "other")
    with PredictionJournal(tmp_path / "other", "two", REVIEWS[::-1]) as journal:
        assert journal.answers == {}
    with PredictionJournal(tmp_path / JOURNAL, "two", REVIEWS) as journal:
        assert len(journal.answers) == len(REVIEWS)


def test_times_add_up_over_sessions(tmp_path: Path) -> None:
    rows = [
        {"fingerprint": "", "start_s": 60.0},
        {"position": 0, "at_s": 4.0},
        {"position": 1, "at_s": 5.0},
        {"fingerprint": "", "start_s": 70.0},
        {"position": 2, "at_s": 3.0},
    ]
    fields = {"label": 1, "probabilities": None, "raw": "", "latency_s": 1.0, "log_likelihoods": None}
    reviews = [Review("a"), Review("b"), Review("c")]
    with PredictionJournal(tmp_path / "name", "one", reviews) as journal:
        name = journal._fingerprint
    rows = [{**row, **({"fingerprint": name} if "fingerprint" in row else {"prediction": fields})} for row in rows]
    (tmp_path / "name").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with PredictionJournal(tmp_path / "name", "one", reviews) as journal:
        assert (journal.start_s, journal.predict_s, sorted(journal.answers)) == (70.0, 8.0, [0, 1, 2])


def test_two_sessions_at_once_are_refused(tmp_path: Path) -> None:
    with (
        PredictionJournal(tmp_path / "file", "one", REVIEWS),
        pytest.raises(ConfigError, match="Another comparison is writing here"),
        PredictionJournal(tmp_path / "file", "one", REVIEWS),
    ):
        pass


def test_an_engine_that_loses_answers_is_noticed() -> None:
    class Forgetful(ClosingEngine):
        name = "forgetful"

        def predict(self, reviews, on_answer=None):
            return []

    with pytest.raises(EngineError, match="0 answers to 40 reviews"):
        collect_answers(Forgetful, REVIEWS)
