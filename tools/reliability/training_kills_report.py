"""Runs the kill bench and writes its table."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.system.atomic import write_json, write_text
from tools.reliability.training_kills import SAVE_STEPS, FinishedRun, KillBench, fill_disk, kill_runs, signal_run


def run_kills(kills: int, seed: int, output_dir: Path) -> tuple[str, bool]:
    """Run the bench, write `kills.json` and `kills.md`; return the table, and whether every promise was kept.

    Args:
        kills: number of kills by SIGKILL.
        seed: of model, data and kills.
        output_dir: folder of the two files.
    """
    load_libraries()
    with tempfile.TemporaryDirectory(prefix="sentifactory-kills-") as name:
        bench = KillBench(Path(name), seed)
        kill_runs(bench, kills)
        signal_run(bench)
        disk = fill_disk(bench)
    kept = check_promises(bench, disk)
    table = format_table(bench, disk, kept)
    figures = {
        "kills": kills, "seed": seed, "save_steps": SAVE_STEPS, "undisturbed_s": round(bench.undisturbed_s, 2),
        "promises_kept": kept, "strikes": [{**asdict(one), "lost_steps": one.lost_steps} for one in bench.kills],
        "runs": [asdict(one) for one in bench.finished_runs], "full_disk": disk,
    }  # fmt: skip
    write_json(output_dir / "kills.json", figures)
    write_text(output_dir / "kills.md", table + "\n")
    return table, all(kept.values())


def load_libraries() -> None:
    """Import what every attempt needs, without computing anything."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in (
        "sentifactory.cli", "sentifactory.training.llamafactory.train_recipe", "llamafactory.train.sft.workflow",
        "llamafactory.train.tuner", "transformers.models.gemma3.modeling_gemma3",
    ):  # fmt: skip
        importlib.import_module(name)


def check_promises(bench: KillBench, disk: dict[str, Any]) -> dict[str, bool]:
    """Return whether each promise was kept."""
    killed = [one for one in bench.kills if one.signal == "SIGKILL"]
    promises = {
        "every run ended with the undisturbed run's weights, bit for bit": all(
            one.is_same for one in bench.finished_runs
        ),
        f"at most save_steps ({SAVE_STEPS}) steps were computed again": all(
            one.lost_steps <= SAVE_STEPS for one in killed
        ),
        "SIGTERM lost no step": all(one.lost_steps == 0 for one in bench.kills if one.signal == "SIGTERM"),
    }
    if disk["status"] == "run":
        promises["a full disk was survived"] = bool(
            disk["exit_code"] == 2 and disk["whole_checkpoints"] and disk["continued_step"] and disk["is_same"]
        )
    return promises


def format_table(bench: KillBench, disk: dict[str, Any], kept: dict[str, bool]) -> str:
    """Return the table in Markdown."""
    killed = [one for one in bench.kills if one.signal == "SIGKILL"]
    n_cut = sum(bool(one.cut_off) for one in killed)
    lines = [
        f"{len(killed)} kills by SIGKILL in {len({one.run for one in killed})} runs (an undisturbed one takes "
        f"{bench.undisturbed_s:.1f} s), {n_cut} of them in the middle of saving a checkpoint; a checkpoint every "
        f"{SAVE_STEPS} steps.",
        "",
        *list_promises(kept),
        "",
        "| run | moment | signal | after | step reached | cut off | continued from step | steps lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.run} | {one.aim} | {one.signal} | {one.after_s:.2f} s | {one.reached_step} | "
        f"{', '.join(one.cut_off) or '-'} | {one.continued_step} | {one.lost_steps} |"
        for one in bench.kills
    ]
    return "\n".join([*lines, "", *list_runs(bench.finished_runs), "", _describe_disk(disk)])


def list_promises(kept: Mapping[str, bool]) -> list[str]:
    """Return the lines of the table of promises."""
    rows = (f"| {words} | {'yes' if is_kept else 'NO'} |" for words, is_kept in kept.items())
    return ["| promise | kept |", "|---|---|", *rows]


def list_runs(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the lines of the table of finished runs."""
    rows = (f"| {one.run} | exit code {one.code} | {'yes' if one.is_same else 'NO'} |" for one in runs)
    return ["| run | ended | same weights |", "|---|---|---|", *rows]


def _describe_disk(disk: dict[str, Any]) -> str:
    if disk["status"] != "run":
        return f"Full disk: {disk['status']}"
    return (
        f'Full disk (a small tmpfs): exit code {disk["exit_code"]}, "{disk["message"]}"; whole checkpoints left: '
        f"{', '.join(disk['whole_checkpoints']) or 'none'}. With room made, the same command continued from step "
        f"{disk['continued_step']} and ended with exit code {disk['exit_code_with_room']}, "
        f"{'the same' if disk['is_same'] else 'OTHER'} weights."
    )


def bench_kills(
    kills: Annotated[int, typer.Option(min=1, help="Kills by SIGKILL.")] = 25,
    seed: Annotated[int, typer.Option(help="Seed of model, data and kills.")] = 0,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Output folder.")] = Path("saves/bench"),
) -> None:
    """Kill training runs of a tiny model at random moments, continue them, and compare the weights at the end.

    The exit code is 1 if a promise was not kept.
    """
    table, is_kept = run_kills(kills, seed, output_dir)
    typer.echo(table)
    if not is_kept:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_script(bench_kills)
