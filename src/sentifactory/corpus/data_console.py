"""The picture of a data set, and a list of doubtful labels, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.findings import build_findings
from sentifactory.corpus.quoting import quote_for_terminal
from sentifactory.corpus.wording import name_part

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 100  # columns where the output is no terminal
DOUBTFUL_SHOWN = 5
STYLES = {"bad": "bold red", "note": "", "good": "green"}


def print_picture(picture: Mapping[str, Any]) -> None:
    """Print what the page shows on stdout: findings, counts, lengths, overlaps, doubtful labels and samples."""
    console = _open_console()
    findings = build_findings(picture)
    console.print(f"{picture['name']}: {findings['headline']['en']}", style="bold")
    for sentence in findings["sentences"]:
        console.print(f"- {sentence['en']}", style=STYLES[sentence["kind"]])
    console.print(_build_counts(picture))
    if picture["domains"]:
        console.print(_build_domains(picture))
    for unit, lengths in picture["lengths"].items():
        if lengths["all"]:
            console.print(_build_lengths(unit, lengths))
    console.print(_build_overlaps(picture))
    if picture["doubtful"].get("rows"):
        rows = picture["doubtful"]["rows"]
        console.print(build_doubtful(rows[:DOUBTFUL_SHOWN], picture["doubtful"]["contradicted"], console.width))
    for label, samples in picture["samples"].items():
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
    """Return an empty table. Its title and headers are words of ours; `title` may hold a user's, so no markup."""
    from rich.table import Table
    from rich.text import Text

    return Table(title=Text(title), title_justify="left")


def _add_text_column(table: Table) -> None:
    """Add a column that takes the room that the others leave, and cuts what is longer."""
    table.expand = True
    table.add_column("review", overflow="ellipsis", no_wrap=True, ratio=1)


def _build_counts(picture: Mapping[str, Any]) -> Table:
    table = _start_table("Reviews by part")
    table.add_column("")
    columns = list(next(iter(picture["parts"].values()))["labels"]) if picture["parts"] else []
    columns += [name for part in picture["parts"].values() for name in part["labels"] if name not in columns]
    for name in (*columns, "all"):
        table.add_column(name, justify="right")
    for part, figures in picture["parts"].items():
        counts = [figures["labels"].get(name, 0) for name in columns]
        table.add_row(name_part(part)[0], *(f"{n:,}" for n in (*counts, figures["rows"])))
    return table


def _build_domains(picture: Mapping[str, Any]) -> Table:
    table = _start_table("Reviews by domain")
    table.add_column("")
    for part in picture["parts"]:
        table.add_column(name_part(part)[0], justify="right")
    for domain, by_part in picture["domains"].items():
        counts = [sum(by_part.get(part, {}).values()) for part in picture["parts"]]
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


def _build_overlaps(picture: Mapping[str, Any]) -> Table:
    table = _start_table("Repeats and leaks")
    for name in ("", "same text", "near repeat"):
        table.add_column(name, justify="right" if name else "left")
    for leak in picture["leaks"]:
        one, other = (name_part(part)[0] for part in leak["parts"])
        table.add_row(f"of {other} in {one}", f"{leak['exact']:,}", f"{leak['near']:,}")
    repeats = picture["repeats"]
    table.add_row("within the data", f"{repeats['repeated_rows']:,}", f"{repeats['near_texts']:,}")
    table.add_row("under more than one label", f"{repeats['contradicting_texts']:,}", "")
    return table


def _build_samples(label: str, samples: Sequence[Mapping[str, Any]], width: int) -> Table:
    table = _start_table(f"Samples: {label}")
    table.add_column("line", no_wrap=True)
    _add_text_column(table)
    for item in samples:
        line = f"{item['part']} {item['line']}" if item["part"] != "file" else str(item["line"])
        table.add_row(line, quote_for_terminal(item["text"], width))
    return table
