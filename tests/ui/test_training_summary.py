"""What the page says about a training, from its run card and its progress file."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sentifactory.bilingual import Sentence
from sentifactory.errors import DataError
from sentifactory.training.run import run_phases
from sentifactory.ui.training_jobs import FAILED, FINISHED, RUNNING, STOPPED, Job
from sentifactory.ui.training_summary import (
    count_steps,
    describe_end,
    describe_left,
    describe_now,
    find_best,
    find_loss,
    find_scores,
)
from sentifactory.ui.views import show_log, show_progress

STARTED = "2030-01-01T00:00:00+00:00"
LATER = "2030-01-01T01:00:00+00:00"


def make_card(**changes: Any) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"step": 5, "loss": 0.9}]
    for step, f1 in ((10, 0.7), (20, 0.8), (30, 0.8), (32, 0.75)):
        rows += [{"step": step, "loss": 1 / step}, {"step": step, "eval_macro_f1": f1, "eval_loss": 1 - f1}]
    card = {
        "status": "finished", "metrics": rows, "steps": 32, "max_steps": 200, "wall_time_s": 75.0,
        "finished_at": LATER,
        "recipe": {"stage": "encoder", "metric_for_best_model": "macro_f1", "early_stopping_patience": 2},
    }  # fmt: skip
    return card | changes


def make_job(state: str, card: dict[str, Any] | None = None, **changes: Any) -> Job:
    facts = {"name": "mine", "data": "reviews", "recipe": "quick", "output_dir": "x", "started_at": STARTED}
    known: dict[str, Any] = {"log": [], **changes}
    return Job(facts | known.pop("facts", {}), state, card or {}, **known)


def make_progress(phase: Sentence, done: int = 0, total: int | None = None, left_s: float | None = None) -> Any:
    return {
        "phase": {"en": phase.en, "zh": phase.zh}, "done": done, "total": total, "left_s": left_s,
        "written_at": time.time(),
    }  # fmt: skip


def test_the_best_score_is_the_first_of_the_highest_and_of_losses_the_lowest() -> None:
    best = find_best(find_scores(make_card()))
    assert best is not None
    assert (best.step, best.shown, best.metric) == (20, "80.0%", "eval_macro_f1")
    lowest = find_best(find_scores(make_card(recipe={"metric_for_best_model": "eval_loss"})))
    assert lowest is not None
    assert (lowest.step, lowest.shown) == (20, "0.2000")
    assert find_best(find_scores(make_card(metrics=[{"step": 1, "loss": 2}]))) is None
    assert find_loss(make_card()) == 1 / 32
    assert find_loss({}) is None


def test_an_early_end_says_after_which_step_and_since_when_nothing_was_better() -> None:
    end = describe_end(make_job(FINISHED, make_card()))
    assert end is not None
    for number in ("32", "200", "80.0%", "20"):
        assert number in end.en
        assert number in end.zh
    assert "early" in end.en
    assert "1 min 15 s" in end.en
    whole = describe_end(make_job(FINISHED, make_card(max_steps=32)))
    assert whole is not None
    assert "early" not in whole.en
    assert "20" in whole.en, "the best weights are kept"


@pytest.mark.parametrize(("checkpoint", "word"), [(30, "30"), (None, "start again")])
def test_a_stopped_training_says_where_it_can_continue(checkpoint: int | None, word: str) -> None:
    end = describe_end(make_job(STOPPED, make_card(status="interrupted"), checkpoint=checkpoint))
    assert end is not None
    assert "32 of 200" in end.en
    assert word in end.en


def test_a_failure_says_the_commands_own_reason_or_that_it_was_killed() -> None:
    gone = DataError("'/home/me/data/a.csv' is gone", code="file-gone")
    job = make_job(FAILED, log=["Training ...", "Error: /home/me/data/a.csv is gone"], failure=gone)
    end = describe_end(job)
    assert end is not None
    assert "'a.csv' is gone" in end.en
    assert "文件不存在（a.csv）" in end.zh
    assert "is gone" not in end.zh, "the command's own sentence is English"
    assert "/home/me" not in end.en + show_progress(job) + show_log(job)
    killed = describe_end(make_job(FAILED, make_card(finished_at=None, error="of an earlier session")))
    assert killed is not None
    assert "killed" in killed.en
    assert "earlier" not in killed.en


def test_before_the_first_step_the_phase_is_shown_and_its_count() -> None:
    old_card = make_card(status="interrupted")
    job = make_job(RUNNING, old_card, progress=None)
    assert describe_now(job) is not None
    assert count_steps(job) == (0, 0), "the card is that of the earlier session"
    frozen = make_job(RUNNING, {}, progress=make_progress(run_phases.FROZEN_LAYERS, 96, 198))
    now = describe_now(frozen)
    assert now is not None
    assert now.en.endswith("96 / 198")
    assert 'aria-valuenow="96"' in show_progress(frozen)
    assert describe_left(frozen) is None


def test_steps_and_time_left_are_those_of_the_progress_file() -> None:
    progress = make_progress(run_phases.TRAINING, 50, 200, 90.0)
    job = make_job(RUNNING, make_card(status="running"), progress=progress)
    assert count_steps(job) == (50, 200)
    left = describe_left(job)
    assert left is not None
    assert left.en == "at most 1 min 30 s"
    assert describe_now(job) is None
    shown = show_progress(job)
    assert "80.0%" in shown
    assert 'aria-valuenow="50"' in shown
    plain = make_job(
        RUNNING, make_card(recipe={}, estimate={"train_time_s": 20.0}), progress=progress | {"left_s": None}
    )
    left = describe_left(plain)
    assert left is not None
    assert left.en == "about 20 s"
    stopping = make_job(RUNNING, make_card(), progress=progress, facts={"stop_asked_at": 1.0})
    assert describe_left(stopping) is None
    assert describe_now(stopping) is not None
