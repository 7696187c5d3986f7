"""The search space: what a file may say, and what is wrong told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.training.search_space import count_points, read_space


def test_lists_and_ranges_from_file_and_words(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("learning_rate: {low: 1e-5, high: 1e-3, log: true}\nfreeze_trainable_layers: [2, 6]\n")
    space = read_space(path, ["freeze_trainable_layers={low: 2, high: 6, step: 2}", "task=[binary_sentiment]"])
    assert list(space) == ["learning_rate", "freeze_trainable_layers", "task"]
    rate, layers, task = space.values()
    assert (rate.low, rate.high, rate.is_log, rate.is_whole) == (1e-5, 1e-3, True, False)
    assert [value for value in range(1, 9) if layers.holds(value)] == [2, 4, 6]
    assert [rate.holds(value) for value in (1e-4, 1, True, "1e-4")] == [True, False, False, False]
    assert layers.list_edges() == (2, 6)
    assert task.choices == ("binary_sentiment",)
    assert count_points({"layers": layers, "task": task}) == 3
    assert count_points(space) is None


def test_everything_wrong_at_once(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "output_dir: [a, b]\nseed: [1, 2]\nlearning_rate: 1e-4\nwarmup_steps: {low: 3, high: 1}\n"
        "num_train_epochs: [1, 1]\nloss: [labels]\ntask: {low: 1, high: 2}\nlora_rank: {low: 1, high: 8, stride: 2}\n"
        "lora_alpha: {low: 0, high: 8, log: true}\nlora_dropout: {low: 1, high: 8, step: 0.5}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_space(path, [])
    for part in (
        "output_dir: it cannot be searched, since each trial has a folder of its own",
        "seed: it cannot be searched, since the luckiest seed",
        "learning_rate: it is 0.0001, and should be a list or a range",
        "warmup_steps: low is 3 and high is 1",
        "num_train_epochs: a value stands twice",
        "loss: there is no loss labels",
        "task: it takes a list",
        "lora_rank: there is no stride in a range",
        "lora_alpha: log needs a low above 0",
        "lora_dropout: step should be a number above 0, and a whole one",
    ):
        assert part in caught.value.what, part


@pytest.mark.parametrize("words", [[], ["learning_rate=[1e-4"], ["learning_rate"]])
def test_nothing_that_can_be_searched(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        read_space(None, words)


def test_the_example_can_be_read(repo_root: Path) -> None:
    space = read_space(repo_root / "examples" / "sweeps" / "gemma3_270m_freeze.yaml", [])
    assert {"learning_rate", "freeze_trainable_layers", "num_train_epochs", "task"} == set(space)
