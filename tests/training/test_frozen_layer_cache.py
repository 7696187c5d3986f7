"""The cache of the frozen layers' output survives kills, full disks and other runs, and returns no wrong state."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sentifactory.errors import ConfigError
from sentifactory.system.file_lock import lock_file
from sentifactory.training.acceleration.cache_storage import FileStorage, MemoryStorage
from sentifactory.training.acceleration.frozen_layer_cache import (
    FrozenLayerCache,
    find_cache_folder,
    hash_frozen_layers,
    open_storage,
    read_limit,
)

KEYS = [bytes([number]) * 16 for number in range(5)]


def content_of(number: int, length: int = 100) -> bytes:
    return bytes((number * 7 + place) % 251 for place in range(length))


def fill(storage: FileStorage | MemoryStorage, count: int = 3) -> None:
    for number in range(count):
        storage.write(KEYS[number], memoryview(content_of(number)))


def fetch(storage: FileStorage | MemoryStorage, number: int, length: int = 100) -> bytes | None:
    target = bytearray(length)
    return bytes(target) if storage.read(KEYS[number], memoryview(target)) else None


def test_a_later_run_reads_the_cache_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.trunk"
    first = FileStorage(path, 10**6)
    fill(first)
    assert fetch(first, 1) == content_of(1)
    first.close()
    second = FileStorage(path, 10**6)
    assert second.count == 3
    assert [fetch(second, number) for number in range(4)] == [content_of(0), content_of(1), content_of(2), None]
    assert fetch(second, 1, length=99) is None
    size = path.stat().st_size
    fill(second)
    assert path.stat().st_size == size  # nothing is kept twice


@pytest.mark.parametrize("lost", [1, 99, 100, 120, 131])
def test_a_record_truncated_by_a_kill_is_written_again(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "a.trunk"
    storage = FileStorage(path, 10**6)
    fill(storage)
    storage.close()
    os.truncate(path, path.stat().st_size - lost)
    storage = FileStorage(path, 10**6)
    assert storage.count == 2
    assert fetch(storage, 2) is None
    fill(storage, 4)
    storage.close()
    storage = FileStorage(path, 10**6)
    assert [fetch(storage, number) for number in range(4)] == [content_of(number) for number in range(4)]


def test_a_damaged_record_is_not_returned(tmp_path: Path) -> None:
    path = tmp_path / "a.trunk"
    storage = FileStorage(path, 10**6)
    fill(storage)
    storage.close()
    damaged = bytearray(path.read_bytes())
    damaged[32 + 50] ^= 1  # the first record's states
    path.write_bytes(damaged)
    storage = FileStorage(path, 10**6)
    assert fetch(storage, 0) is None
    assert fetch(storage, 1) == content_of(1)
    fill(storage)
    assert fetch(storage, 0) == content_of(0)
    storage.close()
    assert fetch(FileStorage(path, 10**6), 0) == content_of(0)


def test_a_full_disk_ends_the_keeping(tmp_path: Path) -> None:
    """The file size limit simulates a full disk: both make a write short, and the next one fail."""
    path = tmp_path / "a.trunk"
    storage = FileStorage(path, 10**6)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        fill(storage, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [fetch(storage, number) is not None for number in range(5)] == [True, True, False, False, False]
    assert path.stat().st_size == 2 * 132
    storage.close()
    assert FileStorage(path, 10**6).count == 2


def test_the_limit(tmp_path: Path) -> None:
    for storage in (FileStorage(tmp_path / "a.trunk", 2 * 132), MemoryStorage(250)):
        fill(storage, 4)
        assert [fetch(storage, number) for number in range(4)] == [content_of(0), content_of(1), None, None]


@pytest.mark.parametrize(
    ("free_bytes", "needed_bytes", "kind"),
    [(2**30, 10**6, FileStorage), (2**30, 10**9, MemoryStorage), (2**34, 10**9, FileStorage), (0, 0, MemoryStorage)],
)
def test_a_disk_that_is_nearly_full_takes_only_little(
    own_cache_folder: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, needed_bytes: int, kind: type
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    storage, _ = open_storage(lambda: "some", needed_bytes, 10**10)
    assert isinstance(storage, kind)


def test_two_processes_at_once_store_a_sample_once(own_cache_folder: Path) -> None:
    first, place = open_storage(lambda: "same", 1000, 10**6)
    assert place == f"in {own_cache_folder / 'trunk' / 'same.trunk'}"
    second, _ = open_storage(lambda: "same", 1000, 10**6)
    assert isinstance(first, FileStorage)
    assert isinstance(second, FileStorage)
    fill(first, 2)
    assert [fetch(second, number) for number in range(3)] == [content_of(0), content_of(1), None]
    fill(second, 3)
    fill(first, 3)
    assert fetch(first, 2) == content_of(2)
    path = own_cache_folder / "trunk" / "same.trunk"
    assert path.stat().st_size == 3 * 132
    with path.open("ab") as killed:  # a third process, which dies while it writes
        killed.write(b"STR1 partial")
    assert fetch(first, 4) is None
    fill(second, 4)
    assert [fetch(first, number) for number in range(4)] == [content_of(number) for number in range(4)]
    assert path.stat().st_size == 4 * 132


def test_a_file_that_is_being_removed(own_cache_folder: Path) -> None:
    first, _ = open_storage(lambda: "same", 1000, 10**6)
    assert first is not None
    first.close()
    with (own_cache_folder / "trunk" / "same.trunk").open("r+b") as stream:
        lock_file(stream, Path("same.trunk"))
        second, place = open_storage(lambda: "same", 1000, 10**6)
    assert isinstance(second, MemoryStorage)
    assert "another run" in place


def test_the_longest_unused_goes_first(own_cache_folder: Path) -> None:
    for age, name in ((300, "old"), (200, "held"), (100, "new")):
        storage, _ = open_storage(lambda name=name: name, 132, 10**6)
        assert isinstance(storage, FileStorage)
        fill(storage, 1)
        path = own_cache_folder / "trunk" / f"{name}.trunk"
        os.utime(path, (path.stat().st_mtime - age,) * 2)
        if name != "held":
            storage.close()
        else:
            held = storage
    storage, _ = open_storage(lambda: "mine", 132, 3 * 132)
    assert {path.stem for path in (own_cache_folder / "trunk").iterdir()} == {"held", "new", "mine"}
    storage, place = open_storage(lambda: "larger", 10**9, 3 * 132)
    assert place.endswith("larger.trunk, of which 0 MiB fit the limit")
    assert {path.stem for path in (own_cache_folder / "trunk").iterdir()} == {"held", "mine", "larger"}
    assert fetch(held, 0) == content_of(0)


def test_where_and_how_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert open_storage(lambda: "x", 10, 0)[0] is None
    monkeypatch.delenv("SENTIFACTORY_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_cache_folder() == tmp_path / "sentifactory" / "trunk"
    monkeypatch.setenv("SENTIFACTORY_TRUNK_CACHE_GIB", "0.5")
    assert read_limit() == 2**29
    for word in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("SENTIFACTORY_TRUNK_CACHE_GIB", word)
        with pytest.raises(ConfigError, match="SENTIFACTORY_TRUNK_CACHE_GIB"):
            read_limit()


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SENTIFACTORY_CACHE_DIR", str(tmp_path / "file"))
    storage, place = open_storage(lambda: "x", 10, 10**6)
    assert isinstance(storage, MemoryStorage)
    assert "cannot be written" in place


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_states_of_every_type_keep_their_bits(name: str) -> None:
    import torch

    dtype = getattr(torch, name)
    cache = FrozenLayerCache(MemoryStorage(10**6), 8, dtype)
    states = torch.randn(3, 8).to(dtype)
    cache.write(KEYS[0], states)
    cache.write(KEYS[1], states.to(torch.float64))  # not the type that was announced: not kept
    found = cache.allocate(2, 5)
    assert cache.read(KEYS[0], found[1, :3])
    assert torch.equal(found[1, :3], states)
    assert not found[0].any()
    assert not cache.read(KEYS[1], found[0, :3])
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_name_depends_on_every_weight_and_fact() -> None:
    import torch

    weights = [torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.bfloat16)]
    facts = {"prefix": (1, 2), "frozen": 3}
    names = {hash_frozen_layers(weights, facts), hash_frozen_layers(weights, {**facts, "frozen": 4})}
    names.add(hash_frozen_layers(weights, {**facts, "prefix": (1, 3)}))
    names.add(hash_frozen_layers([weights[0].reshape(3, 2), weights[1]], facts))
    changed = weights[0].clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(9.0))
    names.add(hash_frozen_layers([changed, weights[1]], facts))
    assert len(names) == 5
    assert hash_frozen_layers([value.clone() for value in weights], dict(reversed(facts.items()))) in names
