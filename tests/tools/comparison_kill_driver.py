"""Stands for `sentifactory eval compare` in the tests that kill it: some answers a side, then the report.

Usage: comparison_kill_driver.py FOLDER SECONDS_AN_ANSWER [WORD]

With WORD a process that bears it in its command line stands for vLLM; when that is killed, it is started again.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

folder, pause_s = Path(sys.argv[1]), float(sys.argv[2])
server = None
n_starts = 0
found = {"predictions": [0, 1, 0, 1, 1]}
for side in ("base", "tuned"):
    journal = folder / f"report.predictions.{side}.jsonl"
    known = journal.read_text().count("\n") if journal.exists() else 0
    for position in range(known, 5):
        if len(sys.argv) > 3 and (server is None or server.poll() is not None):
            server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[3]])
            n_starts += 1
        time.sleep(pause_s)
        with journal.open("a") as stream:
            stream.write(json.dumps({"position": position}) + "\n")
    found[side] = {"start_s": time.monotonic(), "labels": [0, 1, 0, 1, 1]}
if server is not None:
    server.kill()
    server.wait()
    (folder.parent / "starts").write_text(str(n_starts))
(folder / "report.json").write_text(json.dumps(found))
for side in ("base", "tuned"):
    (folder / f"report.predictions.{side}.jsonl").unlink()
