"""What a sweep searches: keys of the recipe, each with a list of values or a range.

    learning_rate: {low: 5.0e-5, high: 4.0e-4, log: true}
    freeze_trainable_layers: [2, 6, 12]
    task: [binary_sentiment, examples/tasks/my_words.yaml]

`task` (the words in which a review is asked) and `loss` (`answer` or `label`) are ours; the others LLaMA-Factory's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.training.answer_loss import LOSSES
from sentifactory.training.recipe import load_recipe
from sentifactory.yaml_text import refuse_endless

TASK, LOSS = "task", "loss"
OWN_KEYS = (TASK, LOSS)
_TAKEN = {
    "output_dir": "each trial has a folder of its own",
    "dataset": "all trials are trained on the same reviews",
    "dataset_dir": "all trials are trained on the same reviews",
    "eval_dataset": "all trials are judged by the same reviews",
    "val_size": "all trials are trained on the same reviews",
    "seed": "the luckiest seed is not a better recipe",
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
        is_log: whether small values are as likely as large ones, by their ratio.
        step: distance of the values; None: every value, of whole numbers every one.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    is_log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a range holds whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def count(self) -> int | None:
        """Return the number of values, None where they cannot be counted."""
        if self.choices:
            return len(self.choices)
        step = self.step or (1 if self.is_whole and not self.is_log else None)
        return None if step is None else int((self.high - self.low) / step + 1e-9) + 1

    def list_values(self) -> tuple[Any, ...]:
        """Return all values of a dimension that can be counted."""
        step = self.step or 1
        return self.choices or tuple(self.low + place * step for place in range(self.count() or 0))

    def holds(self, value: Any) -> bool:
        """Return whether a value of the recipe lies within."""
        if self.choices:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return (isinstance(value, int) or not self.is_whole) and abs(steps - round(steps)) < 1e-9

    def suggest(self, trial: Any) -> Any:
        """Let Optuna choose a value for a trial."""
        if self.choices:
            return trial.suggest_categorical(self.key, list(self.choices))
        if self.is_whole:
            return trial.suggest_int(
                self.key, int(self.low), int(self.high), log=self.is_log, step=int(self.step or 1)
            )
        return trial.suggest_float(self.key, self.low, self.high, log=self.is_log, step=self.step)

    def list_edges(self) -> tuple[Any, ...]:
        """Return values that, if they can be used, let all others be used: every choice, or both ends."""
        return self.choices or (self.low, self.high)


Space = Mapping[str, Dimension]


def read_space(path: Path | None, words: Sequence[str]) -> dict[str, Dimension]:
    """Return the search space of a YAML file and of `key=values` words, which win over it.

    Raises:
        ConfigError: with all that is wrong at once.
    """
    loaded = load_recipe(path).settings if path else {}
    loaded |= _read_words(words)
    where = str(path) if path else "--search"
    if not loaded:
        raise ConfigError(
            "There is nothing to search",
            where=where,
            expected="keys of the recipe with their values, such as freeze_trainable_layers: [2, 6, 12]",
        )
    problems = [f"{key}: {problem}" for key, value in loaded.items() if (problem := find_problem(key, value))]
    if problems:
        raise ConfigError(
            "; ".join(problems), where=where, next_step="compare it with examples/sweeps/gemma3_270m_freeze.yaml"
        )
    return {key: _build(key, value) for key, value in loaded.items()}


def _read_words(words: Sequence[str]) -> dict[str, Any]:
    """Return `key=values` words as a mapping; values are YAML.

    Raises:
        ConfigError: when one of them is nothing of the kind.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    found: dict[str, Any] = {}
    for word in words:
        key, _, values = word.partition("=")
        refuse_endless(values, "--search")
        try:
            found[key] = OmegaConf.to_container(OmegaConf.create(f"value: {values}"))["value"]  # type: ignore[index,call-overload]
        except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{word!r} cannot be read", where="--search", expected="such as learning_rate=[1e-4, 3e-4]"
            ) from error
    return found


def find_problem(key: str, value: Any) -> str | None:
    """Return what is wrong with the values of a key, or None."""
    if key in _TAKEN:
        return f"it cannot be searched, since {_TAKEN[key]}"
    if isinstance(value, list):
        if not value or not all(isinstance(one, str | int | float | None) for one in value):
            return "a list should hold one value or more, each a word, a number, true, false or null"
        if len(set(map(repr, value))) < len(value):
            return "a value stands twice"
        unknown = [str(one) for one in value if key == LOSS and one not in LOSSES]
        return f"there is no loss {', '.join(unknown)}; there are {', '.join(LOSSES)}" if unknown else None
    if not isinstance(value, dict):
        return f"it is {value!r}, and should be a list or a range such as {{low: 1, high: 3}}"
    if key in OWN_KEYS:
        return "it takes a list"
    return _find_range_problem(value)


def _find_range_problem(value: Mapping[str, Any]) -> str | None:
    if unknown := [name for name in value if name not in _RANGE_KEYS]:
        return f"there is no {', '.join(map(str, unknown))} in a range; there are {', '.join(_RANGE_KEYS)}"
    low, high, step = value.get("low"), value.get("high"), value.get("step")
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)):
        return "low and high should be numbers (YAML takes 1e-4 for a word: write 1.0e-4)"
    assert isinstance(low, int | float)  # noqa: S101  (for the type checker)
    assert isinstance(high, int | float)  # noqa: S101
    if low >= high:
        return f"low is {low} and high is {high}: low should be below high"
    if value.get("log") and (low <= 0 or step is not None):
        return "log needs a low above 0 and takes no step"
    is_whole = isinstance(low, int) and isinstance(high, int)
    if step is not None and (not isinstance(step, int if is_whole else int | float) or step <= 0):
        return "step should be a number above 0, and a whole one where low and high are"
    return None


def _build(key: str, value: Any) -> Dimension:
    if isinstance(value, list):
        return Dimension(key, tuple(value))
    return Dimension(key, (), value["low"], value["high"], bool(value.get("log", False)), value.get("step"))


def count_points(space: Space) -> int | None:
    """Return the number of different trials, None where they cannot be counted."""
    total = 1
    for dimension in space.values():
        n = dimension.count()
        if n is None:
            return None
        total *= n
    return total
