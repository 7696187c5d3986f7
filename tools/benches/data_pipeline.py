"""Times the whole data pipeline, from a CSV file to a checked data set, on generated reviews of several sizes.

Each size runs in a separate process, so that its peak memory can be measured. No test depends on the figures.

Example:
    python -m tools.benches.data_pipeline --sizes 10000 --sizes 100000
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.json_text import read_json
from sentifactory.system.progress import say

DEFAULT_SIZES = (10_000, 100_000, 1_000_000)


def bench_data_pipeline(
    sizes: Annotated[
        list[int], typer.Option("--sizes", help="Number of reviews; can be repeated.", metavar="N")
    ] = list(DEFAULT_SIZES),  # noqa: B006 - typer wants a list and reads it once
    seed: Annotated[int, typer.Option("--seed", help="Seed of the generated reviews.")] = 1,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Folder of the figures.")] = "saves/bench",
) -> None:
    """Time `data prepare` on reviews recombined from real clauses, with 5 % exact and 5 % near duplicates."""
    runs = [time_pipeline(size, seed) for size in sizes]
    table = make_table(runs)
    folder = Path(output_dir)
    write_json(folder / "data_gate.json", {"cpu_cores": os.cpu_count(), "seed": seed, "runs": runs})
    write_text(folder / "data_gate.md", table + "\n")
    typer.echo(table)
    typer.echo(f"Written to {folder}/data_gate.json and data_gate.md")


def time_pipeline(n_reviews: int, seed: int) -> dict[str, Any]:
    """Run `data prepare` on generated reviews; return its time, peak memory and findings.

    Raises:
        RuntimeError: if `data prepare` fails.
    """
    from tools.benches.synthetic_reviews import write_generated

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"Generating {n_reviews} reviews")
        # In another process, because the peak memory of `data prepare` starts at that of its parent.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(write_generated, folder / "reviews.csv", n_reviews, seed).result()
        command = [sys.executable, "-m", "sentifactory.cli", "data", "prepare", "reviews.csv", "--name", "bench"]
        say(f"Preparing {n_reviews} reviews")
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            start = time.perf_counter()
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
            # wait4 reports this process only; getrusage would report the maximum over all children so far.
            _, status, usage = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"data prepare ended with {process.returncode}: {output}")
        manifest = read_json(folder / "data" / "bench" / "manifest.json")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "reviews": n_reviews,
        "wall_s": round(wall_s, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "reviews_per_s": round(n_reviews / wall_s),
        "peak_rss_gib": round(usage.ru_maxrss * unit / 2**30, 3),
        "kept": manifest["rows"]["kept"],
        "rejected_by_reason": {reason: n for reason, n in manifest["rows"]["rejected_by_reason"].items() if n},
        "near_repeat_groups": manifest["near_repeats"]["groups"],
        "largest_group": manifest["near_repeats"]["largest_group"],
        "leaks": manifest["leak_check"]["exact"] + manifest["leak_check"]["near"],
    }


def make_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| reviews | seconds | CPU seconds | reviews/s | reviews/CPU s | peak GiB | near-repeat groups | leaks |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in runs:
        per_cpu = round(run["reviews"] / max(run["cpu_s"], 1e-9))
        cells = (
            f"{run['reviews']:,}",
            run["wall_s"],
            run["cpu_s"],
            f"{run['reviews_per_s']:,}",
            f"{per_cpu:,}",
            run["peak_rss_gib"],
            f"{run['near_repeat_groups']:,}",
            run["leaks"],
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(bench_data_pipeline)
