#!/usr/bin/env python
r"""Train, distil and export encoders, and put them on one ladder with TF-IDF and the language models: hours.

Example:
    python scripts/prove_encoders.py --csv_path hotel.csv --csv_path waimai_10k.csv
"""

from sentifactory.cli import run_script
from sentifactory.evaluation.encoder_proof import prove_encoders

if __name__ == "__main__":
    run_script(prove_encoders)
