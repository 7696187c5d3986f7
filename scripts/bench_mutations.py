#!/usr/bin/env python
"""Change the code at random places and count how often its tests notice: a mutation score for each room.

Example:
    python scripts/bench_mutations.py --rooms task --samples 40
"""

from sentifactory.cli import run_script
from sentifactory.evaluation.mutation_bench import bench_mutations

if __name__ == "__main__":
    run_script(bench_mutations)
