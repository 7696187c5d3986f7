"""The report as Markdown, to paste into a pull request: verdict, figures, test files, where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sentifactory.evaluation.formats import format_percent, format_points, format_range
from sentifactory.evaluation.mistake_files import each_test
from sentifactory.evaluation.wording import explain_no_probabilities, list_figures, name_contender, read_interval
from sentifactory.quantities import DASH

HASH_SHOWN = 12


def render_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown, in English; the page has both languages."""
    parts = ["# Base against tuned", ""]
    parts += [f"> **Warning:** {escape(warning['en'])}\n" for warning in report["warnings"]]
    parts += [f"**{escape(report['verdict']['headline']['en'])}**", ""]
    parts += [f"- {escape(detail['en'])}" for detail in report["verdict"]["details"]]
    parts += ["", f"## {escape(_describe_test(report['data']['test']))}", "", *build_figures(report)]
    if (why := explain_no_probabilities(report)) is not None:
        parts += ["", why.en]
    if report["further_tests"]:
        parts += ["", "## Other test files", "", *build_tests(report)]
    parts += ["", "## Where this comes from", "", *build_provenance(report), ""]
    return "\n".join(parts)


def build_figures(result: Mapping[str, Any]) -> list[str]:
    """Return the table of figures with their intervals, one column a model."""
    names = list(result["models"])
    rows = [["", *(name_contender(name).en for name in names), "tuned − base"]]
    for figure in list_figures(result):
        cells = [figure.show(name) for name in names]
        rows.append([figure.title.en, *cells, figure.show_difference()])
    return build_table(rows)


def build_tests(report: Mapping[str, Any]) -> list[str]:
    """Return the table of test files: accuracies, and tuned against base on each."""
    rows = [["test file", "reviews", "base", "tuned", "tuned − base", "tuned, against the first file"]]
    for result in each_test(report):
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
    """Return command, files, models, versions and machine as a list."""
    lines = [f"- command: `{report['command']}`"]
    for result in each_test(report):
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


def escape(text: str) -> str:
    """Return words in which nothing is Markdown or HTML."""
    for mark in "\\`*_<>|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _describe_test(facts: Mapping[str, Any]) -> str:
    return f"{facts['asked']} of {facts['reviews']} reviews of {facts['file']}"


def _describe_file(facts: Mapping[str, Any]) -> str:
    words = [f"`{facts['file']}`", f"sha256 {facts['sha256'][:HASH_SHOWN]}", f"{facts['reviews']} reviews"]
    if "manifest_sha256" in facts:
        words.append(f"manifest {facts['manifest_sha256'][:HASH_SHOWN]}")
    if "leak_check" in facts:
        words.append(f"leak check: {escape(facts['leak_check']['summary'])}")
    return ", ".join(words)


def build_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table; the first row is its header, and all columns but the first stand to the right."""
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *body)]
