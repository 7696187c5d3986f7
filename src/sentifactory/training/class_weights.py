"""Weights of the labels in the loss, for data that were prepared with `--balance weights`.

Their manifest says what a review of each label weighs: reviews / (labels x reviews of the label), scikit-learn's
"balanced". In the loss of a language model the weight stands before the tokens that tell a label from the others; the
tokens of the answer's form, which are the same for all reviews, keep the weight 1. The sum is divided by the number of
tokens, as without weights (those of all batches of a step), so that gradient accumulation and learning rate mean what
they did. The evaluation during training has no weights. `llamafactory-cli train` does not know of any of this.

Not covered: losses that are not the model's own, streamed data, several devices in one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sentifactory.corpus.balance import CLASS_WEIGHTS
from sentifactory.errors import ConfigError, EngineError
from sentifactory.progress import say
from sentifactory.task import Task
from sentifactory.training.answer_loss import IGNORED_LABEL, find_causal_model
from sentifactory.training.label_loss import Tokens, find_label_spans, find_runs, read_answers

_PREPARED = "the data were prepared with --balance weights"
# Settings under which the loss is not computed by the model's own loss function.
_FOREIGN_LOSSES = (
    "use_dft_loss", "use_eaft_loss", "use_asft_loss", "label_smoothing_factor", "enable_liger_kernel", "use_unsloth",
    "use_mca", "use_kt", "use_hyper_parallel", "streaming", "train_on_prompt",
)  # fmt: skip


def find_class_weights(data: list[dict[str, Any]], names: list[str]) -> dict[str, float] | None:
    """Return the weights by label of a run's training data, None where they have none.

    Args:
        data: as `run_card.describe_data` gives it.
        names: of the data sets that are trained on.

    Raises:
        ConfigError: when some of the data sets have weights and others have none, or others.
    """
    found = [item.get(CLASS_WEIGHTS) for item in data if item["dataset"] in names]
    if any(weights != found[0] for weights in found):
        raise ConfigError(
            "The training data sets have different class weights",
            where=", ".join(item["file"] for item in data if item["dataset"] in names),
            next_step="prepare them together (sentifactory data prepare FILE FILE --balance weights)",
        )
    return found[0] if found else None


def describe_weights(weights: Mapping[str, float]) -> str:
    """Return weights in words.

    Example:
        >>> describe_weights({"negative": 2.0, "positive": 0.666667})
        'Class weights: negative 2, positive 0.667.'
    """
    return f"Class weights: {', '.join(f'{label} {weight:.3g}' for label, weight in weights.items())}."


def weigh_labels(
    trainer: Any, settings: Mapping[str, Any], card: Mapping[str, Any], task: Task
) -> LabelWeights | None:
    """Install the weights that the card of a run names into its model; None where it names none.

    Raises:
        ConfigError: when they cannot be used in this run.
    """
    weights: Mapping[str, float] | None = card.get(CLASS_WEIGHTS)
    if weights is None or trainer.train_dataset is None:
        return None
    obstacle = next((f"the recipe sets {key}" for key in _FOREIGN_LOSSES if settings.get(key)), None)
    if trainer.args.n_gpu > 1:
        obstacle = "one process trains on several devices"
    try:
        if obstacle is not None:
            raise ConfigError(obstacle)
        places = locate_labels(trainer.train_dataset, trainer.processing_class, task, weights)
    except (ConfigError, EngineError) as error:
        raise ConfigError(
            f"{_PREPARED.capitalize()}, and weights cannot be used here: {error.what}",
            where=CLASS_WEIGHTS,
            next_step="change that, or prepare the data with another --balance",
        ) from error
    say(f"{describe_weights(weights)} They stand before the tokens that tell the labels apart ({_PREPARED}).")
    return LabelWeights(find_causal_model(trainer.model), places)


def locate_labels(
    dataset: Any, tokenizer: Any, task: Task, weights: Mapping[str, float]
) -> dict[Tokens, tuple[int, int, float]]:
    """Return begin and end of the label's own tokens in each answer of tokenised data, and their weight.

    An answer of which the loss of the label alone leaves nothing but these tokens is found as well.

    Raises:
        ConfigError: when an answer states no label that has a weight.
    """
    places: dict[Tokens, tuple[int, int, float]] = {}
    for answer, (start, end) in find_label_spans(read_answers(dataset)).items():
        text = tokenizer.decode(list(answer), skip_special_tokens=True)
        label = task.parse_answer(text)
        if label is None or task.labels[label] not in weights:
            raise ConfigError(f"the answer {text.strip()!r} states none of {', '.join(weights)} (task {task.name})")
        weight = weights[task.labels[label]]
        places[answer] = (start, end, weight)
        places[answer[start:end]] = (0, end - start, weight)
    return places


class LabelWeights:
    """Takes the place of a model's loss function where a batch has weights.

    Args:
        causal: the language model, whose loss function is transformers' own.
        places: as `locate_labels` gives it.
    """

    def __init__(self, causal: Any, places: Mapping[Tokens, tuple[int, int, float]]) -> None:
        self._places = places
        self._labels: Any = None  # (B, T) of the batch, and their weights
        self._weights: Any = None
        self._stock = causal.loss_function
        causal.loss_function = self.compute_loss

    @contextmanager
    def weigh(self, labels: Any) -> Iterator[None]:
        """Let the loss of the batch with these labels (B, T), computed in the block, have weights.

        Raises:
            EngineError: when the model has computed its loss in another way.
        """
        import torch

        weights = torch.ones(labels.shape, dtype=torch.float32)
        for row, given in enumerate(labels.tolist()):
            for start, end in find_runs(given):
                first, last, weight = self._places[tuple(given[start:end])]
                weights[row, start + first : start + last] = weight
        self._labels, self._weights = labels, weights.to(labels.device)
        try:
            yield
            if self._labels is not None:
                raise EngineError("The model computes its loss in a way of its own, without the class weights")
        finally:
            self._labels = self._weights = None

    def compute_loss(
        self,
        logits: Any,
        labels: Any,
        vocab_size: int,
        num_items_in_batch: Any = None,
        ignore_index: int = IGNORED_LABEL,
        **options: Any,
    ) -> Any:
        """Return the loss; labels and logits are (B, T) long, or packed by `AnswerLoss` into one row (1, K + 1)."""
        from torch.nn.functional import cross_entropy, pad

        if self._labels is None:
            return self._stock(logits, labels, vocab_size, num_items_in_batch, ignore_index, **options)
        weights = self._weights
        if labels.shape != weights.shape:
            weights = pad(weights[:, 1:][self._labels[:, 1:] != IGNORED_LABEL], (1, 0)).unsqueeze(0)
        self._labels = None
        targets, factors = (pad(given[:, 1:], (0, 1), value=ignore_index).flatten() for given in (labels, weights))
        losses = cross_entropy(
            logits.float().view(-1, vocab_size),
            targets.to(logits.device),
            ignore_index=ignore_index,
            reduction="none",
        )
        n_tokens = (targets != ignore_index).sum() if num_items_in_batch is None else num_items_in_batch
        return (losses * factors.to(losses.device)).sum() / n_tokens
