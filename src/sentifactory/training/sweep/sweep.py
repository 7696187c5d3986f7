"""Runs a sweep: searches a recipe's settings by macro-F1 of the labels on the validation reviews.

Every trial is a LLaMA-Factory run (`trial.py`) in its own process and folder. Optuna proposes the values; from its
journal in the sweep's folder the same command continues an interrupted sweep, starting with the killed trial. Test
reviews are not used. Trials with the same prompt and the same number of frozen layers share the cache of those layers.
Not covered: pruning (a trial is scored when it has ended), and parallel trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.atomic import write_json
from sentifactory.system.progress import say
from sentifactory.training.run.checkpoints import hold_output_folder
from sentifactory.training.sweep.sweep_plan import (
    DATA,
    SweepOptions,
    SweepPlan,
    describe_plan,
    make_plan,
    write_or_check_plan,
)
from sentifactory.training.sweep.sweep_report import build_result, format_values, rank_trials, report_sweep
from sentifactory.training.sweep.sweep_study import list_trials, open_study, propose_trials, tell_result
from sentifactory.training.sweep.trial import (
    FAILED,
    FINISHED,
    KILLED,
    OUTCOME,
    read_outcome,
    remove_weights,
    run_trial_in_subprocess,
    write_trial,
)
from sentifactory.training.sweep.trial_data import read_split, write_reviews

TRIALS = "trials"


def run_sweep(options: SweepOptions) -> dict[str, Any]:
    """Run or continue a sweep, and return the result as plain JSON values.

    Raises:
        ConfigError: when an input cannot be used, or no trial succeeded.
        DataError: when reviews cannot be read.
        LeakError: when validation reviews are among the training reviews, or test reviews among either.
    """
    plan = make_plan(options)
    folder = options.output_dir
    with hold_output_folder(folder):
        write_or_check_plan(folder, describe_plan(plan), "choose another --output_dir")
        write_prompts(plan)
        study = open_study(folder, plan.find_start())
        result: dict[str, Any] | None = None
        for number, values in propose_trials(study, plan.space, options.trials, options.seed):
            outcome = run_one(plan, number, values, list_trials(study, plan.space))
            if outcome["status"] != KILLED:  # a killed trial stays open, so that the same command runs it again
                score = outcome["metrics"]["macro_f1"] if outcome["status"] == FINISHED else None
                tell_result(study, number, score)
            result = update_report(plan, list_trials(study, plan.space))
        result = result or update_report(plan, list_trials(study, plan.space))
    if result["best"] is None:
        raise ConfigError(
            "No trial of the sweep succeeded",
            where=str(folder / "sweep.md"),
            next_step="see the errors there; a new sweep needs another --output_dir",
        )
    return result


def write_prompts(plan: SweepPlan) -> None:
    """Write the reviews of the split with the prompt of every task in the space."""
    if not plan.tasks:
        return
    parts = read_split(plan.split, plan.chosen.task)
    for task in plan.tasks.values():
        write_reviews(plan.options.output_dir / DATA, task.name, parts, task)


def find_trial(folder: Path, number: int) -> Path:
    """Return the folder of a trial."""
    return folder / TRIALS / f"{number:03d}"


def run_one(plan: SweepPlan, number: int, values: dict[str, Any], begun: Mapping[int, Any]) -> dict[str, Any]:
    """Return the outcome of a trial, or of an earlier one with the same values."""
    folder = find_trial(plan.options.output_dir, number)
    shown = format_values(values)
    say(f"Trial {number}: {shown}")
    header = f"Trial {number} of the sweep {plan.options.output_dir}: {shown}."
    write_trial(folder, plan.build_settings(values), plan.build_request(values), header)
    outcome = find_outcome(plan, number, values, begun)
    if outcome is None:
        outcome = run_trial_in_subprocess(folder)
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
    """Return the outcome of this trial or of an earlier one with the same values, if finished."""
    for other in sorted(begun):
        outcome = read_outcome(find_trial(plan.options.output_dir, other)) if begun[other] == values else None
        if outcome is None or outcome["status"] != FINISHED or "same_as" in outcome:
            continue
        # Its own: the sweep was killed just before Optuna recorded the result.
        return outcome if other == number else {**outcome, "same_as": other}
    return None


def update_report(plan: SweepPlan, begun: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Write and return the result so far; remove the weights of all trials but the best."""
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
