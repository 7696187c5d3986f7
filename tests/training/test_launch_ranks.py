"""How a run of several processes is planned and started, and what is said when it cannot be, or ends."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sentifactory.errors import ConfigError, LeakError
from sentifactory.system.ranks import LAUNCHER_VARIABLE
from sentifactory.system.stop_signals import ReportedExit, StoppedError, note_kept, note_kept_places
from sentifactory.training.processes import launch_plan, launch_ranks, rank_report
from sentifactory.training.processes.launch_plan import LaunchPlan, plan_launch
from sentifactory.training.processes.meet_machines import wait_for_address
from sentifactory.training.processes.rank_report import (
    RankDefectError,
    describe_end,
    is_stopped,
    raise_cause,
    report_to_launcher,
)

CPU = {"use_cpu": True}


@pytest.fixture
def with_devices(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda count: monkeypatch.setattr(launch_plan, "_count_devices", lambda settings: count)


@pytest.fixture
def with_cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda count: monkeypatch.setattr(launch_plan, "list_usable_cores", lambda: list(range(count)))


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def become(rank: int) -> None:
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2)):
            monkeypatch.setenv(name, str(value))

    return become


def test_one_process_on_a_cpu_unless_asked(with_cores: Callable[[int], None]) -> None:
    with_cores(3)
    assert plan_launch(CPU, None) is None
    assert plan_launch(CPU, 1) is None
    assert plan_launch(CPU, 3) == LaunchPlan(3)
    assert plan_launch({**CPU, "deepspeed": "ds_z3.json"}, None) == LaunchPlan(1)


@pytest.mark.parametrize("where", ["--processes", "NPROC_PER_NODE"])
def test_no_more_processes_than_cores_on_a_cpu(
    where: str, with_cores: Callable[[int], None], with_devices: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cores(2)
    monkeypatch.setenv("NPROC_PER_NODE", "3")
    with pytest.raises(ConfigError) as refused:
        plan_launch(CPU, 3 if where == "--processes" else None)
    assert (refused.value.code, refused.value.where) == ("too-many-processes", where)
    assert plan_launch(CPU, 2) == LaunchPlan(2)
    with_devices(4)  # a process on a GPU needs no core of its own
    assert plan_launch({}, 4) == LaunchPlan(4)


def test_a_process_for_each_gpu(with_devices: Callable[[int], None]) -> None:
    with_devices(1)
    assert plan_launch({}, None) is None
    with_devices(4)
    assert plan_launch({}, None) == LaunchPlan(4)
    assert plan_launch({}, 1) == LaunchPlan(1)  # without a launcher it would see all four
    with pytest.raises(ConfigError) as refused:
        plan_launch({}, 5)
    assert (refused.value.code, refused.value.where) == ("too-many-processes", "--processes")


def test_the_variables_of_llamafactory(monkeypatch: pytest.MonkeyPatch, with_cores: Callable[[int], None]) -> None:
    with_cores(2)
    monkeypatch.setenv("FORCE_TORCHRUN", "1")
    assert plan_launch(CPU, None) == LaunchPlan(1)
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    monkeypatch.setenv("MAX_RESTARTS", "1")
    assert plan_launch(CPU, None) == LaunchPlan(2, max_restarts=1)
    for name, value in (("NNODES", "2"), ("NODE_RANK", "1"), ("MASTER_ADDR", "10.0.0.7"), ("MASTER_PORT", "29400")):
        monkeypatch.setenv(name, value)
    assert plan_launch(CPU, None) == LaunchPlan(2, (2, 2), 1, "10.0.0.7", 29400, None, 1)
    monkeypatch.setenv("NODE_RANK", "2")
    with pytest.raises(ConfigError, match="NODE_RANK is 2"):
        plan_launch(CPU, None)
    monkeypatch.setenv("NNODES", "two")
    with pytest.raises(ConfigError, match="NNODES is 'two'"):
        plan_launch(CPU, None)


@pytest.mark.parametrize(
    ("variable", "value", "span"),
    [
        ("MASTER_PORT", "99999", "1 to 65535"), ("MASTER_PORT", "0", "1 to 65535"), ("MASTER_PORT", "-1", " 65535"),
        ("NNODES", "two", "1 or more"), ("NNODES", "9" * 5000, "1 or more"), ("MAX_RESTARTS", "", "0 or more"),
    ],
)  # fmt: skip
def test_a_variable_that_is_no_such_number(
    variable: str, value: str, span: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as refused:
        plan_launch(CPU, 1)
    assert (refused.value.code, refused.value.exit_code) == ("variable-value", 2)
    assert refused.value.what == f"{variable} is {value[:40]!r}"
    assert span in refused.value.expected
    assert refused.value.next_step


def test_machines_of_an_elastic_run(monkeypatch: pytest.MonkeyPatch, with_cores: Callable[[int], None]) -> None:
    with_cores(2)
    for name, value in (("RDZV_ID", "a"), ("MIN_NNODES", "3"), ("MAX_NNODES", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        plan_launch(CPU, 2)
    assert (refused.value.code, refused.value.where) == ("variable-value", "MIN_NNODES 3, MAX_NNODES 2")
    monkeypatch.setenv("MIN_NNODES", "1")
    assert plan_launch(CPU, 2) == LaunchPlan(2, (1, 2), port=29500, run_id="a")  # one that the others know
    monkeypatch.setenv("MAX_NNODES", "1")
    assert plan_launch(CPU, 2) == LaunchPlan(2, run_id="a")


def test_a_process_of_a_run_starts_no_others(as_rank: Callable[[int], None]) -> None:
    as_rank(1)
    assert plan_launch(CPU, 2) is None


def fail(kind: dict[str, Any], *, rank: int = 0, timestamp: int = 5, exitcode: int = 1) -> dict[int, Any]:
    message = {"message": "", "sentifactory": kind} if kind else "Signal 9"
    return {rank: SimpleNamespace(message=message, timestamp=timestamp, exitcode=exitcode, local_rank=rank)}


def read_tail(local_rank: int) -> str:
    return f"the last words of {local_rank}"


def test_the_first_cause_is_raised_again() -> None:
    leak = describe_end(LeakError("a leak", where="file:3", next_step="look", code="leak"))
    lost = {"kind": rank_report.LOST, "what": "gloo", "traceback": "", "exit_code": 70}
    with pytest.raises(LeakError) as error:
        raise_cause({**fail(lost, timestamp=1), **fail(leak, rank=1, timestamp=2)}, 2, read_tail)
    assert (error.value.what, error.value.where, error.value.exit_code) == ("a leak", "file:3", 3)
    with pytest.raises(StoppedError) as stop:
        raise_cause(fail(describe_end(StoppedError("Stopped.", signal.SIGTERM))), 2, read_tail)
    assert (stop.value.code, stop.value.what) == (143, "Stopped.")
    with pytest.raises(StoppedError) as stop:
        raise_cause({**fail(lost, timestamp=1), **fail({}, rank=1, exitcode=-9)}, 2, read_tail)
    assert stop.value.code == 137
    assert "Process 2 of 2 was ended by SIGKILL" in stop.value.what
    with pytest.raises(StoppedError, match="another machine"):
        raise_cause(fail(lost), 4, read_tail)
    try:
        raise TypeError("a defect")
    except TypeError as error:
        report = describe_end(error)
    with pytest.raises(RankDefectError, match="process 1 of 2: TypeError: a defect") as defect:
        raise_cause(fail(report), 2, read_tail)
    assert "Traceback" in defect.value.__notes__[0]
    with pytest.raises(RankDefectError) as defect:
        raise_cause(fail({}, rank=1, exitcode=1), 2, read_tail)
    assert defect.value.__notes__ == ["the last words of 1"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), StoppedError(number=signal.SIGINT)])
def test_a_stop_before_the_first_step_says_what_is_kept(end: BaseException, tmp_path: Path) -> None:
    lost = {"kind": rank_report.LOST, "what": "gloo", "traceback": "", "exit_code": 70}
    with note_kept_places():
        nothing = describe_end(end)
        note_kept(tmp_path, "checkpoint-8")
        kept = describe_end(end)
    for reports, continues in ((nothing, False), (kept, True)):
        with pytest.raises(StoppedError) as stop:
            raise_cause({**fail(lost, timestamp=1), **fail(reports, rank=1)}, 2, read_tail)
        assert (stop.value.code, stop.value.continues) == (130, continues)
    with pytest.raises(StoppedError) as stop:  # the main process writes, and knows
        raise_cause({**fail(kept, timestamp=6), **fail(nothing, rank=1)}, 2, read_tail)
    assert stop.value.continues


def test_a_stop_that_saves_nothing_starts_again() -> None:
    report = describe_end(StoppedError("Stopped after step 2.", signal.SIGTERM, continues=False))
    with pytest.raises(StoppedError) as stop:
        raise_cause(fail(report), 2, read_tail)
    assert (stop.value.code, stop.value.what, stop.value.continues) == (143, "Stopped after step 2.", False)


def test_a_process_that_is_stopped_after_another_died_is_no_cause() -> None:
    stopped = describe_end(StoppedError(number=signal.SIGTERM))
    died = {**fail(stopped), **fail({}, rank=1, exitcode=-9)}  # in the same second
    assert not is_stopped(died)
    assert not is_stopped({})
    assert is_stopped(fail(stopped))
    with pytest.raises(StoppedError) as stop:
        raise_cause(died, 2, read_tail)
    assert stop.value.code == 137


def test_a_process_reports_its_end(
    as_rank: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    import json

    monkeypatch.setattr(rank_report, "call_prctl", lambda *args: None)
    as_rank(1)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv(LAUNCHER_VARIABLE, "1")
    with pytest.raises(ReportedExit) as end, report_to_launcher():
        raise ConfigError("wrong", where="here")
    assert end.value.code == 2
    report = json.loads((tmp_path / "error.json").read_text())["message"]["sentifactory"]
    assert (report["class"], report["fields"]["where"]) == ("ConfigError", "here")
    monkeypatch.delenv(LAUNCHER_VARIABLE)
    with pytest.raises(ConfigError), report_to_launcher():
        raise ConfigError("wrong", where="here")


@pytest.fixture
def busy_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_a_port_in_use(machines: int, busy_port: int, temporary_folder: Path, capfd: pytest.CaptureFixture) -> None:
    before = dict(os.environ)
    with pytest.raises(ConfigError) as refused:
        launch_ranks.launch_ranks(LaunchPlan(2, (machines, machines), port=busy_port), ["--help"])
    assert (refused.value.code, refused.value.where) == (
        "port-in-use", f"MASTER_ADDR 127.0.0.1, MASTER_PORT {busy_port}",
    )  # fmt: skip
    assert dict(os.environ) == before
    assert not list(temporary_folder.iterdir())
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_a_port_that_nobody_may_listen_on(monkeypatch: pytest.MonkeyPatch, temporary_folder: Path) -> None:
    def refuse(address: tuple[str, int]) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ConfigError) as refused:
        launch_ranks.launch_ranks(LaunchPlan(1, (2, 2), port=80), ["--help"])
    assert (refused.value.code, refused.value.where) == ("port-refused", "MASTER_ADDR 127.0.0.1, MASTER_PORT 80")


@pytest.mark.parametrize("machine", [0, 1])
@pytest.mark.parametrize("address", ["nowhere.invalid", "a" * 70 + ".x", ""])
def test_an_address_that_names_no_machine(
    address: str, machine: int, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_ranks, "MEETING_S", 0)
    with pytest.raises(ConfigError) as refused:
        launch_ranks.launch_ranks(LaunchPlan(1, (2, 2), machine, address, 29500), ["--help"])
    assert refused.value.code == "unknown-address"
    assert repr(address) in refused.value.what
    assert not capfd.readouterr().err


def test_a_name_that_comes_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([socket.gaierror(socket.EAI_NONAME, "Name or service not known"), None])

    def resolve(host: str, port: int) -> None:
        if error := next(answers):
            raise error

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    wait_for_address(LaunchPlan(1, (2, 2), 1, "pod-0.started-later", 29500), within_s=30)
    assert next(answers, "asked twice") == "asked twice"


@pytest.mark.slow
@pytest.mark.parametrize("machine", [0, 1])
def test_machines_that_do_not_meet(
    machine: int, free_port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(launch_ranks, "MEETING_S", 2)
    began_s = time.monotonic()
    with pytest.raises(ConfigError) as refused:
        launch_ranks.launch_ranks(LaunchPlan(1, (2, 2), machine, port=free_port), ["--help"])
    assert refused.value.code == "machines-apart"
    assert f"127.0.0.1:{free_port}" in refused.value.next_step
    assert time.monotonic() - began_s < 30  # most of it to import torch
    assert len(capfd.readouterr().err.splitlines()) == 1  # and no trace of torch


WAITING = """
import sys
from sentifactory.cli import run_guarded
from sentifactory.training.processes import launch_ranks
from sentifactory.training.processes.launch_plan import LaunchPlan
machine, port, run_id = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
launch_ranks.MEETING_S = 60
plan = LaunchPlan(1, (2, 2), machine, port=port, run_id=run_id)
run_guarded(lambda: launch_ranks.launch_ranks(plan, ["--help"]))
"""


def start_launcher(machine: int, port: int, run_id: str = "") -> subprocess.Popen[str]:
    """Start the launcher of one of two machines, which waits for the other, and return when it has said so."""
    command = [sys.executable, "-c", WAITING, str(machine), str(port), run_id]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert launcher.stderr is not None
    assert "Training on 2 machines" in launcher.stderr.readline()
    return launcher


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "run_id", "number"),
    [(0, "", signal.SIGINT), (1, "", signal.SIGINT), (1, "", signal.SIGTERM), (0, "elastic", signal.SIGTERM)],
)
def test_a_signal_ends_the_wait_for_other_machines(
    machine: int, run_id: str, number: int, free_port: int, temporary_folder: Path
) -> None:
    launcher = start_launcher(machine, free_port, run_id)
    time.sleep(4 if run_id else 1)  # until torch itself waits
    asked_s = time.monotonic()
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=20)
    assert (launcher.returncode, said.count("\n")) == (128 + number, 1)
    assert said.startswith("Stopped")
    assert "checkpoint" not in said
    assert time.monotonic() - asked_s < 10
    assert not list(temporary_folder.iterdir())


@pytest.mark.slow
def test_machines_meet_whichever_is_first(free_port: int, temporary_folder: Path) -> None:
    launchers = [start_launcher(1, free_port), start_launcher(0, free_port)]
    assert [launcher.communicate(timeout=120)[1] for launcher in launchers] == ["", ""]
    assert [launcher.returncode for launcher in launchers] == [0, 0]


@pytest.mark.slow
def test_what_a_killed_launcher_leaves_is_removed_by_the_next(free_port: int, temporary_folder: Path) -> None:
    killed, alive = start_launcher(1, free_port), start_launcher(1, free_port)
    assert len(list(temporary_folder.iterdir())) == 2
    killed.kill()
    killed.communicate()
    third = start_launcher(1, free_port)
    left = list(temporary_folder.iterdir())
    assert len(left) == 2  # of the two that run
    assert {folder.stat().st_mode & 0o777 for folder in left} == {0o700}
    for launcher in (alive, third):
        launcher.terminate()
        launcher.communicate()
    assert not list(temporary_folder.iterdir())
