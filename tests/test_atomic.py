"""Nothing half-written stays: files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sentifactory import atomic
from sentifactory.errors import ConfigError


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.json"
    with atomic.open_atomic(target) as stream:
        stream.write("很好")
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "很好"
    assert list_names(target.parent) == ["report.json"]
    assert target.stat().st_mode & 0o777 == 0o644


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
    monkeypatch.setattr(atomic.tempfile, "mkstemp", lambda **_: (os.open("/dev/full", os.O_WRONLY), "/nonexistent"))
    with pytest.raises(ConfigError, match="No room is left on the disk"):
        atomic.write_text(tmp_path / "report.json", "x" * 100_000)
    assert list_names(tmp_path) == []


def test_a_forbidden_place_becomes_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(atomic.tempfile, "mkdtemp", refuse)
    with pytest.raises(ConfigError, match="may not be written"), atomic.replace_directory(tmp_path / "model"):
        pass


def test_a_kill_in_the_middle_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    code = (
        "import sys, time; from sentifactory import atomic\n"
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
    assert atomic.find_endangered(name, [read]) == read
    assert atomic.find_endangered(name, ["models/base/config.json"]) == Path("models/base/config.json")
    with pytest.raises(ConfigError) as caught:
        atomic.refuse_endangered([None, name], [None, "owner/a-hub-id", read], "--output_dir")
    assert caught.value.where == "--output_dir"


def test_an_output_around_the_link_by_which_an_input_is_named_is_found(read: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "mine").symlink_to(read)
    assert atomic.find_endangered(tmp_path / "links", [tmp_path / "links" / "mine"]) is not None
    assert atomic.find_endangered(read, [tmp_path / "links" / "mine"]) is not None
    os.link(read / "config.json", tmp_path / "the_same.json")
    assert atomic.find_endangered(tmp_path / "the_same.json", [read / "config.json"]) is not None


@pytest.mark.parametrize("name", ["models/base/tuned", "models/other", "models/base2", "new"])
def test_a_place_of_its_own_is_none(read: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "other").mkdir()
    assert atomic.find_endangered(name, [read, read / "config.json"]) is None
    atomic.refuse_endangered([name], [read])
