"""Reads the text of a small YAML file, and refuses what would take a parser, or whoever uses the content, for ever.

Aliases are allowed, and counted as often as they stand for something: nine lines of nine aliases each are 400 million
words. Numbers of thousands of digits and brackets within brackets within brackets are no settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 50
_MAX_NODES = 20_000
_MAX_DIGITS = 300
_NUMBER = re.compile(r"[-+0-9a-fA-FoxX_.:]+")


def read_yaml_text(path: Path) -> str:
    """Return the text of a file that is small enough to be YAML of ours, and stays small when it is parsed.

    Raises:
        ConfigError: when it is too large, or does not stay small.
        OSError: when it cannot be read.
        UnicodeDecodeError: when it is not UTF-8.
    """
    with path.open("rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"The file has more than {_MAX_BYTES >> 20} MiB",
            where=str(path),
            expected="a task, a recipe or a search space, which are a few lines",
            next_step="check the path",
        )
    text = content.decode("utf-8-sig")
    refuse_endless(text, str(path))
    return text


def refuse_endless(text: str, where: str) -> None:
    """Do nothing for YAML that can be used, or that is none.

    Raises:
        ConfigError: when it is nested too deep, its aliases multiply, or a number has too many digits.
    """
    import yaml

    open_nodes: list[tuple[str | None, int]] = []  # anchor, and how many nodes stood before
    sizes: dict[str, int] = {}
    n_nodes = 0
    try:
        for event in yaml.parse(text):
            fault = None
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, n_nodes))
                n_nodes += 1
                fault = f"lists and keys stand more than {_MAX_DEPTH} deep" if len(open_nodes) > _MAX_DEPTH else None
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, n_before = open_nodes.pop()
                if anchor:
                    sizes[anchor] = n_nodes - n_before
            elif isinstance(event, yaml.AliasEvent):
                n_nodes += sizes.get(event.anchor or "", 1)
                fault = "an alias stands within what it names" if event.anchor in dict(open_nodes) else None
            elif isinstance(event, yaml.ScalarEvent):
                n_nodes += 1
                fault = _find_scalar_fault(event)
            if n_nodes > _MAX_NODES:
                fault = f"there are more than {_MAX_NODES:,} values in it"
            if fault:
                raise ConfigError(
                    f"This YAML cannot be used: {fault}",
                    where=f"{where}, line {event.start_mark.line + 1}" if event.start_mark else where,
                    expected="lines of the form key: value",
                    next_step="mend that line",
                )
    except (yaml.YAMLError, ValueError):  # whoever loads it says what is wrong with it
        return


def _find_scalar_fault(event: Any) -> str | None:
    is_number = len(event.value) > _MAX_DIGITS and event.style is None and _NUMBER.fullmatch(event.value)
    return f"a number of {len(event.value):,} digits stands there" if is_number else None
