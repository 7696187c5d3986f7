"""Writes measured figures into the guides: memory from dry runs, everything else from benchmarks.

Example:
    python -m tools.docs.figures --memory --ladder saves/ladder/ladder.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.errors import ConfigError
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.json_text import read_json
from sentifactory.system.progress import say
from tools.benches.process_scaling import write_growth_table, write_reduce_table
from tools.docs.evaluation_parts import write_ladder_part
from tools.docs.memory_part import QWEN, estimate_recipes, write_memory_part
from tools.docs.page_parts import replace_part
from tools.docs.seeds_part import write_seeds_part
from tools.docs.serve_part import write_serve_part
from tools.docs.training_parts import write_methods_part, write_speed_part
from tools.gpu_check.gpu_check_report import write_report
from tools.gpu_check.wheels import write_table
from tools.service_bench.replicas import write_replicas_table

SUFFIXES = {"en": "", "zh": "_zh"}


def write_figures(
    memory: Annotated[bool, typer.Option("--memory", help="Estimate the recipes and fill the memory table.")] = False,
    model: Annotated[
        str, typer.Option("--model", help="Hub id or folder with the configuration and tokenizer.")
    ] = QWEN,
    ladder: Annotated[
        Path | None, typer.Option("--ladder", help="The ladder.json of `sentifactory eval ladder`.")
    ] = None,
    serve: Annotated[Path | None, typer.Option("--serve", help="The serve.json of `make bench-serve`.")] = None,
    methods: Annotated[
        Path | None, typer.Option("--methods", help="The methods.json of `make bench-methods`.")
    ] = None,
    train_step: Annotated[
        Path | None, typer.Option("--train_step", help="The train_step.json of `make bench-train`.")
    ] = None,
    seeds: Annotated[Path | None, typer.Option("--seeds", help="The recipe_seeds.json of `make bench-seeds`.")] = None,
    gpu_check: Annotated[
        Path | None, typer.Option("--gpu_check", help="The gpu_check.json of tools.gpu_check.gpu_check.")
    ] = None,
    wheels: Annotated[Path | None, typer.Option("--wheels", help="The wheels.json of tools.gpu_check.wheels.")] = None,
    scaling: Annotated[
        Path | None, typer.Option("--scaling", help="The process_scaling.json of tools.benches.process_scaling.")
    ] = None,
    replicas: Annotated[
        Path | None, typer.Option("--replicas", help="The replicas.json of tools.service_bench.replicas.")
    ] = None,
    contexts: Annotated[Path, typer.Option("--contexts", help="Folder of the guides.")] = Path("contexts"),
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where memory.json goes.")] = Path("saves/bench"),
) -> None:
    """Write measured figures into the guides, in both languages."""
    files = (ladder, serve, methods, train_step, seeds, gpu_check, wheels, scaling, replicas)
    if not memory and all(file is None for file in files):
        options = (
            "--memory, or the FILE of --ladder, --serve, --methods, --train_step, --seeds, --gpu_check, --wheels, "
            "--scaling, --replicas"
        )
        raise ConfigError("There is nothing to write", expected=options)
    if methods is not None:
        bench = read_report(methods, {"rows", "training_reviews", "machine"}, "make one with `make bench-methods`")
        fill_part(contexts, "training", "methods", {one: write_methods_part(bench, one) for one in SUFFIXES})
    if train_step is not None:
        bench = read_report(train_step, {"rows", "task", "machine"}, "make one with `make bench-train`")
        fill_part(contexts, "training", "speed", {one: write_speed_part(bench, one) for one in SUFFIXES})
    if seeds is not None:
        bench = read_report(seeds, {"rows", "models", "machine"}, "make one with `make bench-seeds`")
        fill_part(contexts, "training", "seeds", {one: write_seeds_part(bench, one) for one in SUFFIXES})
    if gpu_check is not None:
        bench = read_report(gpu_check, {"parts", "gpu", "machine", "versions"}, "run tools.gpu_check.gpu_check")
        fill_part(contexts, "scaling_out", "gpu", {one: write_report(bench, one, is_short=True) for one in SUFFIXES})
    if wheels is not None:
        bench = read_report(wheels, {"wheels", "size_bytes"}, "run tools.gpu_check.wheels")
        fill_part(contexts, "scaling_out", "wheels", {one: write_table(bench, one) for one in SUFFIXES})
    if scaling is not None:
        bench = read_report(scaling, {"samples_per_s", "recipes", "machine"}, "run tools.benches.process_scaling")
        fill_part(contexts, "scaling_out", "growth", {one: write_growth_table(bench, one) for one in SUFFIXES})
        fill_part(contexts, "scaling_out", "reduce", {one: write_reduce_table(bench, one) for one in SUFFIXES})
    if replicas is not None:
        bench = read_report(replicas, {"cases", "rows", "machine"}, "run tools.service_bench.replicas")
        fill_part(contexts, "scaling_out", "replicas", {one: write_replicas_table(bench, one) for one in SUFFIXES})
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
    """Replace a generated part of a page in each language.

    Raises:
        ConfigError: if a page is missing or does not contain the part.
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
    """Read the JSON report of a command.

    Args:
        path: the JSON file.
        parts: the keys that it must have.
        next_step: how to create it, for errors.

    Raises:
        ConfigError: if it cannot be read or lacks a key.
    """
    try:
        report = read_json(path)
        if not isinstance(report, dict) or not report.keys() >= parts:
            raise ValueError(f"it lacks one of {', '.join(sorted(parts))}")
    except (OSError, ValueError) as error:
        raise ConfigError(f"There are no figures to show: {error}", where=str(path), next_step=next_step) from error
    return report


if __name__ == "__main__":
    run_script(write_figures)
