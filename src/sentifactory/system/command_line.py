"""The command line of this process, and commands for users to copy."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from sentifactory.errors import show_controls
from sentifactory.redaction import mask_arguments

# `shlex` alone would quote every word that is not ASCII.
_PLAIN = re.compile(r"[\w=+.,:@%/-]+")


def describe_command() -> str:
    """Return the command line without secrets, as typed in this folder with the environment active."""
    program = Path(sys.argv[0])
    if program.name == "sentifactory" or program.parts[-2:] == ("sentifactory", "cli.py"):  # the latter by `python -m`
        program = Path("sentifactory")
    elif program.is_absolute() and program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return shlex.join([str(program), *mask_arguments(sys.argv[1:])])


def quote_word(word: str) -> str:
    """Return a word of a command as a shell takes it.

    Example:
        >>> quote_word("好评=positive"), quote_word("my reviews.csv")
        ('好评=positive', "'my reviews.csv'")
    """
    return word if _PLAIN.fullmatch(word) else shlex.quote(word)


def write_command(*words: str | Path | Iterable[str | Path | None] | None) -> str:
    """Return a command of this program to copy. None is left out, and an option whose value is None with it.

    Args:
        words: the words after `sentifactory`; a pair is an option and its value.

    Example:
        >>> write_command("predict", "很好", ("--model", "saves/my model"), ("--task", None))
        "sentifactory predict 很好 --model 'saves/my model'"
    """
    written = ["sentifactory"]
    for word in words:
        parts = [word] if isinstance(word, str | Path) or word is None else list(word)
        if None not in parts:
            written += [quote_word(str(part)) for part in parts]
    return " ".join(written)


def describe_next(*commands: str) -> str:
    """Return the commands that come next as the last lines of a command, to copy.

    Example:
        >>> print(describe_next("sentifactory doctor"))
        Next: sentifactory doctor
    """
    lines = [show_controls(command) for command in commands]
    return f"Next: {lines[0]}" if len(lines) == 1 else "\n".join(["Next:", *(f"  {line}" for line in lines)])
