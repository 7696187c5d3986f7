"""Reports a sweep: JSON, a table as Markdown and on the terminal, a figure, and the best recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.metrics.number_formats import (
    format_p_value,
    format_percent,
    format_points,
    format_range,
    read_interval,
    read_p_value,
    read_paired_interval,
)
from sentifactory.metrics.significance import compare_paired, correct_family
from sentifactory.redaction import mask_arguments
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.command_line import describe_command
from sentifactory.system.formats import DASH, build_table, escape, format_bytes, format_seconds
from sentifactory.system.hardware import describe_machine
from sentifactory.training.acceleration.answer_logits import WHOLE_ANSWER
from sentifactory.training.run.provenance import describe_versions
from sentifactory.training.run.run_card import read_now
from sentifactory.training.sweep.search_space import LOSS, TASK
from sentifactory.training.sweep.sweep_figure import draw_sweep
from sentifactory.training.sweep.trial import FINISHED, write_recipe

if TYPE_CHECKING:
    from sentifactory.training.sweep.sweep_plan import SweepPlan

SWEEP_VERSION = 1
BEST = "best.yaml"
_COLUMNS = ("Macro F1 (95%)", "Accuracy (95%)", "Training", "Peak memory", "Frozen-layer cache")
CACHE_NOTE = (
    "Trials reuse the frozen layers' output of an earlier trial with the same model, prompt, number of frozen layers "
    "and loss. Another number of layers needs the states of another layer, another prompt changes the tokens, and the "
    "loss of the label alone needs fewer positions: the first trial of each kind computes them."
)
CHOICE_NOTE = (
    "The score of the best of several trials is biased upwards by the selection. Measure it once on test reviews, "
    "which this sweep has not used."
)


def rank_trials(outcomes: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Return the finished trials by macro-F1, best first; ties by accuracy, then by number."""
    finished = [number for number, outcome in outcomes.items() if outcome["status"] == FINISHED]

    def order(number: int) -> tuple[float, float, int]:
        metrics = outcomes[number]["metrics"]
        return -metrics["macro_f1"], -metrics["accuracy"], number

    return sorted(finished, key=order)


def build_result(
    plan: SweepPlan,
    begun: Mapping[int, Mapping[str, Any]],
    outcomes: Mapping[int, Mapping[str, Any]],
    ranked: Sequence[int],
) -> dict[str, Any]:
    """Return the result as plain JSON values; the best trial comes first, trials without a score last."""
    order = [*ranked, *(number for number in begun if number not in ranked)]
    start = plan.find_start()
    first = next((number for number in sorted(ranked) if begun[number] == start), None)
    return {
        "sweep_version": SWEEP_VERSION,
        "created_at": read_now(),
        "recipe": str(plan.options.recipe),
        "overrides": mask_arguments(plan.options.overrides),
        "task": plan.chosen.to_json(),
        "space": {
            key: {**asdict(dimension), "choices": list(dimension.choices)} for key, dimension in plan.space.items()
        },
        "validation": {
            "file": str(plan.split.val),
            "reviews": outcomes[ranked[0]]["metrics"]["reviews"] if ranked else None,
        },
        "best": ranked[0] if ranked else None,
        "start": first,
        "best_against_start": compare_answers(outcomes, first, ranked[0]) if ranked else None,
        "trials": [{"number": number, "values": dict(begun[number]), **_trim(outcomes[number])} for number in order],
        "versions": describe_versions([]),
        "machine": describe_machine(),
        "command": describe_command(),
    }


