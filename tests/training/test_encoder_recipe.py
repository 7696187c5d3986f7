"""Encoder recipes: all problems at once, from our own parser; the examples; the order of the batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.training.encoder.encoder_data import ReviewSampler
from sentifactory.training.encoder.encoder_recipe import parse_settings
from sentifactory.training.recipe.recipe import is_encoder_recipe, load_recipe


def test_all_problems_in_one_message(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(
        "stage: encoder\nmodel_name_or_path: saves/pretrained/none\ndataset: none.csv\nlearning_rat: 1\n"
        "finetuning_type: head\nhead_dropout: 1.5\nnum_train_epochs: two\nearly_stopping_patience: 2\nbf16: true\n"
        "fp16: true\ntask: none\ncutoff_len: 0\ntemplate: qwen\n"
    )
    loaded = load_recipe(recipe)
    assert is_encoder_recipe(loaded)
    with pytest.raises(ConfigError) as caught:
        parse_settings(loaded)
    message = str(caught.value)
    for part in (
        "12 problems",
        "learning_rat (line 4) is not a key of an encoder recipe, did you mean learning_rate?",
        "template (line 13) is not a key of an encoder recipe",
        "num_train_epochs (line 7) is 'two', but a number is expected",
        "output_dir is missing",
        "sentifactory model fetch none",
        "the file none.csv does not exist",
        "set pooling to mean, cls or max",
        "head_dropout (line 6) is 1.5",
        "cutoff_len (line 12) is 0, but 4 or more",
        "early_stopping_patience needs an eval_dataset",
        "bf16 and fp16 are both set",
        "There is no task 'none'",
    ):
        assert part in message, part


def test_batches_have_similar_lengths_and_every_epoch_another_order() -> None:
    lengths = [(at * 7919) % 101 for at in range(1003)]
    sampler = ReviewSampler(lengths, 16, seed=1)
    first = list(sampler)
    assert Counter(first) == Counter(range(1003))
    assert list(sampler) == first, "the same pass begun again, as a continued run begins it"
    sampler.set_epoch(1)
    assert list(sampler) != first
    spans = [max(batch) - min(batch) for batch in (
        [lengths[place] for place in first[start : start + 16]] for start in range(0, 992, 16)
    )]  # fmt: skip
    assert sum(spans) / len(spans) < 10
    assert [lengths[at] for at in first] != sorted(lengths)
