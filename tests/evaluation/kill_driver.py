"""Stands for `sentifactory eval compare` in the tests that kill it: some answers a side, then the report.

Usage: kill_driver.py FOLDER SECONDS_AN_ANSWER
"""

import json
import sys
import time
from pathlib import Path

folder, pause_s = Path(sys.argv[1]), float(sys.argv[2])
found = {}
for side in ("base", "tuned"):
    journal = folder / f"report.predictions.{side}.jsonl"
    known = journal.read_text().count("\n") if journal.exists() else 0
    for position in range(known, 5):
        time.sleep(pause_s)
        with journal.open("a") as stream:
            stream.write(json.dumps({"position": position}) + "\n")
    found[side] = {"start_s": time.monotonic(), "labels": [0, 1, 0, 1, 1]}
(folder / "report.json").write_text(json.dumps(found))
for side in found:
    (folder / f"report.predictions.{side}.jsonl").unlink()
