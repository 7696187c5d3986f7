"""The comparison as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentifactory.evaluation.verdict import format_p_value, format_percent, format_points

if TYPE_CHECKING:
    from rich.table import Table

TITLES = {"majority": "majority", "base": "base", "tuned": "tuned", "tfidf": "TF-IDF"}
MEASURES = ("accuracy", "precision", "recall", "f1", "macro_f1", "coverage")
PLAIN_WIDTH = 100  # columns where the output is no terminal


def print_report(report: Mapping[str, Any]) -> None:
    """Print figures, confusion matrices and verdict on stdout."""
    import sys

    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False)
    for warning in report["warnings"]:
        console.print(f"WARNING: {warning['en']}", style="bold red")
    console.print(_build_figures(report))
    for name in ("base", "tuned"):
        console.print(_build_confusion(report, name))
    test = report["paired_tests"]["tuned_vs_base"]
    low, high = (report["models"]["tuned"]["metrics"]["accuracy_interval"][end] for end in ("low", "high"))
    console.print(
        f"tuned against base: {test['fixed']} fixed, {test['broken']} broken, "
        f"exact McNemar {format_p_value(test['p_value'])}; "
        f"95% interval of tuned {format_percent(low)} to {format_percent(high)}"
    )
    console.print(report["verdict"]["headline"]["en"], style="bold")
    for sentence in report["verdict"]["details"]:
        console.print(sentence["en"])
    if "leak_check" in report["data"]:  # older reports have none
        console.print(f"Leak check: {report['data']['leak_check']['summary']}")


def _build_figures(report: Mapping[str, Any]) -> Table:
    from rich.table import Table

    models = report["models"]
    others = [name for name in ("tfidf", "majority") if name in models]
    n = models["base"]["metrics"]["reviews"]
    table = Table(title=f"{n} reviews of {report['data']['test']['file']}", title_justify="left")
    table.add_column("")
    for name in ("base", "tuned", "difference", *others):
        table.add_column(TITLES.get(name, name), justify="right")
    for measure in MEASURES:
        base, tuned = (models[name]["metrics"][measure] for name in ("base", "tuned"))
        cells = [format_percent(base), format_percent(tuned), format_points(tuned - base)]
        cells += [format_percent(models[name]["metrics"][measure]) for name in others]
        table.add_row("F1" if measure == "f1" else measure.replace("_", " ").replace("f1", "F1"), *cells)
    speeds = [models[name]["reviews_per_s"] for name in ("base", "tuned")]
    table.add_row("reviews/s", *(f"{speed:.1f}" if speed else "-" for speed in speeds), "")
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