def _trim(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outcome without the long list of answers, which is in the trial's own folder."""
    return {key: value for key, value in outcome.items() if key != "right"}


def compare_answers(
    outcomes: Mapping[int, Mapping[str, Any]], first: int | None, second: int
) -> dict[str, Any] | None:
    """Return the paired test of two trials on the same reviews; None where they are the same or one is missing.

    The second is the best of all trials, so the p-value is corrected for all comparisons with the first (Holm).
    """
    if first is None or first == second:
        return None
    before = outcomes[first]["right"]
    others = {
        number: outcome["right"]
        for number, outcome in outcomes.items()
        if number != first and outcome["status"] == FINISHED and "same_as" not in outcome
    }
    others[second] = outcomes[second]["right"]
    return correct_family({number: compare_paired(before, right) for number, right in others.items()})[
        second
    ].to_dict()


def report_sweep(result: Mapping[str, Any], plan: SweepPlan) -> None:
    """Write all files of the result into the sweep's folder."""
    folder = plan.options.output_dir
    write_json(folder / "sweep.json", result)
    write_text(folder / "sweep.md", render_markdown(result))
    if result["best"] is None:
        return
    draw_sweep(result, folder / "sweep.png")
    write_best(result, plan, folder / BEST)


def write_best(result: Mapping[str, Any], plan: SweepPlan, path: Path) -> None:
    """Write the best trial's recipe for `sentifactory train`."""
    best = result["trials"][0]
    values, metrics = best["values"], best["metrics"]
    settings = {**plan.build_settings(values), "output_dir": str(path.parent / "best")}
    loss = f" --loss {values[LOSS]}" if values.get(LOSS, WHOLE_ANSWER) != WHOLE_ANSWER else ""
    task = plan.tasks[values[TASK]] if TASK in values else plan.chosen.task
    header = (
        f"Purpose:    the best of {len(result['trials'])} trials of a sweep, trial {best['number']}: "
        f"{format_values(values)}.\n"
        f"            Macro-F1 {format_percent(metrics['macro_f1'])} on {metrics['reviews']} validation reviews.\n"
        f"Must exist: {settings['model_name_or_path']}, and the data set {settings['dataset']} in "
        f"{settings.get('dataset_dir', 'data')}\n"
        f"Command:    sentifactory train {path}{loss}\n"
        f"            The task in the model's folder is {task.name}"
        + ("; ask it with --mode score.\n" if loss else ".\n")
        + f"Output:     {settings['output_dir']}"
    )  # fmt: skip
    write_recipe(path, settings, header)


def format_value(value: Any) -> str:
    """Return a value of the search space, rounded to three significant digits.

    Example:
        >>> format_value(0.000123456), format_value(6), format_value("label")
        ('0.000123', '6', 'label')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_values(values: Mapping[str, Any]) -> str:
    """Return the values of a trial on one line."""
    return ", ".join(f"{key} {format_value(value)}" for key, value in values.items())


def list_cells(trial: Mapping[str, Any]) -> list[str]:
    """Return the cells of a trial after its number and values."""
    if trial["status"] != FINISHED:
        return [trial["status"], *[DASH] * (len(_COLUMNS) - 1)]
    metrics, training = trial["metrics"], trial["training"]
    interval = format_range(read_interval(metrics["intervals"]["macro_f1"]), "to")
    wilson = format_range(read_interval(metrics["accuracy_interval"]), "to")
    time = format_seconds(training["train_time_s"]) + (" (continued)" if training["continued_from"] else "")
    if "same_as" in trial:
        time = f"as trial {trial['same_as']}"
    return [
        f"{format_percent(metrics['macro_f1'])} ({interval})",
        f"{format_percent(metrics['accuracy'])} ({wilson})",
        time,
        format_bytes(training["peak_bytes"]),
        describe_cache(training["trunk"]),
    ]


def describe_cache(cache: Mapping[str, Any] | None) -> str:
    """Return the cell about the cache of the frozen layers."""
    if cache is None or not cache["is_on"]:
        return f"off ({cache['note']})" if cache else DASH
    used = cache.get("samples")
    return f"{used['taken']} taken, {used['computed']} computed" if used else DASH


def build_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the table, its header first."""
    keys = list(result["space"])
    rows = [["Trial", *keys, *_COLUMNS]]
    for trial in result["trials"]:
        values = [format_value(trial["values"][key]) for key in keys]
        rows.append([str(trial["number"]), *values, *list_cells(trial)])
    return rows


def describe_best(result: Mapping[str, Any]) -> str:
    """Return a sentence about the best trial and its comparison with the original recipe."""
    if result["best"] is None:
        return "No trial has succeeded."
    best = result["trials"][0]
    text = f"Best: trial {best['number']} ({format_values(best['values'])}), macro-F1 "
    text += f"{format_percent(best['metrics']['macro_f1'])} on {best['metrics']['reviews']} validation reviews."
    test = result["best_against_start"]
    if test is None:
        return text + (" It is the original recipe." if result["start"] == best["number"] else "")
    how = "The difference is significant" if test["is_shown_holm"] else "The difference is not significant"
    spread = format_range(read_paired_interval(test), "to")
    corrected = "" if test["p_value_holm"] is None else ", corrected for all trials (Holm)"
    return (
        f"{text} Compared with the original recipe (trial {result['start']}): {format_points(test['difference'])} "
        f"points of accuracy ({spread}; {format_p_value(read_p_value(test))}{corrected}). {how}."
    )


def render_markdown(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown."""
    parts = ["# Sweep", "", f"**{escape(describe_best(result))}**", "", CHOICE_NOTE, ""]
    parts += [*build_table(build_rows(result)), ""]
    parts += [
        f"- Trial {trial['number']} {trial['status']}: {escape(trial['error'])}"
        for trial in result["trials"]
        if trial["status"] != FINISHED
    ]
    parts += ["", CACHE_NOTE, "", "![Trials](sweep.png)", ""] if result["best"] is not None else [""]
    parts += [f"Recipe: `{result['recipe']}`. Command: `{result['command']}`", ""]
    return "\n".join(parts)


def print_sweep(result: Mapping[str, Any]) -> None:
    """Print the table on stdout."""
    import sys

    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    header, *rows = build_rows(result)
    table = Table(title=f"Validation reviews of {result['validation']['file']}", title_justify="left")
    for number, title in enumerate(header):
        table.add_column(title, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(describe_best(result), style="bold")
    console.print(CHOICE_NOTE)
