"""Reads a training recipe: a LLaMA-Factory YAML and the `key=value` settings that override it.

Merging is LLaMA-Factory's own (OmegaConf), so that a file has the same meaning as for `llamafactory-cli`. All problems
of a recipe are found before anything is written, and reported in one message.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.yaml_text import MAX_DEPTH, read_yaml_text, refuse_unbounded_yaml

STAGE = "encoder"
NEXT_STEP = "fix the file (or the key=value overrides) and run the same command again"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a training run.

    Attributes:
        path: the YAML file.
        overrides: `key=value` settings from the command line, which override the file.
        settings: the merged settings, as LLaMA-Factory gets them.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def locate(self, key: str) -> str:
        """Return where a key was set: the line of the file, or the command line."""
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
            next_step="see examples/ for the recipes of SentiFactory",
            code="recipe-invalid",
        )
    try:
        read_yaml_text(file)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"Byte {error.start} is not UTF-8",
            where=str(file),
            next_step="save the file as UTF-8",
            code="recipe-invalid",
        ) from error
    settings = _merge(file, overrides)
    if not settings:
        raise ConfigError(
            "This recipe is empty",
            where=str(file),
            expected="lines such as learning_rate: 1.0e-4",
            code="recipe-invalid",
        )
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
        key, _, value = word.partition("=")
        refuse_unbounded_yaml(value, word[:40])
        is_deep = key.count(".") + key.count("[") > MAX_DEPTH
        if is_deep or not re.fullmatch(r"[^=\s]+=.*", word, flags=re.DOTALL):
            raise ConfigError(
                f"{word[:200]!r} is not an override",
                where="command line",
                expected="key=value, such as learning_rate=1e-4",
                code="recipe-invalid",
            )
    try:
        loaded = OmegaConf.load(file)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}, line {mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(
            f"This is not valid YAML ({problem})", where=place, next_step="fix that line", code="recipe-invalid"
        ) from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(
            "The file must be a YAML mapping",
            where=str(file),
            expected="lines such as learning_rate: 1.0e-4",
            code="recipe-invalid",
        )
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(loaded, OmegaConf.from_cli(list(overrides))))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(
            f"The overrides cannot be read ({problem})", where="command line", code="recipe-invalid"
        ) from error
    assert isinstance(merged, dict)  # noqa: S101  (a mapping merged with a mapping)
    return {str(key): value for key, value in merged.items()}


def suggest(word: str, known: Sequence[str]) -> str:
    """Return a hint at the known word that was probably meant, or an empty string.

    Example:
        >>> suggest("learning_rat", ["learning_rate", "template"])
        ', did you mean learning_rate?'
    """
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f", did you mean {close[0]}?" if close else ""


def refuse_problems(recipe: Recipe, problems: Sequence[str]) -> None:
    """Raise one error that lists every problem, if there is any.

    Raises:
        ConfigError: when there is a problem.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise ConfigError(problems[0].rstrip("."), where=str(recipe.path), next_step=NEXT_STEP, code="recipe-invalid")
    listing = "; ".join(f"({number}) {text}" for number, text in enumerate(problems, start=1))
    raise ConfigError(
        f"{len(problems)} problems: {listing}", where=str(recipe.path), next_step=NEXT_STEP, code="recipe-invalid"
    )


def is_encoder_recipe(recipe: Recipe) -> bool:
    """Return whether a recipe trains an encoder; LLaMA-Factory's parser does not know those."""
    return recipe.settings.get("stage") == STAGE
