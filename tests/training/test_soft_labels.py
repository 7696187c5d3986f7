"""The distillation loss, compared with its formula, and the file of a teacher's probabilities."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sentifactory.errors import DataError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.training.distillation.soft_labels import (
    NO_LABEL,
    compute_distill_loss,
    read_soft_labels,
    write_soft_labels,
)

LOGITS = [[1.0, -0.5, 0.2], [0.3, 0.1, -2.0], [-1.0, 2.0, 0.0]]
TEACHER = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]
LABELS = [0, 2, 1]


def soften(values: list[float], temperature: float) -> list[float]:
    weights = [math.exp(value / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def by_hand(row: int, temperature: float) -> tuple[float, float]:
    """Return the loss of a row by its true label, and by its teacher."""
    hard = -math.log(soften(LOGITS[row], 1)[LABELS[row]])
    teacher = soften([math.log(share) for share in TEACHER[row]], temperature)
    student = soften(LOGITS[row], temperature)
    soft = sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True)) * temperature**2
    return hard, soft


def compute(labels: list[int], teacher: list[list[float]], **settings: Any) -> float:
    import torch

    given = (torch.tensor(LOGITS), torch.tensor(labels), torch.tensor(teacher))
    return float(compute_distill_loss(*given, **settings))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_it_is_the_weighted_sum_of_both_losses(temperature: float, weight: float) -> None:
    rows = [by_hand(row, temperature) for row in range(3)]
    expected = sum(weight * soft + (1 - weight) * hard for hard, soft in rows) / 3
    assert compute(LABELS, TEACHER, temperature=temperature, weight=weight) == pytest.approx(expected, rel=1e-5)


def test_a_row_learns_from_what_it_has() -> None:
    """The first has both labels, the second only the teacher's, the third only the true one."""
    (hard, soft), (_, soft_alone), (hard_alone, _) = (by_hand(row, 2.0) for row in range(3))
    given = [0, NO_LABEL, 1], [TEACHER[0], TEACHER[1], [0.0, 0.0, 0.0]]
    expected = (0.3 * soft + 0.7 * hard + soft_alone + hard_alone) / 3
    assert compute(*given, temperature=2.0, weight=0.3) == pytest.approx(expected, rel=1e-5)


def test_true_labels_keep_their_weights_and_smoothing() -> None:
    import torch
    from torch.nn.functional import cross_entropy

    weights = torch.tensor([0.5, 1.5, 1.0])
    plain = cross_entropy(
        torch.tensor(LOGITS), torch.tensor(LABELS), weight=weights, label_smoothing=0.1, reduction="none"
    ).mean()
    nobody = [[0.0] * 3] * 3
    found = compute(LABELS, nobody, temperature=2.0, weight=0.5, class_weights=weights, smoothing=0.1)
    assert found == pytest.approx(float(plain))


def test_gradients_approach_the_teacher_and_are_finite_for_a_confident_one() -> None:
    import torch

    teacher = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    logits = torch.zeros((2, 2), requires_grad=True)
    labels = torch.full((2,), NO_LABEL)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        compute_distill_loss(logits, labels, teacher, temperature=2.0, weight=0.5).backward()
        assert torch.isfinite(logits.grad).all()
        optimizer.step()
    assert logits.detach().softmax(dim=-1)[1].tolist() == pytest.approx([0.25, 0.75], abs=0.01)
    assert logits.detach().softmax(dim=-1)[0, 0] > 0.99


def test_soft_labels_are_stored_by_label_name(tmp_path: Path) -> None:
    reviews = [Review('很好，"满意"\n下次再来'), Review("差\u2028劲")]
    answers = [Prediction(1, (0.125, 0.875)), Prediction(0, (0.75, 0.25))]
    path = tmp_path / "soft.jsonl"
    write_soft_labels(path, reviews, answers, BINARY_SENTIMENT)
    assert read_soft_labels(path, BINARY_SENTIMENT) == {
        reviews[0].text: (0.125, 0.875),
        reviews[1].text: (0.75, 0.25),
    }
    turned = path.read_text(encoding="utf-8").splitlines()[0]
    path.write_text(turned.replace('"negative": 0.125, "positive": 0.875', '"positive": 0.875, "negative": 0.125'))
    assert read_soft_labels(path, BINARY_SENTIMENT) == {reviews[0].text: (0.125, 0.875)}
    with pytest.raises(ValueError, match="no soft label"):
        write_soft_labels(tmp_path / "none.jsonl", reviews[:1], [Prediction(1)], BINARY_SENTIMENT)
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no rows"),
        ("{", "JSON lines with text and probabilities"),
        ('{"text": "好"}', "JSON lines with text and probabilities"),
        (
            '{"text": "好", "probabilities": {"negative": 0.2, "positive": 0.2}}',
            "line 1: the probabilities do not sum to 1",
        ),
        ('{"text": "好", "probabilities": {"bad": 0.2, "good": 0.8}}', "line 1: The labels are bad, good"),
        ('{"text": "好", "probabilities": [0.2, 0.8]}', "JSON lines with text and probabilities"),
    ],
)
def test_malformed_soft_label_files(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "soft.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_soft_labels(path, BINARY_SENTIMENT)
