"""Nothing half-written stays: files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sentifactory.errors import ConfigError
from sentifactory.system import atomic
from sentifactory.training.run.checkpoints import hold_output_folder


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.json"
    with atomic.open_atomic(target) as stream:
        stream.write("很好")
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "很好"
    assert list_names(target.parent) == ["report.json"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_who_may_read_a_file_or_folder_is_what_umask_or_the_former_one_says(tmp_path: Path, umask: int) -> None:
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "old.json").chmod(0o640)
    (tmp_path / "old").mkdir(mode=0o750)
    before = os.umask(umask)
    try:
        for name in ("new", "old"):
            atomic.write_json(tmp_path / f"{name}.json", {})
            with atomic.replace_directory(tmp_path / name):
                pass
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"new.json": 0o666 & ~umask, "new": 0o777 & ~umask, "old.json": 0o640, "old": 0o750}


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "null"):
        with pytest.raises(ConfigError, match="not a regular file"):
            atomic.write_text(tmp_path / name, "x")
    assert list_names(tmp_path) == ["null", "pipe"]
    assert not (tmp_path / "pipe").is_file()


def test_a_folder_that_somebody_has_put_something_into_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.mkdir()

    def refuse_thesis(folder: Path) -> None:
        if (folder / "thesis").exists():
            raise ConfigError("not ours")

    asked: list[str] = []

    def refuse_late(folder: Path) -> None:
        asked.append(folder.name)
        if len(asked) == 1:  # it comes between the look and the change of names
            (folder / "thesis").write_text("mine")
        else:
            refuse_thesis(folder)

    for refuse in (refuse_late, refuse_thesis):
        with pytest.raises(ConfigError), atomic.replace_directory(target, refuse) as folder:
            (folder / "new").write_text("new")
        assert list_names(target) == ["thesis"]
        assert list_names(tmp_path) == ["data"]


def test_a_folder_that_a_killed_process_had_moved_away_comes_back(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from sentifactory.system import atomic\n"
        "rename = Path.rename\n"
        "def die_after_first(path, target):\n"
        "    rename(path, target); os._exit(9)\n"
        "Path.rename = die_after_first\n"
        "with atomic.replace_directory(sys.argv[1]) as folder: pass\n"
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").write_text("old")
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "data")], check=False).returncode == 9
    assert not (tmp_path / "data").exists()
    with pytest.raises(RuntimeError), atomic.replace_directory(tmp_path / "data"):
        raise RuntimeError
    assert list_names(tmp_path / "data") == ["old"]
    assert list_names(tmp_path) == ["data"]


def test_processes_that_replace_the_same_folder_at_once_all_end_well(tmp_path: Path) -> None:
    code = (
        "import sys; from sentifactory.system import atomic\n"
        "for _ in range(60):\n"
        "    with atomic.replace_directory(sys.argv[1]) as folder: (folder / 'file').write_text('whole')\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "data")]
    children = [subprocess.Popen(words) for _ in range(3)]
    assert [child.wait(120) for child in children] == [0, 0, 0]
    assert list_names(tmp_path) == ["data"]
    assert (tmp_path / "data" / "file").read_text() == "whole"


def test_a_folder_that_cannot_be_made_or_disappears_is_a_sentence(tmp_path: Path) -> None:
    def lose_folder() -> None:
        with atomic.replace_directory(tmp_path / "a" / "b") as folder:
            folder.rename(tmp_path / "moved")
            folder.parent.rmdir()
            (folder / "x").write_text("x")

    with pytest.raises(ConfigError, match="removed in the meantime"):
        lose_folder()
    with pytest.raises(ConfigError):
        atomic.write_text("/proc/none/file", "x")
    with pytest.raises(ConfigError), hold_output_folder(Path("/proc/none")):
        pass


def test_a_limit_on_the_size_of_files_is_a_sentence(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from sentifactory.system import atomic; from sentifactory.errors import ConfigError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: atomic.write_text(sys.argv[1], 'x' * 1000)\n"
        "except ConfigError: sys.exit(2)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "file")]
    assert subprocess.run(words, check=False).returncode == 2
    assert list_names(tmp_path) == []


def test_an_error_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    atomic.write_json(target, {"old": "值"})

    def fail_half_way() -> None:
        with atomic.open_atomic(target) as stream:
            stream.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert json.loads(target.read_text(encoding="utf-8")) == {"old": "值"}
    assert list_names(tmp_path) == ["report.json"]


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ["first", "second"]:
        with atomic.replace_directory(target) as folder:
            (folder / content).write_text(content)
        assert list_names(target) == [content]
    assert list_names(tmp_path) == ["model"]


def test_an_error_leaves_the_old_folder_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("good")

    def fail_half_way() -> None:
        with atomic.replace_directory(target) as folder:
            (folder / "weights").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert (target / "weights").read_text() == "good"
    assert list_names(tmp_path) == ["model"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_disk_becomes_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_create_file", lambda _: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(ConfigError, match="No space is left on the disk"):
        atomic.write_text(tmp_path / "report.json", "x" * 100_000)
    assert list_names(tmp_path) == []


def test_a_forbidden_place_becomes_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(atomic, "_name_temporary", refuse)
    with pytest.raises(ConfigError, match="No permission to write"), atomic.replace_directory(tmp_path / "model"):
        pass


def test_a_kill_in_the_middle_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    code = (
        "import sys, time; from sentifactory.system import atomic\n"
        "with atomic.replace_directory(sys.argv[1]) as folder:\n"
        "    (folder / 'half').write_text('x'); print('in', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "model")], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "model").exists()


def test_leftovers_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    leftover = tmp_path / ".data.sentifactory-abc.part"
    leftover.mkdir()
    (leftover / "half").write_text("half", encoding="utf-8")
    (tmp_path / ".other.abc.part").mkdir()
    with atomic.replace_directory(tmp_path / "data") as mine:
        assert not leftover.exists()
        with atomic.replace_directory(tmp_path / "data") as other:
            assert mine.exists()
            (other / "file").write_text("other", encoding="utf-8")
        (mine / "file").write_text("mine", encoding="utf-8")
    assert (tmp_path / "data" / "file").read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.abc.part", "data"]


def test_a_leftover_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / ".data.sentifactory-abc.part"
    foreign.mkdir()
    stock = os.open

    def refuse(path: object, *arguments: Any, **named: Any) -> int:
        if path == foreign:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stock(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(atomic.os, "open", refuse)
    with atomic.open_scratch_folder(tmp_path / "data") as mine:
        assert mine.is_dir()
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [foreign]


def test_folders_above_a_failed_output_go_unless_somebody_uses_them(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic.open_atomic(tmp_path / "a" / "b" / "file.txt"):
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic.replace_directory(tmp_path / "a" / "b" / "model"):
        raise RuntimeError
    assert list_names(tmp_path) == []

    def fail_beside_another() -> None:
        with atomic.replace_directory(tmp_path / "c" / "d" / "model"):
            (tmp_path / "c" / "mine").write_text("x", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_beside_another()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["mine"]
    atomic.write_text(tmp_path / "e" / "f" / "file.txt", "x")
    assert (tmp_path / "e" / "f" / "file.txt").exists()


@pytest.fixture
def read(tmp_path: Path) -> Path:
    """A folder with a file that a command reads."""
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "models" / "base" / "config.json").write_text("{}")
    return tmp_path / "models" / "base"


@pytest.mark.parametrize(
    "name", ["models/base", "models/base/", "models/./base", "models", ".", "other/../models/base", "link"]
)
def test_an_output_that_is_an_input_is_found_by_any_name(
    read: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "link").symlink_to(read)
    monkeypatch.chdir(tmp_path)
    assert atomic.find_overwritten_input(name, [read]) == read
    assert atomic.find_overwritten_input(name, ["models/base/config.json"]) == Path("models/base/config.json")
    with pytest.raises(ConfigError) as caught:
        atomic.refuse_overwriting_inputs([None, name], [None, "owner/a-hub-id", read], "--output_dir")
    assert caught.value.where == "--output_dir"


def test_an_output_around_the_link_by_which_an_input_is_named_is_found(read: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "mine").symlink_to(read)
    assert atomic.find_overwritten_input(tmp_path / "links", [tmp_path / "links" / "mine"]) is not None
    assert atomic.find_overwritten_input(read, [tmp_path / "links" / "mine"]) is not None
    os.link(read / "config.json", tmp_path / "the_same.json")
    assert atomic.find_overwritten_input(tmp_path / "the_same.json", [read / "config.json"]) is not None


@pytest.mark.parametrize("name", ["models/base/tuned", "models/other", "models/base2", "new"])
def test_a_place_of_its_own_is_none(read: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "other").mkdir()
    assert atomic.find_overwritten_input(name, [read, read / "config.json"]) is None
    atomic.refuse_overwriting_inputs([name], [read])
