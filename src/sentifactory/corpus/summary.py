"""A manifest in a few readable lines."""

from __future__ import annotations

from typing import Any

from sentifactory.corpus.dataset_info import name_dataset
from sentifactory.corpus.export import is_registered
from sentifactory.corpus.garbled import word_garbled


def summarise_manifest(manifest: dict[str, Any], output_dir: str) -> str:
    """Return what `data prepare` prints; leaks that were kept stand in the first line."""
    rows, parts, leaks = manifest["rows"], manifest["parts"], manifest["leak_check"]
    reasons = ", ".join(f"{reason} {n}" for reason, n in rows["rejected_by_reason"].items() if n) or "none"
    labels = manifest["task"]["labels"]
    lines = []
    if leaks["exact"] or leaks["near"]:
        lines.append(
            f"LEAKS KEPT AS ASKED: {leaks['exact']} exact and {leaks['near']} near repeats between the official splits"
        )
    lines += [f"Warning: {english}" for english, _ in word_garbled(manifest.get("suspect_texts", {}))]
    lines.append(f"{rows['in']} rows read = {rows['kept']} kept + {rows['rejected']} left out ({reasons})")
    files: dict[str, list[str]] = {}
    for one in manifest["inputs"]:
        if one["read_as"]:
            files.setdefault(one["read_as"], []).append(one["file"])
    if files:
        lines.append("Read as " + "; ".join(f"{said} ({', '.join(names)})" for said, names in files.items()))
    width = max(8, *(len(part) + 1 for part in parts))
    columns = [max(12, len(label) + 2) for label in (*labels, "all")]
    lines.append(
        " " * width + "".join(f"{label:>{column}}" for label, column in zip([*labels, "all"], columns, strict=True))
    )
    for part, counts in parts.items():
        numbers = [*(counts["labels"][label] for label in labels), counts["rows"]]
        copies = f"  ({counts['copies']} of them copies)" if "copies" in counts else ""
        cells = "".join(f"{number:>{column}}" for number, column in zip(numbers, columns, strict=True))
        lines.append(f"{part:{width}}{cells}{copies}")
    near = manifest["near_repeats"]
    lines.append(
        f"Near repeats: {near['rows']} rows in {near['groups']} groups, each within one part; "
        f"leaks between the parts: {leaks['exact']} exact, {leaks['near']} near"
    )
    folder = f"{output_dir}/{manifest['name']}"
    lines.append(f"Written to {folder}: {', '.join(manifest['outputs'])}, manifest.json")
    registered = [
        name_dataset(manifest["name"], part)
        for part in parts
        if is_registered(part) and f"{part}.jsonl" in manifest["outputs"]
    ]
    lines.append(f"Registered in {output_dir}/dataset_info.json: {', '.join(registered)}")
    return "\n".join(lines)
