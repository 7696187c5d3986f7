"""The place of this process among those that torchrun (or Ray) starts for one command.

Rank 0 is the main process: it alone writes files and talks to the user. A process that was started on its own is the
main one, too.
"""

from __future__ import annotations

import os

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_TRUE_WORDS = ("1", "true", "y", "yes", "on", "t")
# Set by our own launcher, which talks to the user about signals and errors for all its processes.
LAUNCHER_VARIABLE = "SENTIFACTORY_LAUNCHER"


def is_set(variable: str) -> bool:
    """Return whether an environment variable says yes, by LLaMA-Factory's words."""
    return os.environ.get(variable, "").lower() in _TRUE_WORDS


def is_rank() -> bool:
    """Return whether a launcher started this process as one of those of a command."""
    return all(os.environ.get(name, "").isdecimal() for name in _VARIABLES)


def has_launcher() -> bool:
    """Return whether our own launcher started this process, and reports for it why it ends."""
    return is_rank() and LAUNCHER_VARIABLE in os.environ


def read_rank() -> int:
    """Return the number of this process among those of all machines, from 0."""
    return int(os.environ["RANK"]) if is_rank() else 0


def read_local_rank() -> int:
    """Return the number of this process among those of this machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if is_rank() else 0


def count_ranks() -> int:
    """Return how many processes the command has on all machines."""
    return max(1, int(os.environ["WORLD_SIZE"])) if is_rank() else 1


def count_local_ranks() -> int:
    """Return how many processes of the command run on this machine."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if is_rank() else 1


def is_main_process() -> bool:
    """Return whether this process writes the files and talks to the user."""
    return read_rank() == 0
