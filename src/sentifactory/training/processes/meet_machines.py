"""Waits for the launchers of the other machines before torch does.

Torch waits in C++, where Python hears no signal; it tries a port for twice the time that it is given, and writes a
trace of each failure. So all machines of a run meet here first, through the same store of torch on the same port. An
elastic run, whose number of machines is open, waits here only for the port; torch waits for its machines in Python.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.progress import say
from sentifactory.training.processes.launch_plan import LaunchPlan

_POLL_S = 0.2
_CONNECT_S = 2.0  # a firewall may drop packets without an answer


def wait_for_address(plan: LaunchPlan, within_s: float) -> None:
    """Wait until MASTER_ADDR can be resolved: the name of a machine that is just being started may come later.

    Raises:
        ConfigError: naming it, when it still cannot be after so many seconds.
    """
    deadline_s = time.monotonic() + within_s
    has_told = False
    while True:
        try:
            socket.getaddrinfo(plan.address, plan.port)
            return
        except (OSError, UnicodeError) as error:
            what = f"MASTER_ADDR is {plan.address!r}, which this machine cannot resolve"
            if time.monotonic() >= deadline_s or isinstance(error, UnicodeError):
                raise ConfigError(
                    what,
                    expected="the name or IP address of the first machine",
                    next_step="correct it, or use the IP address",
                    code="unknown-address",
                ) from error
        if not has_told:
            say(f"{what}: waiting for the name, at most {within_s:.0f} s.")
            has_told = True
        time.sleep(_POLL_S)


@contextmanager
def meet_machines(plan: LaunchPlan, within_s: float) -> Iterator[None]:
    """Wait until the launchers of all machines are there, and serve the others within the block.

    Args:
        plan: of the run.
        within_s: seconds until they must be there.

    Raises:
        TimeoutError: when they are not there in time.
        ConfigError: on the first machine, when its port is in use.
    """
    from torch.distributed.elastic.rendezvous.utils import _matches_machine_hostname

    deadline_s = time.monotonic() + within_s
    store = None
    if plan.run_id is not None:  # the machine that has this address serves the others
        if plan.machines[1] > 1 and not _matches_machine_hostname(plan.address):
            _wait_for_port(plan, deadline_s)
    elif plan.port is not None and plan.machine == 0:
        _refuse_busy_port(plan)
        store = _open_store(plan, within_s)
        _wait_for_all(store, plan, deadline_s)
    elif plan.port is not None:
        _join_first_machine(plan, deadline_s)
    yield
    del store  # not before: the others need it until torch has opened it as well


def _join_first_machine(plan: LaunchPlan, deadline_s: float) -> None:
    from torch.distributed import DistError

    while True:
        _wait_for_port(plan, deadline_s)
        with suppress(DistError):  # the first machine has gone again; it may be started once more
            _wait_for_all(_open_store(plan, max(1.0, deadline_s - time.monotonic())), plan, deadline_s)
            return


def _refuse_busy_port(plan: LaunchPlan) -> None:
    """Refuse a port that another program of this machine listens on; torch would write a trace about it.

    Raises:
        ConfigError: naming it, or one that this user may not listen on.
    """
    try:
        socket.create_server(("", plan.port or 0)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise explain_busy_port(plan) from error
        raise ConfigError(
            f"This machine cannot listen on port {plan.port} ({os.strerror(error.errno or 0)})",
            where=describe_place(plan),
            next_step="set MASTER_PORT to another port, the same on all machines",
            code="port-refused",
        ) from error


def explain_busy_port(plan: LaunchPlan) -> ConfigError:
    """Return the error for a port that is in use."""
    return ConfigError(
        f"Port {plan.port} is in use on this machine",
        where=describe_place(plan),
        next_step="set MASTER_PORT to a free port, the same on all machines",
        code="port-in-use",
    )


def describe_place(plan: LaunchPlan) -> str:
    """Return the variables that say where machines meet."""
    return f"MASTER_ADDR {plan.address}, MASTER_PORT {plan.port}"


def _wait_for_port(plan: LaunchPlan, deadline_s: float) -> None:
    while True:
        with suppress(OSError), closing(socket.create_connection((plan.address, plan.port or 0), _CONNECT_S)):
            return
        _wait(deadline_s)


def _open_store(plan: LaunchPlan, timeout_s: float) -> Any:
    """Open the store of the first machine, which serves it; torch then opens it as well."""
    from torch.distributed import TCPStore

    return TCPStore(
        plan.address,
        plan.port or 0,
        is_master=plan.machine == 0,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=False,
        multi_tenant=True,  # torch's own uses the same port
    )


def _wait_for_all(store: Any, plan: LaunchPlan, deadline_s: float) -> None:
    """Announce this machine, and wait until all have announced themselves."""
    store.set(f"sentifactory {plan.machine}", "1")
    names = [f"sentifactory {machine}" for machine in range(plan.machines[1])]
    while not store.check(names):
        _wait(deadline_s)


def _wait(deadline_s: float) -> None:
    if time.monotonic() >= deadline_s:
        raise TimeoutError("not all machines are there")
    time.sleep(_POLL_S)
