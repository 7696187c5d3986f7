"""Decides in how many processes a recipe is trained, from `--processes` and LLaMA-Factory's environment variables.

The variables have the meaning that they have for `llamafactory-cli train`: FORCE_TORCHRUN, NPROC_PER_NODE, NNODES,
NODE_RANK, MASTER_ADDR, MASTER_PORT, MAX_RESTARTS, and for elastic runs RDZV_ID, MIN_NNODES and MAX_NNODES.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.hardware import list_usable_cores
from sentifactory.system.ranks import is_rank, is_set

_PORT = 29500  # of torchrun, as the other machines cannot know a free one
_LAST_PORT = 65535
_MOST_DIGITS = 9
_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """The processes of a run, as the launcher of one machine starts them.

    Attributes:
        processes: on this machine.
        machines: of the run, at least and at most.
        machine: number of this one, from 0.
        address: of the first machine.
        port: of the first machine; None for any free one, which only a run on one machine can have.
        run_id: of an elastic run, which machines may join and leave; None for another.
        max_restarts: how often the processes are started again after a failure.
    """

    processes: int
    machines: tuple[int, int] = (1, 1)
    machine: int = 0
    address: str = "127.0.0.1"
    port: int | None = None
    run_id: str | None = None
    max_restarts: int = 0


def plan_launch(settings: Mapping[str, Any], wanted: int | None) -> LaunchPlan | None:
    """Return which processes to start, or None where this process trains by itself.

    Args:
        settings: of the recipe.
        wanted: the value of `--processes`; None: NPROC_PER_NODE, or one for each GPU that LLaMA-Factory would use.

    Raises:
        ConfigError: when there are fewer GPUs (on a CPU: cores) than processes, or a variable has an impossible value.
    """
    if is_rank() or is_set("USE_KT"):
        return None
    devices = _count_devices(settings)
    processes = wanted or _read_number("NPROC_PER_NODE", 1, devices or 1)
    if devices:
        places, name, reason = devices, "GPU", "each process trains on one of its own"
        at_most = "GPUs, or use more machines (NNODES)"
    else:
        places, name, reason = len(list_usable_cores()), "usable core", "on a CPU each process needs one of its own"
        at_most = "cores"
    if processes > places:
        raise ConfigError(
            f"{processes} processes were asked for, and there {'is' if places == 1 else 'are'} {places} {name}"
            f"{'' if places == 1 else 's'}: {reason}",
            where="--processes" if wanted else "NPROC_PER_NODE",
            next_step=f"lower it to the number of {at_most}",
            code="too-many-processes",
        )
    machines = _read_number("NNODES", 1, 1)
    # DeepSpeed needs a launcher for one process as well. With one process on several visible GPUs, LLaMA-Factory would
    # want to split each batch among them.
    is_forced = bool(settings.get("deepspeed")) or is_set("FORCE_TORCHRUN") or is_set("USE_MCA") or devices > 1
    if not is_forced and processes == 1 and machines == 1:
        return None
    address = os.environ.get("MASTER_ADDR", "127.0.0.1")
    run_id = os.environ.get("RDZV_ID")
    least = _read_number("MIN_NNODES", 1, machines) if run_id else machines
    most = _read_number("MAX_NNODES", 1, machines) if run_id else machines
    if least > most:
        raise ConfigError(
            f"The run has at least {least} machines and at most {most}",
            where=f"MIN_NNODES {least}, MAX_NNODES {most}",
            expected="MIN_NNODES not above MAX_NNODES; each is NNODES where it is not set",
            next_step="correct or unset the variables",
            code="variable-value",
        )
    port = _read_number("MASTER_PORT", 1, 0, _LAST_PORT) or (_PORT if most > 1 else None)
    machine = _read_number("NODE_RANK", 0, 0)
    if machine >= most:
        raise ConfigError(
            f"NODE_RANK is {machine}, and there are {most} machines",
            expected=f"a number from 0 to {most - 1}, another on each machine",
            next_step="set NODE_RANK, or NNODES",
            code="variable-value",
        )
    return LaunchPlan(processes, (least, most), machine, address, port, run_id, _read_number("MAX_RESTARTS", 0, 0))


def uses_ray(wanted: int | None) -> bool:
    """Return whether the run belongs on a Ray cluster.

    Args:
        wanted: the value of `--processes`.

    Raises:
        ConfigError: when it names a number, which is `ray_num_workers` there.
    """
    if is_rank() or not is_set("USE_RAY"):
        return False
    if wanted is not None:
        raise ConfigError(
            "--processes starts processes without Ray, and USE_RAY is set",
            next_step="set ray_num_workers in the recipe, or unset USE_RAY",
        )
    return True


def _count_devices(settings: Mapping[str, Any]) -> int:
    """Return the number of GPUs that LLaMA-Factory would train on; 0 for the CPU."""
    if settings.get("use_cpu"):
        return 0
    import torch

    if not torch.accelerator.is_available():
        return 0
    from llamafactory.extras.misc import get_device_count

    return int(get_device_count())


def _read_number(variable: str, least: int, default: int, most: int | None = None) -> int:
    """Return the number in an environment variable.

    Raises:
        ConfigError: when it is no whole number from `least` to `most`.
    """
    word = os.environ.get(variable)
    if word is None:
        return default
    # More digits than these are no count of anything here, and Python refuses to read thousands of them.
    if word.isascii() and word.isdigit() and len(word) <= _MOST_DIGITS and least <= int(word) <= (most or math.inf):
        return int(word)
    raise ConfigError(
        f"{variable} is {word[:_SHOWN_CHARS]!r}",
        expected=f"a whole number from {least} to {most}" if most else f"a whole number of {least} or more",
        next_step="correct or unset the variable",
        code="variable-value",
    )
