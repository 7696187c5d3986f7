"""Reads small YAML files, and refuses those that expand to huge values ("billion laughs") or nest too deep.

Aliases are allowed, but each counts as the nodes it expands to: nine lines of nine aliases each are 400 million nodes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError

_MAX_BYTES = 1 << 20
MAX_DEPTH = 50
_MAX_NODES = 20_000
_MAX_DIGITS = 300
_NUMBER = re.compile(r"[-+0-9a-fA-FoxX_.:]+")


def read_yaml_text(path: Path) -> str:
    """Return the text of a YAML file that is small, also after its aliases are expanded.

    Raises:
        ConfigError: when it is too large, or expands to too many values.
        OSError: when it cannot be read.
        UnicodeDecodeError: when it is not UTF-8.
    """
    with path.open("rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"The file has more than {_MAX_BYTES >> 20} MiB",
            where=str(path),
            expected="a task, a recipe or a search space, which is a few lines",
            next_step="check the path",
            code="yaml",
        )
    text = content.decode("utf-8-sig")
    refuse_unbounded_yaml(text, str(path))
    return text


def refuse_unbounded_yaml(text: str, where: str) -> None:
    """Check that YAML stays small when parsed; invalid YAML passes, because the loader reports its errors.

    Raises:
        ConfigError: when it is nested too deep, its aliases expand too far, or a number has too many digits.
    """
    import yaml

    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the number of nodes before it
    sizes: dict[str, int] = {}
    n_nodes = 0
    try:
        for event in yaml.parse(text):
            fault = None
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, n_nodes))
                n_nodes += 1
                fault = f"it is nested more than {MAX_DEPTH} levels deep" if len(open_nodes) > MAX_DEPTH else None
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, n_before = open_nodes.pop()
                if anchor:
                    sizes[anchor] = n_nodes - n_before
            elif isinstance(event, yaml.AliasEvent):
                n_nodes += sizes.get(event.anchor or "", 1)
                fault = "an alias refers to a node that contains it" if event.anchor in dict(open_nodes) else None
            elif isinstance(event, yaml.ScalarEvent):
                n_nodes += 1
                fault = _find_scalar_fault(event)
            if n_nodes > _MAX_NODES:
                fault = f"it has more than {_MAX_NODES:,} values"
            if fault:
                raise ConfigError(
                    f"This YAML cannot be used: {fault}",
                    where=f"{where}, line {event.start_mark.line + 1}" if event.start_mark else where,
                    expected="lines of the form key: value",
                    next_step="correct that line",
                    code="yaml",
                )
    except (yaml.YAMLError, ValueError):  # the loader reports it
        return


def _find_scalar_fault(event: Any) -> str | None:
    is_number = len(event.value) > _MAX_DIGITS and event.style is None and _NUMBER.fullmatch(event.value)
    return f"it has a number of {len(event.value):,} digits" if is_number else None
