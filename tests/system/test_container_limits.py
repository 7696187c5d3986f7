"""The memory that a container's limit leaves, on fake files of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.system import hardware

MIB = 1 << 20


@pytest.fixture(params=["1", "2"])
def version(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path)
    return str(request.param)


def limit_memory(folder: Path, version: str, limit: str, used: int, cache: int) -> None:
    names = {
        "1": (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
        "2": ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    }[version]
    (folder / names[0]).parent.mkdir(exist_ok=True)
    for name, text in zip(names[:3], (limit, str(used), f"anon 5\n{names[3]} {cache}\n"), strict=True):
        (folder / name).write_text(f"{text}\n")


def test_a_limit_leaves_what_is_not_used_or_can_be_given_back(tmp_path: Path, version: str) -> None:
    limit_memory(tmp_path, version, str(9 * MIB), 5 * MIB, 2 * MIB)
    assert hardware.read_available_memory() == 6 * MIB
    limit_memory(tmp_path, version, str(9 * MIB), 10 * MIB, 0)
    assert hardware.read_available_memory() == 1  # 0 is unknown


def test_no_limit_or_one_above_the_machines_memory_changes_nothing(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "read_kilobytes", lambda *_: 70 * MIB)
    assert hardware.read_available_memory() == 70 * MIB
    for limit in (str((1 << 63) - 4096), *(["max"] if version == "2" else [])):
        limit_memory(tmp_path, version, limit, 5 * MIB, 0)
        assert hardware.read_available_memory() == 70 * MIB
