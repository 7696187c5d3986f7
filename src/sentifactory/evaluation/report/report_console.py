"""The report as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentifactory.bilingual import MODEL_NAMES
from sentifactory.evaluation.report.adaptation_words import build_adapted
from sentifactory.evaluation.report.figures import explain_no_probabilities, list_figures
from sentifactory.metrics.number_formats import format_points, format_range, read_interval
from sentifactory.system.formats import DASH

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 120  # columns when the output is not a terminal


def print_report(report: Mapping[str, Any]) -> None:
    """Print figures, confusion matrices and verdict of every test file on stdout."""
    import sys

    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False)
    for warning in report["warnings"]:
        console.print(f"WARNING: {warning['en']}", style="bold red")
    console.print(_build_figures(report))
    for name in ("base", "tuned"):
        console.print(_build_confusion(report, name))
    console.print(report["verdict"]["headline"]["en"], style="bold")
    for sentence in report["verdict"]["details"]:
        console.print(sentence["en"])
    leaks = report["data"]["test"]["leak_check"]
    console.print(f"Leak check: {leaks['summary']}")
    if (why := explain_no_probabilities(report)) is not None:
        console.print(why.en)
    print_adapted(console, _build_adapted(report, report["task"]["labels"]))
    for further in report["further_tests"]:
        console.print(_build_figures(further))
        console.print(f"Leak check: {further['data']['test']['leak_check']['summary']}")
        change = further["from_first"]["tuned"]
        console.print(further["verdict"]["headline"]["en"], style="bold")
        console.print(
            f"Tuned, compared with its accuracy on the first file: {format_points(change['difference'])} points, "
            f"95% interval {format_range(read_interval(change['interval']), 'to')}"
        )
        print_adapted(console, _build_adapted(further, report["task"]["labels"]))


def _build_adapted(result: Mapping[str, Any], labels: list[str]) -> dict[str, Any] | None:
    return build_adapted([result], labels) if "adapted" in result else None


def print_adapted(console: Console, adapted: Mapping[str, Any] | None) -> None:
    """Print what adapting to the labels' shares does; nothing where it was not asked for."""
    from rich.table import Table

    if adapted is None:
        return
    for test in adapted["tests"]:
        table = Table(title=adapted["title"].en, title_justify="left")
        for number, column in enumerate(adapted["columns"]):
            table.add_column(column.en, justify="right" if number else "left")
        for row in test["rows"]:
            table.add_row(*(cell.line for cell in row))
        console.print(table)
        for sentence in (test["headline"], *test["refusals"]):
            console.print(sentence.en)


def _build_figures(result: Mapping[str, Any]) -> Table:
    from rich.table import Table

    models = result["models"]
    names = [name for name in ("base", "tuned", "few_shot", "tfidf", "tfidf_all", "majority") if name in models]
    n = models["base"]["metrics"]["reviews"]
    table = Table(title=f"{n} reviews of {result['data']['test']['file']}", title_justify="left")
    table.add_column("")
    titles = [MODEL_NAMES[name].terminal for name in names]
    for title in (*titles[:2], "tuned - base", *titles[2:]):
        table.add_column(title, justify="right")
    for figure in list_figures(result):
        cells = [figure.show_value(value.value) if (value := figure.values[name]) else DASH for name in names]
        table.add_row(figure.title.en, *cells[:2], figure.show_difference(), *cells[2:])
    return table


def _build_confusion(report: Mapping[str, Any], name: str) -> Table:
    from rich.table import Table

    labels = report["task"]["labels"]
    table = Table(title=f"{MODEL_NAMES[name].terminal}: rows are true, columns are answered", title_justify="left")
    table.add_column("")
    for label in (*labels, "unparsed"):
        table.add_column(label, justify="right")
    for label, row in zip(labels, report["models"][name]["metrics"]["confusion"], strict=True):
        table.add_row(label, *map(str, row))
    return table
