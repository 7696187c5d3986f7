"""Reads a training recipe: a LLaMA-Factory YAML and the `key=value` words that override it.

Merging is LLaMA-Factory's own (OmegaConf), so that a file means here what it means to `llamafactory-cli`. Everything
that is wrong with a recipe is found before anything is written, and told in one sentence that lists every problem.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.yaml_text import read_yaml_text, refuse_endless

NEXT_STEP = "mend the file (or the key=value words) and run the same command again"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a training run is made from.

    Attributes:
        path: the YAML file.
        overrides: `key=value` words from the command line, which win over the file.
        settings: the merged keys, as LLaMA-Factory gets them.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def locate(self, key: str) -> str:
        """Return where a key was given: the line of the file, or the command line."""
        if any(word.split("=", 1)[0] == key for word in self.overrides):
            return "command line"
        pattern = re.compile(rf"\s*['\"]?{re.escape(key)}['\"]?\s*:")
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            if pattern.match(line):
                return f"line {number}"
        return "file"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML file and merge the overrides into it, as `llamafactory-cli train FILE key=value` does.

    Raises:
        ConfigError: when the file is missing, is not UTF-8 or not YAML, or an override is not `key=value`.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(
            "This recipe does not exist",
            where=str(file),
            expected="a LLaMA-Factory YAML file",
            next_step="look under examples/ for the recipes that come with SentiFactory",
        )
    try:
        read_yaml_text(file)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"Byte {error.start} is not UTF-8", where=str(file), next_step="save the file as UTF-8"
        ) from error
    settings = _merge(file, overrides)
    if not settings:
        raise ConfigError("This recipe is empty", where=str(file), expected="lines of the form key: value")
    return Recipe(file, tuple(overrides), settings)


def _merge(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the merged settings.

    Raises:
        ConfigError: when the file is not a YAML mapping or an override is not `key=value`.
    """
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for word in overrides:
        refuse_endless(word.partition("=")[2], word[:40])
        if not re.fullmatch(r"[^=\s]+=.*", word, flags=re.DOTALL):
            raise ConfigError(
                f"{word!r} cannot be used", where="command line", expected="key=value, such as learning_rate=1e-4"
            )
    try:
        loaded = OmegaConf.load(file)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}, line {mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"This is not valid YAML ({problem})", where=place, next_step="mend that line") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError("This is not a list of keys", where=str(file), expected="lines of the form key: value")
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(loaded, OmegaConf.from_cli(list(overrides))))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(f"The overrides cannot be read ({problem})", where="command line") from error
    assert isinstance(merged, dict)  # noqa: S101  (a mapping merged with a mapping)
    return {str(key): value for key, value in merged.items()}


def suggest(word: str, known: Sequence[str]) -> str:
    """Return a short hint at the known word that was probably meant, or nothing.

    Example:
        >>> suggest("learning_rat", ["learning_rate", "template"])
        ', did you mean learning_rate?'
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f", did you mean {close[0]}?" if close else ""


def refuse(recipe: Recipe, problems: Sequence[str]) -> None:
    """Raise one error that lists every problem; return when there is none.

    Raises:
        ConfigError: when there is a problem.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise ConfigError(problems[0].rstrip("."), where=str(recipe.path), next_step=NEXT_STEP)
    listing = "; ".join(f"({number}) {text}" for number, text in enumerate(problems, start=1))
    raise ConfigError(f"{len(problems)} problems: {listing}", where=str(recipe.path), next_step=NEXT_STEP)
