"""Runs the kills and writes their table."""

from __future__ import annotations

import importlib
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json, write_text
from sentifactory.training.kill_bench import SAVE_STEPS, Arena, fill_disk, kill_runs, signal_run


def bench_kills(kills: int, seed: int, output_dir: Path) -> tuple[str, bool]:
    """Kill, compare, write `kills.json` and `kills.md`; return the table, and whether every promise was kept.

    Args:
        kills: number of kills by SIGKILL.
        seed: of model, data and moments.
        output_dir: where the two files go.
    """
    load_libraries()
    with tempfile.TemporaryDirectory(prefix="sentifactory-kills-") as name:
        arena = Arena(Path(name), seed)
        kill_runs(arena, kills)
        signal_run(arena)
        disk = fill_disk(arena)
    kept = check_promises(arena, disk)
    table = format_table(arena, disk, kept)
    figures = {
        "kills": kills, "seed": seed, "save_steps": SAVE_STEPS, "undisturbed_s": round(arena.life_s, 2),
        "promises_kept": kept, "strikes": [{**asdict(one), "lost_steps": one.lost_steps} for one in arena.strikes],
        "runs": [asdict(one) for one in arena.endings], "full_disk": disk,
    }  # fmt: skip
    write_json(output_dir / "kills.json", figures)
    write_text(output_dir / "kills.md", table + "\n")
    return table, all(kept.values())


def load_libraries() -> None:
    """Import what every life needs; nothing is computed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in (
        "sentifactory.cli", "sentifactory.training.llamafactory", "llamafactory.train.sft.workflow",
        "llamafactory.train.tuner", "transformers.models.gemma3.modeling_gemma3",
    ):  # fmt: skip
        importlib.import_module(name)


def check_promises(arena: Arena, disk: dict[str, Any]) -> dict[str, bool]:
    """Return which promises were kept, by their words."""
    killed = [one for one in arena.strikes if one.signal == "SIGKILL"]
    promises = {
        "every run ended with the undisturbed run's weights, bit for bit": all(one.is_same for one in arena.endings),
        f"at most save_steps ({SAVE_STEPS}) steps were computed again": all(
            one.lost_steps <= SAVE_STEPS for one in killed
        ),
        "SIGTERM lost no step": all(one.lost_steps == 0 for one in arena.strikes if one.signal == "SIGTERM"),
    }
    if disk["status"] == "run":
        promises["a full disk was survived"] = bool(
            disk["exit_code"] == 2 and disk["whole_checkpoints"] and disk["continued_step"] and disk["is_same"]
        )
    return promises


def format_table(arena: Arena, disk: dict[str, Any], kept: dict[str, bool]) -> str:
    """Return the table in Markdown."""
    struck = [one for one in arena.strikes if one.signal == "SIGKILL"]
    n_cut = sum(bool(one.cut_off) for one in struck)
    lines = [
        f"{len(struck)} kills by SIGKILL in {len({one.run for one in struck})} runs (an undisturbed one takes "
        f"{arena.life_s:.1f} s), {n_cut} of them in the middle of saving a checkpoint; a checkpoint every "
        f"{SAVE_STEPS} steps.",
        "",
        "| promise | kept |",
        "|---|---|",
        *(f"| {words} | {'yes' if is_kept else 'NO'} |" for words, is_kept in kept.items()),
        "",
        "| run | struck | signal | after | step reached | cut off | continued from step | steps lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.run} | {one.aim} | {one.signal} | {one.after_s:.2f} s | {one.reached_step} | "
        f"{', '.join(one.cut_off) or '-'} | {one.continued_step} | {one.lost_steps} |"
        for one in arena.strikes
    ]
    lines += ["", "| run | ended | same weights |", "|---|---|---|"]
    lines += [f"| {one.run} | exit code {one.code} | {'yes' if one.is_same else 'NO'} |" for one in arena.endings]
    return "\n".join([*lines, "", _describe_disk(disk)])


def _describe_disk(disk: dict[str, Any]) -> str:
    if disk["status"] != "run":
        return f"Full disk: {disk['status']}"
    return (
        f'Full disk (a small tmpfs): exit code {disk["exit_code"]}, "{disk["message"]}"; whole checkpoints left: '
        f"{', '.join(disk['whole_checkpoints']) or 'none'}. With room made, the same command continued from step "
        f"{disk['continued_step']} and ended with exit code {disk['exit_code_with_room']}, "
        f"{'the same' if disk['is_same'] else 'OTHER'} weights."
    )
