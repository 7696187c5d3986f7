"""No server process outlives the comparison, whoever is killed, with which signal, and when.

The stand-in server makes a family as vLLM does: guard, supervisor, server, engine and worker, the last two in sessions
of their own and deaf to the death of their parents. The test process adopts every orphan, so that it sees survivors.
"""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fake_openai_server import SYSCALL_EXIT

from sentifactory.system import supervisor

FAMILY_SIZE = 5  # guard, supervisor, server, engine, worker
START = Callable[..., "subprocess.Popen[str]"]


def read_stage(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    return driver.stdout.readline().partition(" ")[0].strip()  # "ready" names an address as well


def list_remains(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "temporary").rglob("*"))


def is_made_before_start(file: Path) -> bool:
    """Return whether a file of the server's folder is there before the server's guard is."""
    return file.suffix == ".py" or (file.name == "server.log" and file.read_text().count("\n") <= 1)


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4, 0.8])
def test_kill_9_while_starting_leaves_nothing(
    delay_s, tmp_path, family, start_driver, fake_vllm, model_folder
) -> None:
    fake_vllm(start_delay_s=30)
    driver = start_driver(model_folder)
    assert read_stage(driver) == "start"
    time.sleep(delay_s)
    driver.kill()
    assert driver.wait(30) == -signal.SIGKILL
    family.wait_for(0, within_s=30)
    # Killed before it has started the guard, nobody is left to remove the folder that it had made for the server.
    assert [file for file in list_remains(tmp_path) if file.is_file() and not is_made_before_start(file)] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_signal_while_answering_leaves_nothing(
    delay_s, number, tmp_path, family, start_driver, fake_vllm, model_folder
) -> None:
    fake_vllm(answer_delay_s=0.1)
    driver = start_driver(model_folder)
    assert [read_stage(driver), read_stage(driver)] == ["start", "ready"]
    family.wait_for(FAMILY_SIZE + 1, within_s=30)
    time.sleep(delay_s)
    driver.send_signal(number)
    assert driver.wait(30) != 0
    family.wait_for(0, within_s=30)
    assert list_remains(tmp_path) == []


@pytest.mark.slow
def test_a_family_deaf_to_sigterm_is_killed_and_its_shared_memory_freed(
    family, start_driver, fake_vllm, model_folder
) -> None:
    fake_vllm(is_stubborn=True, answer_delay_s=0.1)
    driver = start_driver(model_folder)
    assert [read_stage(driver), read_stage(driver)] == ["start", "ready"]
    worker = family.find("worker", within_s=30)
    deadline = time.monotonic() + 30
    while not (files := supervisor.list_shared_memory([worker.pid])) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [file.exists() for file in files] == [True]
    driver.kill()
    family.wait_for(0, within_s=30)
    assert [file.exists() for file in files] == [False]


def test_ctrl_c_while_starting_leaves_nothing(family, start_driver, fake_vllm, model_folder) -> None:
    fake_vllm(start_delay_s=30)
    driver = start_driver(model_folder)
    family.find("worker", within_s=30)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(30) != 0
    family.wait_for(0, within_s=30)


@pytest.mark.slow
def test_an_orderly_run_ends_orderly(tmp_path, family, start_driver, fake_vllm, model_folder) -> None:
    driver = start_driver(model_folder, reviews=8)
    assert [read_stage(driver), read_stage(driver), read_stage(driver)] == ["start", "ready", "done"]
    assert driver.wait(30) == 0
    assert family.list_alive() == []  # ended before `done` was said, not some time after it
    assert list_remains(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["guard", "supervisor", "server", "engine-and-server"])
@pytest.mark.parametrize("stage", ["starting", "answering", "half-dead"])
def test_kill_9_of_a_link_ends_the_chain(victim, stage, family, start_driver, fake_vllm, model_folder) -> None:
    fake_vllm(start_delay_s=30 if stage == "starting" else 0, answer_delay_s=0.1, is_half_dead=stage == "half-dead")
    driver = start_driver(model_folder)
    assert read_stage(driver) == "start"
    if stage != "starting":
        assert read_stage(driver) == "ready"
    family.find("worker", within_s=30)
    guard = family.find("--guard", within_s=30)
    below = guard.children(recursive=True)
    links = {"guard": [guard], "supervisor": below[:1], "server": below[1:2], "engine-and-server": below[1:3]}
    for process in links[victim]:
        with suppress(psutil.NoSuchProcess):  # the engine, which the supervisor ends once the server is gone
            process.kill()
    # The comparison notices as well: it does not wait for a server that is gone.
    assert driver.wait(30) not in (0, None)
    family.wait_for(0, within_s=30)


@pytest.mark.slow
def test_a_stopped_server_is_ended_too(family, start_driver, fake_vllm, model_folder) -> None:
    fake_vllm(answer_delay_s=0.1)
    driver = start_driver(model_folder)
    assert [read_stage(driver), read_stage(driver)] == ["start", "ready"]
    for process in family.find("--guard", within_s=30).children(recursive=True)[1:]:
        process.suspend()
    driver.kill()
    family.wait_for(0, within_s=30)


def test_processes_below_a_half_dead_one_are_found(family) -> None:
    # The first thread ends, the others go on: /proc calls it a zombie. A killed vLLM passes through that state.
    script = f"""
import ctypes, subprocess, threading, time
subprocess.Popen(["sleep", "1000"], start_new_session=True)
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).syscall({SYSCALL_EXIT[platform.machine()]}, 0)
"""
    half_dead = subprocess.Popen([sys.executable, "-c", script])
    sleeper = family.find("1000", within_s=30)
    deadline = time.monotonic() + 30
    while psutil.Process(half_dead.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert psutil.Process(half_dead.pid).status() == psutil.STATUS_ZOMBIE
    assert {half_dead.pid, sleeper.pid} <= set(supervisor.list_descendants(psutil.Process().pid))
    half_dead.kill()
    half_dead.wait()


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 1.0])
def test_a_copy_of_the_pipe_in_another_process_does_not_keep_the_server_alive(delay_s, family) -> None:
    # A fork of the comparison (a data loader, say) may hold the pipe open for longer than the comparison lives.
    script = f"""
import os, subprocess, sys, time
reader, writer = os.pipe()
os.set_inheritable(writer, True)
subprocess.Popen([sys.executable, {supervisor.__file__!r}, "--guard", f"--parent={{os.getpid()}}",
                  "--", "sleep", "1000"], stdin=reader)
subprocess.Popen(["sleep", "60"], close_fds=False)
time.sleep({delay_s})
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
    assert family.wait_for(1, within_s=30)[0].cmdline() == ["sleep", "60"]  # which is not ours to end


def test_the_exit_code_of_the_server_comes_through(tmp_path) -> None:
    def run(command: list[str]) -> int:
        guard = [sys.executable, supervisor.__file__, "--guard", f"--parent={psutil.Process().pid}", "--", *command]
        with subprocess.Popen(guard, stdin=subprocess.PIPE) as process:
            return process.wait(30)

    assert run(["sh", "-c", "exit 7"]) == 7
    assert run(["sh", "-c", "kill -9 $$"]) == 128 + 9
    assert run([str(tmp_path / "no-such-program")]) != 0
