"""Records of killed comparisons: their reports compared with an undisturbed one, except for times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.system.json_text import read_json

# What may differ between two runs of the same comparison.
TIMES = ("created_at", "latency_s", "start_s", "reviews_per_s", "peak_bytes", "command")


@dataclass(slots=True)
class KillRecord:
    """A kill and its consequences.

    Attributes:
        victim: `comparison` or `vLLM`.
        after_s: seconds from the start of the comparison's process to the kill.
        answers: number of answers saved at that moment.
        survivors: child processes of the killed comparison that were still running a minute later.
        differences: differences between the final report and the undisturbed one; shared by all kills before that
            report.
    """

    victim: str
    after_s: float
    answers: int
    survivors: int = 0
    differences: list[str] = field(default_factory=list)


def read_report(path: Path) -> dict[str, Any]:
    """Read a report without its times and its memory."""
    return dict(drop_times(read_json(path)))


def drop_times(value: Any) -> Any:
    """Return a JSON value without the keys that hold times or memory."""
    if isinstance(value, dict):
        return {key: drop_times(inner) for key, inner in value.items() if key not in TIMES}
    return [drop_times(inner) for inner in value] if isinstance(value, list) else value


def list_differences(one: Any, other: Any, place: str = "$") -> Iterator[str]:
    """Yield the places at which two JSON values differ.

    Example:
        >>> list(list_differences({"a": [1, 2], "b": 0}, {"a": [1, 3], "c": 0}))
        ['$.a[1]: 2, 3', '$.b: only in the first', '$.c: only in the second']
    """
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if key not in one or key not in other:
                yield f"{place}.{key}: only in the {'first' if key in one else 'second'}"
            else:
                yield from list_differences(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (inner, outer) in enumerate(zip(one, other, strict=True)):
            yield from list_differences(inner, outer, f"{place}[{index}]")
    elif one != other:
        yield f"{place}: {str(one)[:60]}, {str(other)[:60]}"


def format_records(records: Sequence[KillRecord], wall_s: float) -> str:
    """Return the kills as a Markdown table with a sentence below it."""
    lines = ["| killed | after s | answers saved | survivors | report |", "|---|---:|---:|---:|---|"]
    for record in records:
        result = "; ".join(record.differences) or "equal"
        lines.append(
            f"| {record.victim} | {record.after_s:.1f} | {record.answers} | {record.survivors} processes | {result} |"
        )
    n_equal = sum(not record.differences for record in records)
    lines += ["", f"{n_equal} of {len(records)} kills led to the undisturbed report; it took {wall_s:.0f} s."]
    return "\n".join(lines)
