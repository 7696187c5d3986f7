"""Times a training step of stock LLaMA-Factory against ours, in turns, and prints a table."""

from __future__ import annotations

from sentifactory.cli import run_script
from sentifactory.training.commands import bench_train_step

if __name__ == "__main__":
    run_script(bench_train_step)
