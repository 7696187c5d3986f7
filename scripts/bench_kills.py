"""Kills training runs at random moments, continues them by the same command, and compares the weights at the end."""

from __future__ import annotations

from sentifactory.cli import run_script
from sentifactory.training.commands import bench_kills

if __name__ == "__main__":
    run_script(bench_kills)
