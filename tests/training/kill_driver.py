"""Kills two lives of a tiny run and fills a disk, in a process that has no threads of torch; prints what happened.

Usage: kill_driver.py FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from sentifactory.training.kill_bench import Arena, fill_disk, kill_runs
from sentifactory.training.kill_report import check_promises, format_table, load_libraries

if __name__ == "__main__":
    load_libraries()
    arena = Arena(Path(sys.argv[1]), seed=3)
    kill_runs(arena, 2)
    disk = fill_disk(arena)
    kept = check_promises(arena, disk)
    found = {"kept": kept, "disk": disk, "table": format_table(arena, disk, kept)}
    print(json.dumps({**found, "strikes": [asdict(one) for one in arena.strikes]}))
