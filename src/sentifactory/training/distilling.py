"""The loss by which a student learns from a teacher's probabilities and from true labels.

After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015): both distributions are made
softer by a temperature, so that what the teacher holds possible beside its answer counts as well, and the loss is
multiplied by the temperature's square, which keeps its gradients as large as those of the true labels.
"""

from __future__ import annotations

from typing import Any

NO_LABEL = -100
# A teacher that is sure writes 0 for all other labels, which has no logarithm.
_SMALLEST_SHARE = 1e-6


def compute_distill_loss(
    logits: Any,
    labels: Any,
    teacher: Any,
    *,
    temperature: float,
    weight: float,
    class_weights: Any = None,
    smoothing: float = 0.0,
) -> Any:
    """Return the mean loss of a batch.

    A row with both kinds of label learns from the mixture; a row with one of them learns from that alone.

    Args:
        logits: (B, n_labels) of the student.
        labels: (B,) true labels, `NO_LABEL` where there is none.
        teacher: (B, n_labels) its probabilities; rows of zeros where it was not asked.
        temperature: above 0; 1 leaves the probabilities as they are.
        weight: share of the teacher in the mixture, from 0 to 1.
        class_weights: (n_labels,) of the true labels, or None.
        smoothing: of the true labels.
    """
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    has_label, has_teacher = labels != NO_LABEL, teacher.sum(dim=-1) > 0  # (B,)
    hard = cross_entropy(
        logits, labels, weight=class_weights, label_smoothing=smoothing, ignore_index=NO_LABEL, reduction="none"
    )  # (B,)
    soft_teacher = torch.softmax(teacher.clamp(min=_SMALLEST_SHARE).log() / temperature, dim=-1)
    student = log_softmax(logits / temperature, dim=-1)
    soft = kl_div(student, soft_teacher, reduction="none").sum(dim=-1) * temperature**2  # (B,)
    share = has_teacher.float() * torch.where(has_label, weight, 1.0)  # (B,) of the teacher
    return (share * soft + (1 - share) * has_label.float() * hard).mean()
