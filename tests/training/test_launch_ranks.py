"""How a run of several processes is planned and started, and what is said when it cannot be, or ends."""

from __future__ import annotations

import os
import signal
import socket
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
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def become(rank: int) -> None:
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2)):
            monkeypatch.setenv(name, str(value))

    return become


def test_one_process_on_a_cpu_unless_asked() -> None:
    assert plan_launch(CPU, None) is None
    assert plan_launch(CPU, 1) is None
    assert plan_launch(CPU, 3) == LaunchPlan(3)
    assert plan_launch({**CPU, "deepspeed": "ds_z3.json"}, None) == LaunchPlan(1)


def test_a_process_for_each_gpu(with_devices: Callable[[int], None]) -> None:
    with_devices(1)
    assert plan_launch({}, None) is None
    with_devices(4)
    assert plan_launch({}, None) == LaunchPlan(4)
    assert plan_launch({}, 1) == LaunchPlan(1)  # without a launcher it would see all four
    with pytest.raises(ConfigError) as refused:
        plan_launch({}, 5)
    assert (refused.value.code, refused.value.where) == ("too-many-processes", "--processes")


def test_the_variables_of_llamafactory(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.slow
def test_a_port_in_use(busy_port: int) -> None:
    before = dict(os.environ)
    with pytest.raises(ConfigError) as refused:
        launch_ranks.launch_ranks(LaunchPlan(2, port=busy_port), ["--help"])
    assert (refused.value.code, refused.value.where) == (
        "port-in-use", f"MASTER_ADDR 127.0.0.1, MASTER_PORT {busy_port}",
    )  # fmt: skip
    assert dict(os.environ) == before


@pytest.mark.slow
@pytest.mark.parametrize("machine", [0, 1])
def test_machines_that_do_not_meet(machine: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_ranks, "MEETING_S", 2)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError) as refused:
        launch_ranks.launch_ranks(LaunchPlan(1, (2, 2), machine, port=port), ["--help"])
    assert refused.value.code == "machines-apart"
    assert f"127.0.0.1:{port}" in refused.value.next_step
