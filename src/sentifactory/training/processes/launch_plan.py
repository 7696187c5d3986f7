"""Decides in how many processes a recipe is trained, from `--processes` and LLaMA-Factory's environment variables.

The variables have the meaning that they have for `llamafactory-cli train`: FORCE_TORCHRUN, NPROC_PER_NODE, NNODES,
NODE_RANK, MASTER_ADDR, MASTER_PORT, MAX_RESTARTS, and for elastic runs RDZV_ID, MIN_NNODES and MAX_NNODES.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.ranks import is_rank, is_set


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
        ConfigError: when there are fewer GPUs than processes, or a variable has an impossible value.
    """
    if is_rank() or is_set("USE_KT"):
        return None
    devices = _count_devices(settings)
    processes = wanted or _read_number("NPROC_PER_NODE", 1, devices or 1)
    if devices and processes > devices:
        raise ConfigError(
            f"{processes} processes were asked for, and there {'is' if devices == 1 else 'are'} {devices} GPU"
            f"{'' if devices == 1 else 's'}: each process trains on one of its own",
            where="--processes" if wanted else "NPROC_PER_NODE",
            next_step="lower it to the number of GPUs, or use more machines (NNODES)",
            code="too-many-processes",
        )
    machines = _read_number("NNODES", 1, 1)
    # DeepSpeed needs a launcher for one process as well. With one process on several visible GPUs, LLaMA-Factory would
    # want to split each batch among them.
    is_forced = bool(settings.get("deepspeed")) or is_set("FORCE_TORCHRUN") or is_set("USE_MCA") or devices > 1
    if not is_forced and processes == 1 and machines == 1:
        return None
    port = _read_number("MASTER_PORT", 1, 0) or (29500 if machines > 1 else None)
    address = os.environ.get("MASTER_ADDR", "127.0.0.1")
    run_id = os.environ.get("RDZV_ID")
    least = _read_number("MIN_NNODES", 1, machines) if run_id else machines
    most = _read_number("MAX_NNODES", 1, machines) if run_id else machines
    machine = _read_number("NODE_RANK", 0, 0)
    if machine >= most:
        raise ConfigError(
            f"NODE_RANK is {machine}, and there are {most} machines",
            expected=f"a number from 0 to {most - 1}, another on each machine",
            next_step="set NODE_RANK, or NNODES",
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


def _read_number(variable: str, least: int, default: int) -> int:
    word = os.environ.get(variable)
    if word is None:
        return default
    if not word.isascii() or not word.isdigit() or int(word) < least:
        raise ConfigError(f"{variable} is {word!r}", expected=f"a whole number of {least} or more")
    return int(word)
