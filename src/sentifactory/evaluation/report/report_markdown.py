"""The report as Markdown for a pull request: verdict, figures, test files, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.bilingual import name_model
from sentifactory.evaluation.report import adaptation_words
from sentifactory.evaluation.report.figures import explain_no_probabilities, list_figures
from sentifactory.evaluation.report.mistake_files import list_results
from sentifactory.evaluation.report.shown_paths import hide_folders
from sentifactory.metrics.number_formats import format_percent, format_points, format_range, read_interval
from sentifactory.system.formats import DASH, build_table, escape

HASH_SHOWN = 12
TITLE = "Base against tuned"


def render_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown, in English only."""
    report = hide_folders(report)
    parts = [f"# {TITLE}", ""]
    parts += [f"> **Warning:** {escape(warning['en'])}\n" for warning in report["warnings"]]
    parts += [f"**{escape(report['verdict']['headline']['en'])}**", ""]
    parts += [f"- {escape(detail['en'])}" for detail in report["verdict"]["details"]]
    parts += ["", f"## {escape(_describe_test(report['data']['test']))}", "", *build_figures(report)]
    if (why := explain_no_probabilities(report)) is not None:
        parts += ["", why.en]
    if "adapted" in report:
        adapted = adaptation_words.build_adapted(list_results(report), report["task"]["labels"])
        parts += ["", f"## {adapted['title'].en}", "", *show_adapted(adapted)]
    if report["further_tests"]:
        parts += ["", "## Other test files", "", *build_tests(report)]
    parts += ["", "## Provenance", "", *build_provenance(report), ""]
    return "\n".join(parts)


def build_figures(result: Mapping[str, Any]) -> list[str]:
    """Return the table of figures with their intervals, one column per model."""
    names = list(result["models"])
    rows = [["", *(name_model(name).en for name in names), "tuned − base"]]
    for figure in list_figures(result):
        cells = [figure.show(name) for name in names]
        rows.append([figure.title.en, *cells, figure.show_difference()])
    return build_table(rows)


def show_adapted(adapted: Mapping[str, Any]) -> list[str]:
    """Return what adapting to the labels' shares does on each test file, as tables; see `build_adapted`."""
    lines = []
    for test in adapted["tests"]:
        rows = [[column.en for column in adapted["columns"]], *([cell.line for cell in row] for row in test["rows"])]
        lines += [f"`{test['file']}`: {test['headline'].en}", ""]
        lines += [*build_table(rows), "", *(f"- {why.en}" for why in test["refusals"]), ""]
    return [*lines, adapted["note"].en]


def build_tests(report: Mapping[str, Any]) -> list[str]:
    """Return the table of test files: accuracies, and tuned against base on each."""
    rows = [["test file", "reviews", "base", "tuned", "tuned − base", "tuned, compared with the first file"]]
    for result in list_results(report):
        models = result["models"]
        test = result["paired_tests"]["tuned_vs_base"]
        points = f"{format_points(test['difference'])} ({format_range(read_interval(test['interval']), 'to')})"
        change = result.get("from_first", {}).get("tuned")
        moved = DASH
        if change is not None:
            interval = format_range(read_interval(change["interval"]), "to")
            moved = f"{format_points(change['difference'])} ({interval})"
        shares = [format_percent(models[side]["metrics"]["accuracy"]) for side in ("base", "tuned")]
        n = str(models["base"]["metrics"]["reviews"])
        rows.append([f"`{result['data']['test']['file']}`", n, *shares, points, moved])
    return build_table(rows)


def build_provenance(report: Mapping[str, Any]) -> list[str]:
    """Return a list of command, files, models, versions and machine."""
    lines = [f"- command: `{report['command']}`"]
    for result in list_results(report):
        lines.append(f"- test: {_describe_file(result['data']['test'])}")
    lines += [
        f"- {part}: {_describe_file(report['data'][part])}" for part in ("val", "train") if part in report["data"]
    ]
    for side in ("base", "tuned"):
        model = report["models"][side]
        hashes = ", ".join(f"{file} {sha[:HASH_SHOWN]}" for file, sha in model.get("weights", {}).items())
        lines.append(f"- {side}: `{model['model']}` by {model['engine']}{f' ({hashes})' if hashes else ''}")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    machine = report["machine"]
    lines.append(f"- versions: {versions}")
    lines.append(f"- machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB")
    lines.append(f"- seed: {report['settings']['seed']}; scoring: {report['settings']['scoring']}")
    return lines


def _describe_test(facts: Mapping[str, Any]) -> str:
    return f"{facts['asked']} of {facts['reviews']} reviews of {facts['file']}"


def _describe_file(facts: Mapping[str, Any]) -> str:
    words = [f"`{facts['file']}`", f"sha256 {facts['sha256'][:HASH_SHOWN]}", f"{facts['reviews']} reviews"]
    if "manifest_sha256" in facts:
        words.append(f"manifest {facts['manifest_sha256'][:HASH_SHOWN]}")
    if "leak_check" in facts:
        words.append(f"leak check: {escape(facts['leak_check']['summary'])}")
    return ", ".join(words)
