"""Fills the parts of the guides that hold measured figures: memory by dry runs, everything else by benches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.atomic import write_json, write_text
from sentifactory.errors import ConfigError
from sentifactory.guides.ladder_part import write_ladder_part
from sentifactory.guides.memory_part import QWEN, estimate_recipes, write_memory_part
from sentifactory.guides.parts import replace_part
from sentifactory.guides.serve_part import write_serve_part
from sentifactory.guides.training_parts import write_methods_part, write_speed_part
from sentifactory.progress import say

SUFFIXES = {"en": "", "zh": "_zh"}


def write_figures(
    memory: Annotated[bool, typer.Option("--memory", help="Estimate the recipes and fill the memory table.")] = False,
    model: Annotated[str, typer.Option("--model", help="Its configuration and tokenizer: hub id or folder.")] = QWEN,
    ladder: Annotated[
        Path | None, typer.Option("--ladder", help="A ladder.json of `sentifactory eval ladder`, for its table.")
    ] = None,
    serve: Annotated[Path | None, typer.Option("--serve", help="The serve.json of `make bench-serve`.")] = None,
    methods: Annotated[
        Path | None, typer.Option("--methods", help="The methods.json of `make bench-methods`.")
    ] = None,
    train_step: Annotated[
        Path | None, typer.Option("--train_step", help="The train_step.json of `make bench-train`.")
    ] = None,
    contexts: Annotated[Path, typer.Option("--contexts", help="Folder of the guides.")] = Path("contexts"),
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where memory.json goes.")] = Path("saves/bench"),
) -> None:
    """Write measured figures into the guides, in both languages."""
    if not memory and all(file is None for file in (ladder, serve, methods, train_step)):
        options = "--memory, --ladder FILE, --serve FILE, --methods FILE, --train_step FILE, or several"
        raise ConfigError("There is nothing to write", expected=options)
    if methods is not None:
        bench = read_report(methods, {"rows", "training_reviews", "machine"}, "make one with `make bench-methods`")
        fill_part(contexts, "training", "methods", {one: write_methods_part(bench, one) for one in SUFFIXES})
    if train_step is not None:
        bench = read_report(train_step, {"rows", "task", "machine"}, "make one with `make bench-train`")
        fill_part(contexts, "training", "speed", {one: write_speed_part(bench, one) for one in SUFFIXES})
    if serve is not None:
        bench = read_report(serve, {"machine", "load", "overload"}, "make one with `make bench-serve`")
        fill_part(contexts, "serving", "load", {one: write_serve_part(bench, one) for one in SUFFIXES})
    if ladder is not None:
        found = read_report(
            ladder, {"rungs", "data", "machine", "command"}, "make one with `sentifactory eval ladder`"
        )
        fill_part(contexts, "which_model", "ladder", {one: write_ladder_part(found, one) for one in SUFFIXES})
    if memory:
        estimates = []
        for estimate in estimate_recipes(model):
            say(f"Estimated  {estimate['recipe_file']}")
            estimates.append(estimate)
        write_json(output_dir / "memory.json", estimates)
        fill_part(contexts, "training", "memory", {one: write_memory_part(estimates, one) for one in SUFFIXES})


def fill_part(contexts: Path, page: str, part: str, bodies: dict[str, str]) -> None:
    """Write a part of a page in each language.

    Raises:
        ConfigError: when a page is missing or lacks the part.
    """
    for language, body in bodies.items():
        path = contexts / f"{page}{SUFFIXES[language]}.md"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                "The guide cannot be read", where=str(path), next_step="run this in the repository's folder"
            ) from error
        write_text(path, replace_part(text, part, body, str(path)))
        say(f"Written  {path}, {part}")


def read_report(path: Path, parts: set[str], next_step: str) -> dict[str, Any]:
    """Return a report of a command from its file.

    Args:
        path: the file, JSON.
        parts: what it must hold.
        next_step: how it is made.

    Raises:
        ConfigError: when it cannot be read, or lacks a part.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict) or not report.keys() >= parts:
            raise ValueError(f"it lacks one of {', '.join(sorted(parts))}")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"There are no figures to show: {error}", where=str(path), next_step=next_step) from error
    return report
