#!/usr/bin/env python
"""Compare freezing, LoRA, full tuning and the loss of the label alone: accuracy against training time and memory.

Example:
    python scripts/bench_methods.py --reviews 64 --seeds 1 --methods freeze_2,lora
"""

from sentifactory.cli import run_script
from sentifactory.training.tuning_commands import bench_methods

if __name__ == "__main__":
    run_script(bench_methods)
