"""Reads the tables of figures that Linux keeps under /proc."""

from __future__ import annotations

from pathlib import Path


def read_kilobytes(file: str, key: str) -> int:
    """Return the bytes that a table gives in kilobytes; 0 where there is no such table or line.

    Args:
        file: such as /proc/meminfo.
        key: with which the line begins, such as `MemAvailable:`.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def read_peak_rss(process: int | str = "self") -> int:
    """Return the most bytes that a process has held at once since it began; 0 where the system does not tell.

    Unlike the peak that a process is told about itself (getrusage), this one does not begin with that of its parent.
    """
    return read_kilobytes(f"/proc/{process}/status", "VmHWM:")
