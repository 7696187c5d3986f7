"""Proposals, and that a sweep killed at any moment continues as an uninterrupted one would."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sentifactory.training.sweep.search_space import read_space
from sentifactory.training.sweep.sweep_study import JOURNAL, list_trials, open_study, propose_trials, tell_result

SPACE = read_space(None, ["learning_rate={low: 1e-5, high: 1e-3, log: true}", "layers=[2, 6, 12]"])
START = {"learning_rate": 1e-4, "layers": 6}


def score(values: dict[str, Any]) -> float:
    return 1 - abs(math.log10(values["learning_rate"]) + 3.5) / 5 - values["layers"] / 100


def run(folder: Path, trials: int, stop_at: int | None = None) -> dict[int, dict[str, Any]]:
    """Continue a sweep with scripted scores; stop during the trial `stop_at`, like a killed process."""
    study = open_study(folder, START)
    for number, values in propose_trials(study, SPACE, trials, seed=1):
        if number == stop_at:
            break
        tell_result(study, number, None if number == 3 else score(values))
    return list_trials(study, SPACE)


def test_a_killed_sweep_proposes_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole", 9)
    assert whole[0] == START
    assert len({repr(values) for values in whole.values()}) == 9
    cut = tmp_path / "cut"
    assert len(run(cut, 9, stop_at=4)) == 5
    # Half a line at the end and a lock: killed while it wrote.
    with (cut / JOURNAL).open("a") as stream:
        stream.write('{"op_code": 6, "tr')
    (cut / f"{JOURNAL}.lock").symlink_to(cut / JOURNAL)
    assert len(run(cut, 9, stop_at=7)) == 8
    assert run(cut, 9) == whole
    assert run(cut, 9) == whole


def test_a_small_space_is_tried_completely_and_nothing_twice(tmp_path: Path) -> None:
    space = read_space(None, ["layers=[2, 6, 12]", "epochs={low: 1, high: 2}"])
    study = open_study(tmp_path, None)
    for number, _ in propose_trials(study, space, 20, seed=1):
        tell_result(study, number, 0.5)
    tried = [tuple(values.values()) for values in list_trials(study, space).values()]
    assert sorted(tried) == [(layers, epochs) for layers in (2, 6, 12) for epochs in (1, 2)]
