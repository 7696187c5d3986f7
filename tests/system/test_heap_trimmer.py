"""What glibc keeps of freed memory is returned; in a process of its own, whose heap holds nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json
from sentifactory.system import hardware

hardware._IDLE_BYTES = 50 << 20
trimmer = hardware.HeapTrimmer()
trimmer.trim_if_grown()
held = [hardware.read_kilobytes("/proc/self/status", "RssAnon:")]
pieces = [bytearray(b"x") * 100_000 for _ in range(2_000)]  # larger ones are not in the heap
last = pieces[-1]
del pieces
held.append(hardware.read_kilobytes("/proc/self/status", "RssAnon:"))
trimmer.trim_if_grown()
held.append(hardware.read_kilobytes("/proc/self/status", "RssAnon:"))
print(json.dumps(held))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures by /proc")
def test_freed_memory_is_returned_once_there_is_much_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, kept, trimmed = json.loads(done.stdout)
    assert kept - before > 140_000_000
    assert trimmed - before < 0.3 * (kept - before)
