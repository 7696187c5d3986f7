"""`sentifactory sweep`: searches a recipe's settings by validation macro-F1 of scored labels.

Every trial is a real LLaMA-Factory run (`trial.py`) in a process and a folder of its own; Optuna proposes, and its
journal in the sweep's folder lets the same command continue a sweep that was killed, the killed trial first. Test
reviews are neither trained on nor looked at. Trials on the same prompt with as many frozen layers share the trunk
cache. Not covered: pruning (a trial is judged when it has ended), and several trials at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json
from sentifactory.errors import ConfigError
from sentifactory.progress import say
from sentifactory.training.checkpoints import hold_output_folder
from sentifactory.training.sweep_plan import DATA, SweepOptions, SweepPlan, describe_plan, keep_plan, make_plan
from sentifactory.training.sweep_report import build_result, format_values, rank_trials, report_sweep
from sentifactory.training.sweep_study import list_trials, open_study, propose_trials, tell_end
from sentifactory.training.trial import (
    FAILED,
    FINISHED,
    KILLED,
    OUTCOME,
    read_outcome,
    remove_weights,
    run_trial_apart,
    write_trial,
)
from sentifactory.training.trial_data import read_split, write_reviews

TRIALS = "trials"


def run_sweep(options: SweepOptions) -> dict[str, Any]:
    """Run a sweep, or what is left of it, and return the result as plain JSON values.

    Raises:
        ConfigError: when something cannot be used, or no trial ended well.
        DataError: when reviews cannot be read.
        LeakError: when reviews to choose by are trained on, or test reviews stand among either.
    """
    plan = make_plan(options)
    folder = options.output_dir
    with hold_output_folder(folder):
        keep_plan(folder, describe_plan(plan), "name another --output_dir, or remove this folder to begin anew")
        write_prompts(plan)
        study = open_study(folder, plan.find_start())
        result: dict[str, Any] | None = None
        for number, values in propose_trials(study, plan.space, options.trials, options.seed):
            outcome = run_one(plan, number, values, list_trials(study, plan.space))
            if outcome["status"] != KILLED:  # a killed trial stays open: the same command runs it again
                score = outcome["metrics"]["macro_f1"] if outcome["status"] == FINISHED else None
                tell_end(study, number, score)
            result = report_now(plan, list_trials(study, plan.space))
        result = result or report_now(plan, list_trials(study, plan.space))
    if result["best"] is None:
        raise ConfigError(
            "No trial of the sweep ended well",
            where=str(folder / "sweep.md"),
            next_step="read there why; a new sweep needs another --output_dir",
        )
    return result


def write_prompts(plan: SweepPlan) -> None:
    """Write the reviews in the words of every task of the space, from the same split."""
    if not plan.tasks:
        return
    parts = read_split(plan.split, plan.chosen.task)
    for task in plan.tasks.values():
        write_reviews(plan.options.output_dir / DATA, task.name, parts, task)


def find_trial(folder: Path, number: int) -> Path:
    """Return the folder of a trial."""
    return folder / TRIALS / f"{number:03d}"


def run_one(plan: SweepPlan, number: int, values: dict[str, Any], begun: Mapping[int, Any]) -> dict[str, Any]:
    """Run a trial, or take over the outcome of an earlier one with the same values, and return it."""
    folder = find_trial(plan.options.output_dir, number)
    shown = format_values(values)
    say(f"Trial {number}: {shown}")
    header = f"Trial {number} of the sweep {plan.options.output_dir}: {shown}."
    write_trial(folder, plan.build_settings(values), plan.build_request(values), header)
    outcome = find_outcome(plan, number, values, begun)
    if outcome is None:
        outcome = run_trial_apart(folder)
    else:
        write_json(folder / OUTCOME, outcome)
    if outcome["status"] == FINISHED:
        same = f" (as trial {outcome['same_as']})" if "same_as" in outcome else ""
        say(f"Trial {number}: validation macro-F1 {outcome['metrics']['macro_f1'] * 100:.1f}%{same}")
    else:
        say(f"Trial {number} {FAILED if outcome['status'] == FAILED else 'was killed'}: {outcome['error']}")
    return outcome


def find_outcome(
    plan: SweepPlan, number: int, values: Mapping[str, Any], begun: Mapping[int, Any]
) -> dict[str, Any] | None:
    """Return how this trial or an earlier one with the same values finished: training again would give the same."""
    for other in sorted(begun):
        outcome = read_outcome(find_trial(plan.options.output_dir, other)) if begun[other] == values else None
        if outcome is None or outcome["status"] != FINISHED or "same_as" in outcome:
            continue
        # Its own: the sweep was killed in the instant before Optuna was told.
        return outcome if other == number else {**outcome, "same_as": other}
    return None


def report_now(plan: SweepPlan, begun: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Write and return the result so far; the weights of all trials but the best are removed."""
    folder = plan.options.output_dir
    outcomes = {
        number: read_outcome(find_trial(folder, number)) or {"status": KILLED, "error": "It was killed."}
        for number in begun
    }
    ranked = rank_trials(outcomes)
    for number, outcome in outcomes.items():
        if not plan.options.keep_all and number not in ranked[:1] and outcome["status"] != KILLED:
            remove_weights(find_trial(folder, number))
    result = build_result(plan, begun, outcomes, ranked)
    report_sweep(result, plan)
    return result
