"""Starts the command again in several processes, with torch.distributed.elastic, and ends all of them together.

The launcher is this process: it forwards Ctrl-C and SIGTERM to the processes of its machine, which save a checkpoint
and stop; a second one stops them at once. They are not started again then, whatever MAX_RESTARTS is. A signal while
the launcher waits for other machines ends it at once. When a process dies, the others get SIGTERM, and after 30
seconds SIGKILL. When the launcher dies, the kernel ends its processes. The main one has the terminal; what the others
write is shown only if they fail without a report. Not covered: starting the launchers of other machines.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.atomic import open_scratch_folder
from sentifactory.system.hardware import list_usable_cores
from sentifactory.system.progress import say
from sentifactory.system.ranks import LAUNCHER_VARIABLE, is_set
from sentifactory.system.stop_signals import StoppedError, StopRequests
from sentifactory.system.supervisor import list_children, send_signal
from sentifactory.training.processes.launch_plan import LaunchPlan
from sentifactory.training.processes.meet_machines import (
    describe_place,
    explain_busy_port,
    meet_machines,
    wait_for_address,
)
from sentifactory.training.processes.rank_report import is_stopped, raise_cause

# All machines must find each other within this time, and processes end this long after one of them has died.
MEETING_S = 60
GRACE_S = 30
_TAIL_CHARS = 2000
# The launcher of torch takes the signals that close a terminal; the two others are ours.
_THEIR_SIGNALS = (signal.SIGHUP, signal.SIGQUIT)
_OUR_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def launch_ranks(plan: LaunchPlan, words: Sequence[str]) -> None:
    """Run `sentifactory` with these words in the processes of a plan, until all have ended.

    Raises:
        ConfigError: when the machines do not find each other, or the port is in use.
        Exception: the cause that ended the run, as `rank_report.raise_cause` has it.
    """
    wait_for_address(plan, MEETING_S if plan.machines[1] > 1 else 0)
    # The name is the user's own: the folders of others are none of ours. The launcher holds a lock on its folder, so
    # that a later one removes what a killed one has left.
    with open_scratch_folder(Path(tempfile.gettempdir()) / f"sentifactory-ranks-{os.getuid()}") as folder:
        folder.chmod(0o700)
        _launch_in(folder, plan, words)


def _launch_in(folder: Path, plan: LaunchPlan, words: Sequence[str]) -> None:
    """Do what `launch_ranks` says, with a folder for what the processes write."""
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    is_static = plan.port is not None and plan.run_id is None
    config = LaunchConfig(
        min_nodes=plan.machines[0],
        max_nodes=plan.machines[1],
        nproc_per_node=plan.processes,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder), redirects=dict.fromkeys(range(1, plan.processes), Std.ALL)),
        run_id=plan.run_id or "sentifactory",
        rdzv_backend="static" if is_static else "c10d",
        rdzv_endpoint=f"{plan.address}:{plan.port or 0}",
        rdzv_configs={"timeout": MEETING_S, "rank": plan.machine} if is_static else {"join_timeout": MEETING_S},
        max_restarts=plan.max_restarts,
        monitor_interval=0.1,
        signals_to_handle=",".join(number.name for number in _THEIR_SIGNALS),
        shutdown_timeout=GRACE_S,
        local_addr="127.0.0.1" if plan.machines == (1, 1) else None,
    )
    python = os.environ.get("PYTHON_EXEC", sys.executable)  # as torchrun has it
    say(_describe(plan))
    try:
        with (
            meet_machines(plan, MEETING_S),  # before signals are forwarded: one ends this process at once
            _set_environment(plan),
            _forward_signals() as requests,
            _forbid_restarts(requests),
            _silence_launcher(),
        ):
            elastic_launch(config, python)("-m", "sentifactory.cli", *words)
    except ChildFailedError as error:
        total = plan.processes * plan.machines[1]
        raise_cause(error.failures, total, lambda local_rank: _read_tail(folder, local_rank))
    except SignalException as error:
        raise SystemExit(128 + int(error.sigval)) from error
    except (DistError, RendezvousError, TimeoutError) as error:
        raise _explain_meeting(plan, error) from error


def _describe(plan: LaunchPlan) -> str:
    least, most = plan.machines
    if most == 1:
        return f"Training in {plan.processes} process{'es' if plan.processes > 1 else ''}."
    machines = f"{most}" if least == most else f"{least} to {most}"
    return (
        f"Training on {machines} machines, {plan.processes} process{'es' if plan.processes > 1 else ''} on this one "
        f"(number {plan.machine}): waiting for the others at {plan.address}:{plan.port}, at most {MEETING_S} s."
    )


@contextmanager
def _set_environment(plan: LaunchPlan) -> Iterator[None]:
    """Set what the processes need to see, within the block."""
    before = dict(os.environ)
    os.environ[LAUNCHER_VARIABLE] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(list_usable_cores()) // plan.processes)))
    if "OPTIM_TORCH" not in os.environ or is_set("OPTIM_TORCH"):  # as LLaMA-Factory's launcher does
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        os.environ.setdefault("TORCH_NCCL_AVOID_RECORD_STREAMS", "1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _forward_signals() -> Iterator[StopRequests]:
    """Forward Ctrl-C and SIGTERM to the processes within the block; the third one ends this process as well.

    Gives the requests to stop.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def forward(number: int, frame: Any) -> None:
        if not requests.add():
            return
        children = list_children(os.getpid())
        if not children:  # torch waits for other machines
            raise StoppedError("Stopped: no process of this machine was training.", number, continues=False)
        if requests.count == 1:
            name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
            with suppress(RuntimeError):  # the handler may have interrupted another line
                say(
                    f"{name}: the processes save a checkpoint after this step and stop; before the first step, and "
                    f"after a second {name}, they stop at once."
                )
        for child in children:
            send_signal(child, number)
        if requests.count > 2:
            raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in (*_OUR_SIGNALS, *_THEIR_SIGNALS)}
    try:
        for number in _OUR_SIGNALS:
            if previous[number] != signal.SIG_IGN:
                signal.signal(number, forward)
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _forbid_restarts(requests: StopRequests) -> Iterator[None]:
    """Keep torch within the block from starting the processes again once they were asked to stop.

    To torch they have failed. It forbids restarts itself in the same way, for processes that cannot be killed.
    """
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    stock = LocalElasticAgent._monitor_workers

    def monitor(agent: Any, group: Any) -> Any:
        result = stock(agent, group)
        if requests.count or is_stopped(result.failures):  # the latter where another machine was asked
            agent._remaining_restarts = 0
        return result

    LocalElasticAgent._monitor_workers = monitor
    try:
        yield
    finally:
        LocalElasticAgent._monitor_workers = stock


@contextmanager
def _silence_launcher() -> Iterator[None]:
    """Hide torch's own lines about processes that ended; `raise_cause` says it."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)


def _read_tail(folder: Path, local_rank: int) -> str:
    """Return the last words that a process wrote to stderr; the main one wrote them on the terminal."""
    files = sorted(folder.glob(f"**/{local_rank}/stderr.log"))
    return files[-1].read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARS:] if files else ""


def _explain_meeting(plan: LaunchPlan, error: Exception) -> ConfigError:
    """Return the error for machines that did not find each other, or a port that is in use."""
    if "EADDRINUSE" in str(error) or "in use" in str(error):
        return explain_busy_port(plan)
    others = "the first machine" if plan.machine else "the other machines"
    return ConfigError(
        f"This machine (NODE_RANK {plan.machine} of {plan.machines[1]}) did not meet {others} within {MEETING_S} s",
        where=describe_place(plan),
        expected="the same command on all machines within this time, each with its own NODE_RANK",
        next_step=f"look whether {plan.address}:{plan.port} can be reached from every machine (a firewall, another "
        "network interface), and start all of them again",
        code="machines-apart",
    )
