"""The common prefix of all tokenised samples."""

from __future__ import annotations

import pytest

from sentifactory.training.acceleration.shared_prefix import TrainingTokens, read_tokens


def read(*samples: tuple[list[int], int]) -> TrainingTokens:
    """Read samples of (token ids, number of answer tokens at the end)."""
    from datasets import Dataset

    ids = [sample for sample, _ in samples]
    labels = [[-100] * (len(sample) - answer) + sample[len(sample) - answer :] for sample, answer in samples]
    return read_tokens(Dataset.from_dict({"input_ids": ids, "labels": labels, "images": [None] * len(ids)}))


def test_the_longest_common_prefix() -> None:
    found = read(([1, 2, 3, 4, 5, 6, 7, 8], 2), ([1, 2, 3, 4, 5, 9, 9, 9, 9, 9], 1))
    assert found.prefix == (1, 2, 3, 4, 5)
    assert found.cached_tokens == (7 - 5) + (9 - 5)  # the last token predicts nothing


def test_no_answer_is_predicted_from_the_prefix() -> None:
    same = [1, 2, 3, 4, 5, 6, 7, 8]
    assert read((same, 2), (same, 2)).prefix == (1, 2, 3, 4, 5)
    assert read((same, 3), (same, 1)).prefix == (1, 2, 3, 4)


def test_a_sample_without_an_answer_is_ignored() -> None:
    assert read(([1, 2, 3, 4, 5, 6, 7], 1), ([9], 0), ([1, 2, 3, 4, 5, 8, 7], 1)).prefix == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "samples",
    [
        [([1, 2, 3, 4, 5, 6], 1), ([2, 2, 3, 4, 5, 6], 1)],  # other prompts
        [([1, 2, 3, 9, 5, 6], 1), ([1, 2, 3, 4, 5, 6], 1)],  # little in common
        [([1, 2, 3, 4, 5, 6], 6)],  # every token is learnt
        [([1, 2], 0)],  # nothing is learnt
    ],
)
def test_nothing_to_share(samples: list[tuple[list[int], int]]) -> None:
    assert read(*samples).prefix == ()
