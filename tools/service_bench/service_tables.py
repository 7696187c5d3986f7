"""Renders the figures of `make bench-serve` as a Markdown page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sentifactory.system.formats import build_table

# The comparisons: our service and the plain service of the same model.
PAIRS = (("onnx", "plain encoder"), ("encoder", "plain encoder"), ("vllm", "plain generate"))


def render_tables(report: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    lines = ["# Serving, measured", "", f"Machine: {json.dumps(report['machine'], ensure_ascii=False)}", ""]
    if "load" in report:
        lines += ["## Load", "", *_tabulate_load(report["load"]), "", *_compare_pairs(report["load"]), ""]
    if "overload" in report:
        lines += ["## At four times the throughput", "", *_tabulate_overload(report["overload"]), ""]
    for part, title in (
        ("chaos", "Faults"),
        ("schema", "Requests generated from the API description"),
        ("label", "Labelling with kills"),
    ):
        if part in report:
            lines += [f"## {title}", "", *_tabulate_facts(report[part]), ""]
    return "\n".join(lines)


def _tabulate_load(load: Mapping[str, Any]) -> list[str]:
    rows = [["service", "loop", "sent/s", "answered/s", "p50 ms", "p95 ms", "p99 ms", "statuses"]]
    for name, facts in load.items():
        for loop in ("closed", "open"):
            one = facts[loop]
            sent = f"{one['sent_per_s']:.1f}" if loop == "open" else f"{facts['clients']} clients"
            rows.append([name, loop, sent, f"{one['per_s']:.1f}", *_spell(one["latency_ms"]), _list(one["statuses"])])
    return build_table(rows)


def _compare_pairs(load: Mapping[str, Any]) -> list[str]:
    paces = {name: facts["closed"]["per_s"] for name, facts in load.items()}
    return [
        f"- {ours}: {paces[ours] / paces[plain]:.1f} times the throughput of {plain}"
        for ours, plain in PAIRS
        if ours in paces and paces.get(plain)
    ]


def _tabulate_overload(overload: Mapping[str, Any]) -> list[str]:
    rows = [["service", "sent/s", "for s", "requests", "answered/s", "statuses", "p99 of 200 ms", "p99 of 429 ms"]]
    for name, one in overload.items():
        p99 = [str((one[key] or {}).get("p99", "")) for key in ("latency_ms", "latency_429_ms")]
        counted = [str(one["requests"]), f"{one['per_s']:.1f}", _list(one["statuses"])]
        rows.append([name, str(one["sent_per_s"]), str(one["sent_s"]), *counted, *p99])
    return build_table(rows)


def _tabulate_facts(part: Mapping[str, Any]) -> list[str]:
    """Return a table with one row per figure, named by its path."""
    rows = [["what", "figure", "value"]]
    for name, facts in part.items():
        nested = {key: value for key, value in facts.items() if isinstance(value, dict) and key != "statuses"}
        plain = {key: value for key, value in facts.items() if key not in nested}
        rows += [[name, key, _show(value)] for key, value in plain.items()]
        for group, figures in nested.items():
            rows += [[f"{name}: {group}", key, _show(value)] for key, value in figures.items()]
    return build_table(rows)


def _show(value: Any) -> str:
    return _list(value) if isinstance(value, dict) else str(value)


def _spell(latencies: Mapping[str, float] | None) -> Sequence[str]:
    return [str(latencies[name]) for name in ("p50", "p95", "p99")] if latencies else ["", "", ""]


def _list(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{number} × {name}" for name, number in counts.items())
