"""The comparison as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentifactory.evaluation.formats import format_points, format_range
from sentifactory.evaluation.wording import explain_no_probabilities, list_figures, read_interval
from sentifactory.quantities import DASH

if TYPE_CHECKING:
    from rich.table import Table

TITLES = {"majority": "majority", "base": "base", "tuned": "tuned", "tfidf": "TF-IDF"}
PLAIN_WIDTH = 120  # columns where the output is no terminal


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
    for further in report["further_tests"]:
        console.print(_build_figures(further))
        console.print(f"Leak check: {further['data']['test']['leak_check']['summary']}")
        change = further["from_first"]["tuned"]
        console.print(further["verdict"]["headline"]["en"], style="bold")
        console.print(
            f"Tuned, against its accuracy on the first file: {format_points(change['difference'])} points, "
            f"95% interval {format_range(read_interval(change['interval']), 'to')}"
        )


def _build_figures(result: Mapping[str, Any]) -> Table:
    from rich.table import Table

    models = result["models"]
    names = [name for name in ("base", "tuned", "tfidf", "majority") if name in models]
    n = models["base"]["metrics"]["reviews"]
    table = Table(title=f"{n} reviews of {result['data']['test']['file']}", title_justify="left")
    table.add_column("")
    for name in (*names[:2], "tuned - base", *names[2:]):
        table.add_column(TITLES.get(name, name), justify="right")
    for figure in list_figures(result):
        cells = [figure.show_value(value.value) if (value := figure.values[name]) else DASH for name in names]
        table.add_row(figure.title.en, *cells[:2], figure.show_difference(), *cells[2:])
    return table


def _build_confusion(report: Mapping[str, Any], name: str) -> Table:
    from rich.table import Table

    labels = report["task"]["labels"]
    table = Table(title=f"{TITLES[name]}: rows are true, columns are answered", title_justify="left")
    table.add_column("")
    for label in (*labels, "unparsed"):
        table.add_column(label, justify="right")
    for label, row in zip(labels, report["models"][name]["metrics"]["confusion"], strict=True):
        table.add_row(label, *map(str, row))
    return table
