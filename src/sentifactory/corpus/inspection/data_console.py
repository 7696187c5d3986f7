"""Prints the profile of a data set, or a list of doubtful labels, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sentifactory.bilingual import name_part
from sentifactory.corpus.inspection.display_text import quote_for_terminal
from sentifactory.corpus.inspection.findings import build_findings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 100  # columns where the output is not a terminal
DOUBTFUL_SHOWN = 5
STYLES = {"bad": "bold red", "note": "", "good": "green"}


def print_profile(profile: Mapping[str, Any]) -> None:
    """Print the content of the page: findings, counts, lengths, overlaps, doubtful labels and samples."""
    console = _open_console()
    findings = build_findings(profile)
    console.print(f"{profile['name']}: {findings['headline']['en']}", style="bold")
    for sentence in findings["sentences"]:
        console.print(f"- {sentence['en']}", style=STYLES[sentence["kind"]])
    console.print(_build_counts(profile))
    if profile["domains"]:
        console.print(_build_domains(profile))
    for unit, lengths in profile["lengths"].items():
        if lengths["all"]:
            console.print(_build_lengths(unit, lengths))
    console.print(_build_overlaps(profile))
    if profile["doubtful"].get("rows"):
        rows = profile["doubtful"]["rows"]
        console.print(build_doubtful(rows[:DOUBTFUL_SHOWN], profile["doubtful"]["contradicted"], console.width))
    for label, samples in profile["samples"].items():
        console.print(_build_samples(label, samples, console.width))


def print_doubtful(rows: Sequence[Mapping[str, Any]], n_contradicted: int) -> None:
    """Print the most doubtful labels on stdout."""
    if rows:
        console = _open_console()
        console.print(build_doubtful(rows, n_contradicted, console.width))


def build_doubtful(rows: Sequence[Mapping[str, Any]], n_contradicted: int, width: int) -> Table:
    """Return the most doubtful labels as a table."""
    table = _start_table(f"Doubtful labels: the first {len(rows)} of {n_contradicted:,}")
    for name in ("line", "label", "suggested"):
        table.add_column(name, no_wrap=True)
    table.add_column("p", justify="right")
    _add_text_column(table)
    for row in rows:
        line = f"{row['part']} {row['line']}" if row["part"] != "file" else str(row["line"])
        text = quote_for_terminal(row["text"], width)
        table.add_row(line, row["label"], row["suggested_label"], f"{row['probability']:.3f}", text)
    return table


def _open_console() -> Console:
    import sys

    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False, emoji=False)


def _start_table(title: str) -> Table:
    """Return an empty table. The title may hold words of the user, so it is not parsed as markup."""
    from rich.table import Table
    from rich.text import Text

    return Table(title=Text(title), title_justify="left")


def _add_text_column(table: Table) -> None:
    """Add a column that takes the remaining width, and truncates longer texts."""
    table.expand = True
    table.add_column("review", overflow="ellipsis", no_wrap=True, ratio=1)


def _build_counts(profile: Mapping[str, Any]) -> Table:
    table = _start_table("Reviews by part")
    table.add_column("")
    columns = list(next(iter(profile["parts"].values()))["labels"]) if profile["parts"] else []
    columns += [name for part in profile["parts"].values() for name in part["labels"] if name not in columns]
    for name in (*columns, "all"):
        table.add_column(name, justify="right")
    for part, figures in profile["parts"].items():
        counts = [figures["labels"].get(name, 0) for name in columns]
        table.add_row(name_part(part)[0], *(f"{n:,}" for n in (*counts, figures["rows"])))
    return table


def _build_domains(profile: Mapping[str, Any]) -> Table:
    table = _start_table("Reviews by domain")
    table.add_column("")
    for part in profile["parts"]:
        table.add_column(name_part(part)[0], justify="right")
    for domain, by_part in profile["domains"].items():
        counts = [sum(by_part.get(part, {}).values()) for part in profile["parts"]]
        table.add_row(domain or "(none)", *(f"{n:,}" for n in counts))
    return table


def _build_lengths(unit: str, lengths: Mapping[str, Any]) -> Table:
    table = _start_table(f"Length in {unit}")
    table.add_column("")
    for name in ("reviews", "min", "median", "mean", "95%", "99%", "max"):
        table.add_column(name, justify="right")
    for name, figures in [*lengths["labels"].items(), ("all", lengths["all"])]:
        if figures:
            table.add_row(name, *(f"{value:,}" for value in figures.values()))
    return table


def _build_overlaps(profile: Mapping[str, Any]) -> Table:
    table = _start_table("Duplicates and leaks")
    for name in ("", "same text", "near duplicate"):
        table.add_column(name, justify="right" if name else "left")
    for leak in profile["leaks"]:
        one, other = (name_part(part)[0] for part in leak["parts"])
        table.add_row(f"of {other} in {one}", f"{leak['exact']:,}", f"{leak['near']:,}")
    repeats = profile["repeats"]
    table.add_row("within the data", f"{repeats['repeated_rows']:,}", f"{repeats['near_texts']:,}")
    table.add_row("with more than one label", f"{repeats['contradicting_texts']:,}", "")
    return table


def _build_samples(label: str, samples: Sequence[Mapping[str, Any]], width: int) -> Table:
    table = _start_table(f"Samples: {label}")
    table.add_column("line", no_wrap=True)
    _add_text_column(table)
    for item in samples:
        line = f"{item['part']} {item['line']}" if item["part"] != "file" else str(item["line"])
        table.add_row(line, quote_for_terminal(item["text"], width))
    return table
