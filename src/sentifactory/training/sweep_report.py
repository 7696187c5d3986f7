"""The result of a sweep: JSON, a table in Markdown and on the terminal, a picture, and the best recipe as a YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.atomic import write_json, write_text
from sentifactory.evaluation.formats import (
    format_p_value,
    format_percent,
    format_points,
    format_range,
    read_p_value,
)
from sentifactory.evaluation.markdown import build_table, escape
from sentifactory.evaluation.provenance import describe_command, describe_machine, describe_versions
from sentifactory.evaluation.significance import compare_paired, correct_family
from sentifactory.evaluation.wording import read_interval
from sentifactory.masking import mask_words
from sentifactory.quantities import DASH, format_bytes, format_seconds
from sentifactory.training.answer_loss import WHOLE_ANSWER
from sentifactory.training.pictures import draw_sweep
from sentifactory.training.run_card import read_now
from sentifactory.training.search_space import LOSS, TASK
from sentifactory.training.trial import FINISHED, write_recipe

if TYPE_CHECKING:
    from sentifactory.training.sweep_plan import SweepPlan

SWEEP_VERSION = 1
BEST = "best.yaml"
_FIGURES = ("Macro F1 (95%)", "Accuracy (95%)", "Training", "Peak memory", "Trunk cache")
CACHE_NOTE = (
    "Trials take the frozen layers' output of a review from the cache of an earlier trial where it is the same: same "
    "model, same prompt, as many frozen layers, same loss. Another number of layers needs the states after another "
    "layer, another prompt gives every review another beginning, and the loss of the label alone ends a review "
    "earlier: these are computed once more, by the first trial that needs them."
)
CHOICE_NOTE = (
    "The best of several trials is flattered by the choice. What it is worth is for test reviews to say, once, which "
    "this sweep has not looked at."
)


def rank_trials(outcomes: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Return the numbers of the finished trials, the best macro-F1 first; of equals the more accurate, the earlier."""
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
    """Return the result as plain JSON values; the best trial stands first, and those without a score last."""
    order = [*ranked, *(number for number in begun if number not in ranked)]
    start = plan.find_start()
    first = next((number for number in sorted(ranked) if begun[number] == start), None)
    return {
        "sweep_version": SWEEP_VERSION,
        "created_at": read_now(),
        "recipe": str(plan.options.recipe),
        "overrides": mask_words(plan.options.overrides),
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
    """Leave out what is long and stands in the trial's own folder."""
    return {key: value for key, value in outcome.items() if key != "right"}


def compare_answers(
    outcomes: Mapping[int, Mapping[str, Any]], first: int | None, second: int
) -> dict[str, Any] | None:
    """Return the paired test of two trials on the same reviews; None where there are no two.

    The second is the best of all trials: all that finished are compared with the first, and are one family (Holm).
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
    """Write every form of the result into the sweep's folder."""
    folder = plan.options.output_dir
    write_json(folder / "sweep.json", result)
    write_text(folder / "sweep.md", render_markdown(result))
    if result["best"] is None:
        return
    draw_sweep(result, folder / "sweep.png")
    write_best(result, plan, folder / BEST)


def write_best(result: Mapping[str, Any], plan: SweepPlan, path: Path) -> None:
    """Write the best trial's recipe as a file that `sentifactory train` takes."""
    best = result["trials"][0]
    values, metrics = best["values"], best["metrics"]
    settings = {**plan.build_settings(values), "output_dir": str(path.parent / "best")}
    loss = f" --loss {values[LOSS]}" if values.get(LOSS, WHOLE_ANSWER) != WHOLE_ANSWER else ""
    asked = plan.tasks[values[TASK]] if TASK in values else plan.chosen.task
    header = (
        f"Purpose:    the best of {len(result['trials'])} trials of a sweep, trial {best['number']}: "
        f"{format_values(values)}.\n"
        f"            Macro-F1 {format_percent(metrics['macro_f1'])} on {metrics['reviews']} validation reviews.\n"
        f"Must exist: {settings['model_name_or_path']}, and the data set {settings['dataset']} in "
        f"{settings.get('dataset_dir', 'data')}\n"
        f"Command:    sentifactory train {path}{loss}\n"
        f"            The model's folder says what it is asked, the task {asked.name}"
        + ("; ask it with --mode score.\n" if loss else ".\n")
        + f"Output:     {settings['output_dir']}"
    )  # fmt: skip
    write_recipe(path, settings, header)


def format_value(value: Any) -> str:
    """Return a value of the search space with the digits that count.

    Example:
        >>> format_value(0.000123456), format_value(6), format_value("label")
        ('0.000123', '6', 'label')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_values(values: Mapping[str, Any]) -> str:
    """Return the values of a trial in a line."""
    return ", ".join(f"{key} {format_value(value)}" for key, value in values.items())


def list_cells(trial: Mapping[str, Any]) -> list[str]:
    """Return the cells of a trial after its number and values; what is not known is a dash."""
    if trial["status"] != FINISHED:
        return [trial["status"], *[DASH] * (len(_FIGURES) - 1)]
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


def describe_cache(trunk: Mapping[str, Any] | None) -> str:
    """Return how often the trunk cache answered in a run."""
    if trunk is None or not trunk["is_on"]:
        return f"off ({trunk['note']})" if trunk else DASH
    used = trunk.get("samples")
    return f"{used['taken']} taken, {used['computed']} computed" if used else DASH


def build_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the table, its header first."""
    keys = list(result["space"])
    rows = [["Trial", *keys, *_FIGURES]]
    for trial in result["trials"]:
        values = [format_value(trial["values"][key]) for key in keys]
        rows.append([str(trial["number"]), *values, *list_cells(trial)])
    return rows


def describe_best(result: Mapping[str, Any]) -> str:
    """Return which trial is the best, and whether it is better than the recipe as it was."""
    if result["best"] is None:
        return "No trial has ended well."
    best = result["trials"][0]
    text = f"Best: trial {best['number']} ({format_values(best['values'])}), macro-F1 "
    text += f"{format_percent(best['metrics']['macro_f1'])} on {best['metrics']['reviews']} validation reviews."
    test = result["best_against_start"]
    if test is None:
        return text + (" It is the recipe as it was." if result["start"] == best["number"] else "")
    how = "This is more than chance" if test["is_shown_holm"] else "That it is better is not shown"
    spread = format_range(read_interval(test["interval"]), "to")
    corrected = "" if test["p_value_holm"] is None else ", corrected for all trials (Holm)"
    return (
        f"{text} Against the recipe as it was (trial {result['start']}): {format_points(test['difference'])} points "
        f"of accuracy ({spread}; {format_p_value(read_p_value(test))}{corrected}). {how}."
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
