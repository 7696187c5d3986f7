"""The search space: valid files, and all problems in one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.training.sweep.search_space import count_points, read_space


def test_lists_and_ranges_from_file_and_options(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("learning_rate: {low: 1e-5, high: 1e-3, log: true}\nfreeze_trainable_layers: [2, 6]\n")
    space = read_space(path, ["freeze_trainable_layers={low: 2, high: 6, step: 2}", "task=[binary_sentiment]"])
    assert list(space) == ["learning_rate", "freeze_trainable_layers", "task"]
    rate, layers, task = space.values()
    assert (rate.low, rate.high, rate.is_log, rate.is_whole) == (1e-5, 1e-3, True, False)
    assert [value for value in range(1, 9) if layers.contains(value)] == [2, 4, 6]
    assert [rate.contains(value) for value in (1e-4, 1, True, "1e-4")] == [True, False, False, False]
    assert layers.list_extremes() == (2, 6)
    assert task.choices == ("binary_sentiment",)
    assert count_points({"layers": layers, "task": task}) == 3
    assert count_points(space) is None


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "output_dir: [a, b]\nseed: [1, 2]\nlearning_rate: 1e-4\nwarmup_steps: {low: 3, high: 1}\n"
        "num_train_epochs: [1, 1]\nloss: [labels]\ntask: {low: 1, high: 2}\nlora_rank: {low: 1, high: 8, stride: 2}\n"
        "lora_alpha: {low: 0, high: 8, log: true}\nlora_dropout: {low: 1, high: 8, step: 0.5}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_space(path, [])
    for part in (
        "output_dir: it cannot be searched, because each trial has its own folder",
        "seed: it cannot be searched, because a lucky seed",
        "learning_rate: it is 0.0001, but a list or a range",
        "warmup_steps: low is 3 and high is 1",
        "num_train_epochs: a value occurs twice",
        "loss: unknown loss labels",
        "task: a list is expected",
        "lora_rank: unknown key stride in a range",
        "lora_alpha: log requires low > 0",
        "lora_dropout: step must be greater than 0, and an integer",
    ):
        assert part in caught.value.what, part


@pytest.mark.parametrize("words", [[], ["learning_rate=[1e-4"], ["learning_rate"]])
def test_empty_spaces_and_unparsable_options_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        read_space(None, words)


def test_the_example_can_be_read(repo_root: Path) -> None:
    space = read_space(repo_root / "examples" / "sweeps" / "gemma3_270m_freeze.yaml", [])
    assert {"learning_rate", "freeze_trainable_layers", "num_train_epochs", "task"} == set(space)


@pytest.mark.parametrize("word", ["a=" + "[" * 200, "a={low: 0, high: .inf}", "a={low: .nan, high: 1.0}"])
def test_invalid_values_are_refused(word: str) -> None:
    with pytest.raises(ConfigError):
        read_space(None, [word])
