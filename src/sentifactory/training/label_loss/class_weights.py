"""Class weights in the loss of a language model, for data prepared with `--balance weights`.

The manifest holds the weight of each label: reviews / (labels x reviews of the label), scikit-learn's "balanced". The
weight multiplies the loss of the tokens that distinguish the label from the others; the tokens of the answer's format,
which are the same for all reviews, keep the weight 1. As without weights, the sum is divided by the number of tokens
(of all batches of a step), so that gradient accumulation and learning rate keep their meaning. Evaluation during
training is unweighted. `llamafactory-cli train` ignores the weights.

Not covered: losses other than the model's own, streamed data, several devices in one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sentifactory.corpus.splitting.balance import CLASS_WEIGHTS
from sentifactory.errors import ConfigError, EngineError
from sentifactory.system.progress import say
from sentifactory.task.task import Task
from sentifactory.training.acceleration.answer_logits import IGNORED_LABEL, find_causal_model
from sentifactory.training.label_loss.label_loss import Tokens, collect_answers, find_answer_spans, find_label_spans

_PREPARED = "the data were prepared with --balance weights"
# Settings under which the model's own loss function does not compute the loss.
_UNSUPPORTED_SETTINGS = (
    "use_dft_loss", "use_eaft_loss", "use_asft_loss", "label_smoothing_factor", "enable_liger_kernel", "use_unsloth",
    "use_mca", "use_kt", "use_hyper_parallel", "streaming", "train_on_prompt",
)  # fmt: skip


def find_class_weights(data: list[dict[str, Any]], names: list[str]) -> dict[str, float] | None:
    """Return the class weights of a run's training data by label, or None.

    Args:
        data: from `run_card.describe_data`.
        names: of the training data sets.

    Raises:
        ConfigError: when the data sets differ in their weights.
    """
    found = [item.get(CLASS_WEIGHTS) for item in data if item["dataset"] in names]
    if any(weights != found[0] for weights in found):
        raise ConfigError(
            "The training data sets have different class weights",
            where=", ".join(item["file"] for item in data if item["dataset"] in names),
            next_step="prepare them together (sentifactory data prepare FILE FILE --balance weights)",
            code="class-weights",
        )
    return found[0] if found else None


def describe_weights(weights: Mapping[str, float]) -> str:
    """Return a sentence that lists the weights.

    Example:
        >>> describe_weights({"negative": 2.0, "positive": 0.666667})
        'Class weights: negative 2, positive 0.667.'
    """
    return f"Class weights: {', '.join(f'{label} {weight:.3g}' for label, weight in weights.items())}."


def install_label_weights(
    trainer: Any, settings: Mapping[str, Any], card: Mapping[str, Any], task: Task
) -> LabelWeights | None:
    """Install the class weights of a run card into the model; return None where it has none.

    Raises:
        ConfigError: when this run cannot use them.
    """
    weights: Mapping[str, float] | None = card.get(CLASS_WEIGHTS)
    if weights is None or trainer.train_dataset is None:
        return None
    obstacle = next((f"the recipe sets {key}" for key in _UNSUPPORTED_SETTINGS if settings.get(key)), None)
    if trainer.args.n_gpu > 1:
        obstacle = "one process trains on several devices"
    try:
        if obstacle is not None:
            raise ConfigError(obstacle, code="class-weights")
        spans = locate_label_tokens(trainer.train_dataset, trainer.processing_class, task, weights)
    except (ConfigError, EngineError) as error:
        raise ConfigError(
            f"{_PREPARED.capitalize()}, and weights cannot be used here: {error.what}",
            where=CLASS_WEIGHTS,
            next_step="change that, or prepare the data with another --balance",
            code="class-weights",
        ) from error
    say(f"{describe_weights(weights)} They apply to the tokens that distinguish the labels ({_PREPARED}).")
    return LabelWeights(find_causal_model(trainer.model), spans)


def locate_label_tokens(
    dataset: Any, tokenizer: Any, task: Task, weights: Mapping[str, float]
) -> dict[Tokens, tuple[int, int, float]]:
    """Return start and end of the label's own tokens in each answer of tokenised data, and their weight.

    Answers reduced to these tokens by `--loss label` or `mixed` are included.

    Raises:
        ConfigError: when an answer states no label with a weight.
    """
    spans: dict[Tokens, tuple[int, int, float]] = {}
    for answer, (start, end) in find_label_spans(collect_answers(dataset)).items():
        text = tokenizer.decode(list(answer), skip_special_tokens=True)
        label = task.parse_answer(text)
        if label is None or task.labels[label] not in weights:
            raise ConfigError(
                f"the answer {text.strip()!r} states none of {', '.join(weights)} (task {task.name})",
                code="class-weights",
            )
        weight = weights[task.labels[label]]
        spans[answer] = (start, end, weight)
        spans[answer[start:end]] = (0, end - start, weight)
    return spans


class LabelWeights:
    """Replaces a model's loss function for batches with class weights.

    Args:
        causal: the language model, with transformers' own loss function.
        spans: from `locate_label_tokens`.
    """

    def __init__(self, causal: Any, spans: Mapping[Tokens, tuple[int, int, float]]) -> None:
        self._spans = spans
        self._labels: Any = None  # (B, T) of the current batch
        self._weights: Any = None
        self._stock = causal.loss_function
        causal.loss_function = self.compute_loss

    @contextmanager
    def apply_to(self, labels: Any) -> Iterator[None]:
        """Weight the loss of the batch with these labels (B, T), which is computed in the block.

        Raises:
            EngineError: when the model did not compute its loss by this function.
        """
        import torch

        weights = torch.ones(labels.shape, dtype=torch.float32)
        for row, given in enumerate(labels.tolist()):
            for start, end in find_answer_spans(given):
                first, last, weight = self._spans[tuple(given[start:end])]
                weights[row, start + first : start + last] = weight
        self._labels, self._weights = labels, weights.to(labels.device)
        try:
            yield
            if self._labels is not None:
                raise EngineError(
                    "The model bypassed its loss function, so the class weights had no effect", code="class-weights"
                )
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
        """Return the loss; labels and logits are (B, T), or packed by `AnswerLogits` into (1, R)."""
        from torch.nn.functional import cross_entropy, pad

        if self._labels is None:
            return self._stock(logits, labels, vocab_size, num_items_in_batch, ignore_index, **options)
        weights = self._weights
        if labels.shape != weights.shape:
            chosen = weights[:, 1:][self._labels[:, 1:] != IGNORED_LABEL]
            weights = pad(chosen, (1, labels.shape[1] - 1 - len(chosen))).unsqueeze(0)
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
