#!/usr/bin/env python
"""Turn a ChnSentiCorp CSV file into training data: `python scripts/convert_chnsenticorp.py --csv_path reviews.csv`.

The same as `sentifactory data prepare reviews.csv`; `--help` lists the options.
"""

from sentifactory.cli import run_script
from sentifactory.corpus.commands import convert_csv

if __name__ == "__main__":
    run_script(convert_csv)
