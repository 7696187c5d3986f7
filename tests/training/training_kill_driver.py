"""Kills a tiny run twice and fills a disk, in a process that has no threads of torch; prints what happened.

Usage: training_kill_driver.py FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tools.reliability.training_kills import KillBench, fill_disk, kill_runs
from tools.reliability.training_kills_report import check_promises, format_table, load_libraries

if __name__ == "__main__":
    load_libraries()
    bench = KillBench(Path(sys.argv[1]), seed=3)
    kill_runs(bench, 2)
    disk = fill_disk(bench)
    kept = check_promises(bench, disk)
    found = {"kept": kept, "disk": disk, "table": format_table(bench, disk, kept)}
    print(json.dumps({**found, "strikes": [asdict(one) for one in bench.kills]}))
