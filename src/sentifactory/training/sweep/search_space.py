"""The search space of a sweep: keys of the recipe, each with a list of values or a range.

    learning_rate: {low: 5.0e-5, high: 4.0e-4, log: true}
    freeze_trainable_layers: [2, 6, 12]
    task: [binary_sentiment, examples/tasks/my_words.yaml]

`task` (the prompt) and `loss` (`answer`, `label` or `mixed`) are keys of SentiFactory; all others are LLaMA-Factory's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.yaml_text import refuse_unbounded_yaml
from sentifactory.training.acceleration.answer_logits import LOSSES
from sentifactory.training.recipe.recipe import load_recipe

TASK, LOSS = "task", "loss"
OWN_KEYS = (TASK, LOSS)
_FIXED_KEYS = {
    "output_dir": "each trial has its own folder",
    "dataset": "all trials are trained on the same reviews",
    "dataset_dir": "all trials are trained on the same reviews",
    "eval_dataset": "all trials are validated on the same reviews",
    "val_size": "all trials are trained on the same reviews",
    "seed": "a lucky seed is not a better recipe",
}
_RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True, slots=True)
class Dimension:
    """The values of one key.

    Attributes:
        key: of the recipe, or one of `OWN_KEYS`.
        choices: the values of a list; empty for a range.
        low: smallest value of a range.
        high: largest value, included.
        is_log: whether values are sampled on a logarithmic scale.
        step: distance between values; None: 1 for integers, otherwise continuous.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    is_log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a range is of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def count(self) -> int | None:
        """Return the number of values, or None for a continuous range."""
        if self.choices:
            return len(self.choices)
        step = self.step or (1 if self.is_whole and not self.is_log else None)
        return None if step is None else int((self.high - self.low) / step + 1e-9) + 1

    def list_values(self) -> tuple[Any, ...]:
        """Return all values of a countable dimension."""
        step = self.step or 1
        return self.choices or tuple(self.low + place * step for place in range(self.count() or 0))

    def contains(self, value: Any) -> bool:
        """Return whether a value of the recipe is in the dimension."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return (isinstance(value, int) or not self.is_whole) and abs(steps - round(steps)) < 1e-9

    def suggest(self, trial: Any) -> Any:
        """Return the value that Optuna suggests for a trial."""
        if self.choices:
            return trial.suggest_categorical(self.key, list(self.choices))
        if self.is_whole:
            return trial.suggest_int(
                self.key, int(self.low), int(self.high), log=self.is_log, step=int(self.step or 1)
            )
        return trial.suggest_float(self.key, self.low, self.high, log=self.is_log, step=self.step)

    def list_extremes(self) -> tuple[Any, ...]:
        """Return the values to validate: every choice, or both ends of a range."""
        return self.choices or (self.low, self.high)


Space = Mapping[str, Dimension]


def read_space(path: Path | None, options: Sequence[str]) -> dict[str, Dimension]:
    """Return the search space of a YAML file and of `key=values` options, which override it.

    Raises:
        ConfigError: with every problem.
    """
    loaded = load_recipe(path).settings if path else {}
    loaded |= _parse_options(options)
    where = str(path) if path else "--search"
    if not loaded:
        raise ConfigError(
            "The search space is empty",
            where=where,
            expected="keys of the recipe with their values, such as freeze_trainable_layers: [2, 6, 12]",
        )
    problems = [f"{key}: {problem}" for key, value in loaded.items() if (problem := find_problem(key, value))]
    if problems:
        raise ConfigError(
            "; ".join(problems), where=where, next_step="compare it with examples/sweeps/gemma3_270m_freeze.yaml"
        )
    return {key: _build(key, value) for key, value in loaded.items()}


def _parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Return `key=values` options as a mapping; values are YAML.

    Raises:
        ConfigError: when one of them is malformed.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    found: dict[str, Any] = {}
    for option in options:
        key, _, values = option.partition("=")
        line = f"value: {values}"
        refuse_unbounded_yaml(line, "--search")
        try:
            found[key] = OmegaConf.to_container(OmegaConf.create(line))["value"]  # type: ignore[index,call-overload]
        except (YAMLError, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(
                f"{option!r} cannot be parsed", where="--search", expected="such as learning_rate=[1e-4, 3e-4]"
            ) from error
    return found


def find_problem(key: str, value: Any) -> str | None:
    """Return the problem of the values of a key, or None."""
    if key in _FIXED_KEYS:
        return f"it cannot be searched, because {_FIXED_KEYS[key]}"
    if isinstance(value, list):
        if not value or not all(isinstance(one, str | int | float | None) for one in value):
            return "a list must have at least one value, each a string, a number, true, false or null"
        if len(set(map(repr, value))) < len(value):
            return "a value occurs twice"
        unknown = [str(one) for one in value if key == LOSS and one not in LOSSES]
        return f"unknown loss {', '.join(unknown)} (expected {', '.join(LOSSES)})" if unknown else None
    if not isinstance(value, dict):
        return f"it is {value!r}, but a list or a range such as {{low: 1, high: 3}} is expected"
    if key in OWN_KEYS:
        return "a list is expected"
    return _find_range_problem(value)


def _find_range_problem(value: Mapping[str, Any]) -> str | None:
    if unknown := [name for name in value if name not in _RANGE_KEYS]:
        return f"unknown key {', '.join(map(str, unknown))} in a range (expected {', '.join(_RANGE_KEYS)})"
    low, high, step = value.get("low"), value.get("high"), value.get("step")
    if not all(isinstance(end, int | float) and not isinstance(end, bool) and isfinite(end) for end in (low, high)):
        return "low and high must be finite numbers (YAML reads 1e-4 as a string: write 1.0e-4)"
    assert isinstance(low, int | float)  # noqa: S101  (for the type checker)
    assert isinstance(high, int | float)  # noqa: S101
    if low >= high:
        return f"low is {low} and high is {high}, but low must be less than high"
    if value.get("log") and (low <= 0 or step is not None):
        return "log requires low > 0 and no step"
    is_whole = isinstance(low, int) and isinstance(high, int)
    if step is not None and (not isinstance(step, int if is_whole else int | float) or step <= 0):
        return "step must be greater than 0, and an integer if low and high are"
    return None


def _build(key: str, value: Any) -> Dimension:
    if isinstance(value, list):
        return Dimension(key, tuple(value))
    return Dimension(key, (), value["low"], value["high"], bool(value.get("log", False)), value.get("step"))


def count_points(space: Space) -> int | None:
    """Return the number of points, or None for a space with a continuous range."""
    total = 1
    for dimension in space.values():
        n = dimension.count()
        if n is None:
            return None
        total *= n
    return total
