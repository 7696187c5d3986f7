#!/usr/bin/env python
"""Time the data gate on 10,000, 100,000 and 1,000,000 generated reviews: reviews/s and peak memory.

Example:
    python scripts/bench_data_gate.py --sizes 10000 --sizes 100000
"""

from sentifactory.cli import run_script
from sentifactory.corpus.bench import bench_data_gate

if __name__ == "__main__":
    run_script(bench_data_gate)
