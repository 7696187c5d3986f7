"""Fixtures for every room: the real pretrained model, built once, and tiny random models with real vocabularies."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

# No test may reach for a model hub; set before anything imports transformers.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Models of a few thousand weights are slower on two threads than on one, and `make test` runs two tests at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Drivers that tests start in other folders import `tools`, which is not installed, and helpers from this folder.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [*filter(None, [os.environ.get("PYTHONPATH")]), *map(str, Path(__file__).resolve().parents[1::-1])]
)

import pytest
from fake_openai_server import Behaviour, serve_fake
from process_family import Family, adopt_orphans, run_driver
from small_training import review_data, small_gemma
from tiny_models import build_tiny_gemma, build_tiny_qwen

from sentifactory.engines.vllm.vllm_install import choose_language_engine
from sentifactory.models.store import fetch_pretrained
from sentifactory.system import atomic
from sentifactory.system.hardware import list_usable_cores
from sentifactory.task.task import Task
from sentifactory.task.task_file import load_task

__all__ = ["review_data", "small_gemma"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # The other worker computes as well: a second thread of vLLM would wait for it in every layer.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", str(list_usable_cores()[-1]))

# Seconds that a test may take without the mark `slow`.
UNMARKED_S = 3.0

# Whether there is a real vLLM, for the tests marked `vllm`; the others test what is done with one and without.
HAS_VLLM = choose_language_engine() == "vllm"
WITHOUT_VLLM = "they need vLLM, which is not installed"
os.environ.pop("SENTIFACTORY_VLLM", None)

# Settings of this project and of what it starts, by the beginnings of their names.
SETTINGS = ("SENTIFACTORY_", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "OPENAI_", "VLLM_", "PYTHONPATH", "TMPDIR")

# A suite that is started in the background inherits ignored signals, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal files, not tests, to the processes of `make test` (pytest-xdist).

    Real vLLM servers take the whole machine: the files that start them are dealt as one, so that no two run at once.
    (pytest-xdist 3.8 has groups for that, which pytest 9.2 does not let it set.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "vllm" if is_on_vllm(file) else file

    @cache
    def is_on_vllm(file: str) -> bool:
        return "pytest.mark.vllm" in (config.rootpath / file).read_text(encoding="utf-8")

    return FileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pass over what needs vLLM where there is none; with workers, let the longest begin: vLLM, then slow files."""
    for item in items:
        if item.get_closest_marker("vllm") and not HAS_VLLM:
            item.add_marker(pytest.mark.skip(reason=WITHOUT_VLLM))
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    vllm_files = {item.path for item in items if item.get_closest_marker("vllm")}
    items.sort(key=lambda item: 0 if item.path in vllm_files else 1 if item.path in slow_files else 2)


def build_once(tmp_path_factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return a folder that the first worker to need it builds for all workers of this run."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / name).exists():
            with atomic.replace_directory(root / name) as temporary:
                build(temporary)
    return root / name


@pytest.fixture(autouse=True, scope="module")
def settings_stay() -> Iterator[None]:
    """What the tests of a file set in the environment ends with them: a password would lock later tests' pages."""

    def read_settings() -> dict[str, str]:
        found = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
        found.pop("SENTIFACTORY_CACHE_DIR", None)  # each test has its own; libraries restore what they copied before
        return found

    before = read_settings()
    yield
    left = read_settings()
    for name in left.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    assert left == before, "set through monkeypatch or unittest.mock.patch.dict instead"


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes to the user's cache folder, and none finds what another one cached."""
    folder = tmp_path / "sentifactory-cache"
    monkeypatch.setenv("SENTIFACTORY_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def three_file(repo_root: Path) -> str:
    """The file of a task with three labels."""
    return str(repo_root / "examples" / "tasks" / "three_classes.yaml")


@pytest.fixture(scope="session")
def three(three_file: str) -> Task:
    """The task of three labels."""
    return load_task(three_file)


@pytest.fixture(scope="session")
def gemma_checkpoint(repo_root: Path) -> Path:
    """The real gemma-3-270m in float32, where `sentifactory model fetch` puts it; built by its code when absent."""
    return fetch_pretrained("gemma-3-270m", repo_root / "saves" / "pretrained")


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory, gemma_checkpoint: Path) -> Path:
    """A random Gemma3ForCausalLM of four layers (hidden 32, float32) with the real tokenizer and chat template."""
    return build_once(tmp_path_factory, "tiny_gemma", lambda folder: build_tiny_gemma(folder, gemma_checkpoint))


@pytest.fixture(scope="session")
def short_gemma(tmp_path_factory: pytest.TempPathFactory, gemma_checkpoint: Path) -> Path:
    """As `tiny_gemma`, with a part of the vocabulary, for tests that load it often: all of it takes seconds."""
    return build_once(
        tmp_path_factory,
        "short_gemma",
        lambda folder: build_tiny_gemma(folder, gemma_checkpoint, is_short=True),
    )


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2ForCausalLM of four layers (hidden 32, float32) with Qwen2.5's vocabulary and chat template."""
    return build_once(tmp_path_factory, "tiny_qwen", build_tiny_qwen)


@pytest.fixture
def fake() -> Iterator[tuple[Behaviour, str]]:
    """A fake server in this process: its behaviour, which the test may change, and its address."""
    behaviour = Behaviour()
    with serve_fake(behaviour) as address:
        yield behaviour, address


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint to whoever does not load it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 2048}')
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the fake server in the place of `.venv-vllm`; call the fixture's value to change its behaviour."""
    program = tmp_path / "vllm-python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_openai_server.py")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("SENTIFACTORY_VLLM_PYTHON", str(program))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)  # read TMPDIR again

    def behave(**settings: object) -> None:
        monkeypatch.setenv("FAKE_VLLM", json.dumps(settings))

    behave()
    return behave


@pytest.fixture
def family() -> Iterator[Family]:
    """What a test starts, orphans included."""
    with adopt_orphans() as watch:
        yield watch


@pytest.fixture
def start_driver() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a driver for the length of a test."""
    with ExitStack() as stack:
        yield lambda *words, **options: stack.enter_context(run_driver(*words, **options))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests needed vLLM, and list those that took long and are not marked `slow`.

    On a busy machine some of the latter are quick.
    """
    if n_without := sum(WITHOUT_VLLM in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.section(f"{n_without} tests were passed over: {WITHOUT_VLLM}")
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    unmarked = [report for report in reports if report.duration > UNMARKED_S and "slow" not in report.keywords]
    if unmarked:
        terminalreporter.section(f"took over {UNMARKED_S} s without the mark slow")
    for report in unmarked:
        terminalreporter.line(f"{report.duration:.1f}s {report.nodeid}")
