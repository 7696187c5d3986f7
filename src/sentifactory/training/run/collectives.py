"""What the processes of one training run decide together; without other processes, each function is its plain form.

Every process must call these functions in the same order. They need the process group, which LLaMA-Factory creates
when it parses the recipe.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from sentifactory.errors import ConfigError
from sentifactory.system.ranks import is_main_process, is_rank, read_local_rank

T = TypeVar("T")

# Words of the errors of a collective operation whose other side is gone; gloo raises a plain RuntimeError.
_LOST_WORDS = ("Connection closed by peer", "Connection reset by peer", "gloo/transport", "Broken pipe")


def has_group() -> bool:
    """Return whether this process is one of several (or one that torchrun started) that can talk to each other."""
    if not is_rank():
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def run_on_main(function: Callable[[], T]) -> T:
    """Call a function in the main process only, and return its result in every process.

    Raises:
        Exception: what the function raises, in every process.
    """
    if not has_group():
        return function()
    import torch.distributed as dist

    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
            _share(dist, outcome)
            raise
    _share(dist, outcome)
    if outcome[1] is not None:
        outcome[1].is_reported_by_main = True
        raise outcome[1]
    result: T = outcome[0]
    return result


def _share(dist: Any, outcome: list[Any]) -> None:
    """Send the main process' outcome; an error that cannot be pickled is sent as its text."""
    import pickle

    try:
        pickle.dumps(outcome)
    except Exception:
        outcome = [None, RuntimeError(f"{type(outcome[1]).__name__}: {outcome[1]}")]
    dist.broadcast_object_list(outcome, src=0)


def find_largest(value: int, device: Any) -> int:
    """Return the largest of the values that the processes give.

    Args:
        value: of this process.
        device: where the processes exchange tensors.
    """
    if not has_group():
        return value
    import torch
    import torch.distributed as dist

    held = torch.tensor([value], dtype=torch.int64, device=device)
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    return int(held)


def sum_over_ranks(values: list[int], device: Any) -> list[int]:
    """Return the sums of the values over all processes."""
    if not has_group():
        return values
    import torch
    import torch.distributed as dist

    held = torch.tensor(values, dtype=torch.int64, device=device)
    dist.all_reduce(held)
    return [int(value) for value in held.tolist()]


def wait_for_ranks(device: Any) -> None:
    """Wait until every process has come here."""
    find_largest(0, device)


def compare_machines(read_facts: Callable[[], dict[str, Any]]) -> None:
    """Refuse to train where the machines have unlike data, model, recipe or code.

    Args:
        read_facts: called once on each machine, because its processes share the files.

    Raises:
        ConfigError: naming the machines, and the facts in which each differs from the one of the main process.
    """
    if not has_group():
        return
    import torch.distributed as dist

    mine = {"machine": _name_machine(), "facts": read_facts()} if read_local_rank() == 0 else None
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    if unlike := describe_unlike([one for one in found if one is not None]):
        raise ConfigError(
            unlike,
            where=f"MASTER_ADDR {os.environ.get('MASTER_ADDR', '')}",
            expected="the same recipe, model, data, code and packages on all machines",
            next_step="copy them from one machine to the others, or use a shared disk",
            code="unlike-machines",
        )


def _name_machine() -> str:
    """Return the number of this machine, which torch's launcher knows too, and its name, which others may share."""
    number = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK")
    return f"NODE_RANK {number} ({socket.gethostname()})" if number else socket.gethostname()


def describe_unlike(found: list[dict[str, Any]]) -> str:
    """Return in what the machines differ from the first one, as a clause; "" where they are alike.

    Args:
        found: of each machine, its name as `machine` and its `facts`.
    """
    first, *others = found
    machines: dict[tuple[str, ...], list[str]] = {}
    for one in others:
        if unlike := tuple(name for name, value in first["facts"].items() if one["facts"].get(name) != value):
            machines.setdefault(unlike, []).append(one["machine"])
    clauses = [
        f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'} from {first['machine']} in: "
        + ", ".join(unlike)
        for unlike, names in machines.items()
    ]
    return "; ".join(clauses)


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error means that another process of the run is gone, which is the cause to report."""
    if not is_rank():
        return False
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST_WORDS)
    )
