"""Computes the vocabulary projection only where an answer token is predicted; the loss stays the same.

A causal language model is trained on the answer alone: labels of the prompt are -100 and drop out of the loss. Stock
training still multiplies every hidden state by the whole vocabulary (262,144 logits for each of 140 tokens, of which
8 matter, for gemma-3). Here two hooks keep the model's own forward function, with all that it does to logits (biases,
scaling, soft caps, casts), and its own loss function:

- before the forward pass, labels (B, T) are replaced by the (1, R) labels of the K predicted positions;
- after the decoder, hidden states (B, T, H) are replaced by the rows (1, R, H) of those positions.

The loss function shifts labels by one, so the packed labels begin with an ignored one, and R - K > 0 rows that predict
nothing (the last position of the first sample) are added at the end. Sums, means and `num_items_in_batch` run over the
same labels as before. R is a multiple of 16: see `round_up`.

A model or recipe for which this is not known to be exact trains unchanged, and the reason is reported.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

_ROWS_AT_A_TIME = 1000
# R, the number of rows that are multiplied by the vocabulary, is a multiple of this.
ROWS_STEP = 16
# The number of positions after the prefix that `fast_decoder` computes is a multiple of this, or all.
LENGTH_STEP = 8

IGNORED_LABEL = -100
# Which tokens the loss covers (label_loss.py): the whole answer; those that distinguish the labels; these, and the
# whole answer of one review in ten.
WHOLE_ANSWER, LABEL, MIXED = LOSSES = ("answer", "label", "mixed")

# Classes whose forward function uses the decoder's hidden states only for the logits; tests prove each of them.
PROVEN_CLASSES = frozenset(
    {
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "GemmaForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
    }
)

# Settings under which the loss is not (or not only) the model's own loss of its own logits.
_UNSUPPORTED_SETTINGS = {
    "use_dft_loss": "the DFT loss needs every logit",
    "use_eaft_loss": "the EAFT loss needs every logit",
    "use_asft_loss": "the ASFT loss needs every logit",
    "label_smoothing_factor": "label smoothing needs every logit",
    "enable_liger_kernel": "the Liger kernel has a fused loss of its own",
    "use_unsloth": "Unsloth has a loss of its own",
    "mixture_of_depths": "mixture of depths changes the forward function",
    "use_kt": "KTransformers has a forward function of its own",
    "use_mca": "Megatron has a trainer of its own",
    "use_hyper_parallel": "HyperParallel has a trainer of its own",
    "use_v1_kernels": "replaced kernels are not proven to be exact",
    "fp8": "FP8 projections are not proven to be exact",
    "torch_compile": "the number of answer tokens varies, so torch.compile would recompile for every batch",
}


def round_up(number: Any, step: int) -> Any:
    """Return the next multiple of `step`, of a number or of each one of an array.

    Matrix products are computed with rounded sizes: oneDNN compiles code for each new size, and keeps it for the last
    1,024 products. A size of its own for each batch would cost time in every step and a good part of a GB of memory.

    Examples:
        >>> round_up(17, 16), round_up(32, 16)
        (32, 32)
    """
    return -(-number // step) * step


def find_obstacle_in_settings(settings: Mapping[str, Any]) -> str | None:
    """Return why a recipe rules out answer-only logits, or None."""
    if settings.get("stage", "sft") not in ("sft", "pt"):
        return f"the stage {settings['stage']} has a loss of its own"
    for key, reason in _UNSUPPORTED_SETTINGS.items():
        if settings.get(key):
            return reason
    return None


def find_causal_model(model: Any) -> Any:
    """Return the transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def find_obstacle_in_model(model: Any) -> str | None:
    """Return why a model rules out answer-only logits, or None."""
    from torch import nn
    from transformers.loss.loss_utils import ForCausalLMLoss

    causal = find_causal_model(model)
    name = type(causal).__name__
    if name not in PROVEN_CLASSES:
        return f"{name} is not among the proven model classes"
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "prompt tuning prepends virtual tokens to the text"
    forward = inspect.unwrap(type(causal).forward)
    if not forward.__module__.startswith("transformers.models.") or "forward" in vars(causal):
        return f"the forward function of {name} has been replaced"
    if causal.loss_function is not ForCausalLMLoss:
        return f"{name} has a loss function of its own"
    if type(causal.get_output_embeddings()) is not nn.Linear:
        return "the vocabulary projection is not a plain linear layer"
    return None


class AnswerLogits:
    """Installs and holds the hooks.

    Args:
        model: the model that the trainer calls, plain or wrapped by PEFT.
        in_evaluation: whether the hooks also apply in evaluation; not where it needs all logits (`compute_accuracy`).
    """

    def __init__(self, model: Any, *, in_evaluation: bool = True) -> None:
        causal = find_causal_model(model)
        decoder = getattr(causal, causal.base_model_prefix)
        self.is_enabled = True
        self._in_evaluation = in_evaluation
        self.rows: Any = None  # (R,) flat positions, between the two hooks
        self._handles = [
            model.register_forward_pre_hook(self._pack_labels, with_kwargs=True),
            decoder.register_forward_hook(self._gather_rows),
            model.register_forward_hook(self._reset_rows, always_call=True),
        ]

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def take_rows(self) -> Any:
        """Return the positions (R,) whose hidden states are needed; the caller gathers them."""
        rows, self.rows = self.rows, None
        return rows

    def _applies(self, module: Any, kwargs: Mapping[str, Any]) -> bool:
        labels = kwargs.get("labels")
        if not self.is_enabled or labels is None or labels.dim() != 2:
            return False
        if not (module.training or self._in_evaluation):
            return False
        return kwargs.get("shift_labels") is None and not kwargs.get("logits_to_keep")

    def _pack_labels(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Replace labels (B, T) by (1, R), and note the positions that they are predicted from."""
        import torch

        self.rows = None
        if not self._applies(module, kwargs):
            return None
        labels = kwargs["labels"]
        width = labels.shape[1]
        targets = labels[:, 1:]
        sample, position = (targets != IGNORED_LABEL).nonzero(as_tuple=True)
        chosen = sample * width + position
        size = round_up(len(chosen) + 1, ROWS_STEP)
        if labels.shape == (1, size):
            size += ROWS_STEP  # whoever receives labels or logits knows by their shape whether they are packed
        idle = size - len(chosen)
        # The last position of a sample predicts nothing, so it is not among the chosen ones.
        self.rows = torch.cat([chosen, chosen.new_full((idle,), width - 1)])
        packed = labels.new_full((1, len(self.rows)), IGNORED_LABEL)
        packed[0, 1 : len(chosen) + 1] = targets[sample, position]
        return args, {**kwargs, "labels": packed}

    def _gather_rows(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Replace hidden states (B, T, H) by the rows (1, R, H) that predict an answer token."""
        if self.rows is None:
            return None
        rows = self.take_rows()
        hidden = output[0]
        gathered = hidden.flatten(0, 1).index_select(0, rows.to(hidden.device)).unsqueeze(0)
        if isinstance(output, tuple):
            return (gathered, *output[1:])
        output["last_hidden_state"] = gathered
        return output

    def _reset_rows(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.rows = None


def cast_projection_once(causal: Any) -> bool:
    """Round the weights of a frozen vocabulary projection to bf16 once instead of in every step; return whether done.

    Autocast keeps its rounded copies of trainable weights only, and only within a forward pass. The projection is by
    far the largest matrix, and with answer-only logits it is multiplied by few rows, so rounding it takes a good part
    of the time. The result is the same, and so is the peak memory: the backward pass holds such a copy in any case.
    """
    import torch
    from torch.nn.functional import linear

    head = causal.get_output_embeddings()
    weight = head.weight
    if weight.requires_grad or weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    rounded = weight.detach().to(torch.bfloat16)

    def project(hidden: Any) -> Any:
        return linear(hidden, rounded if torch.is_autocast_enabled("cpu") else head.weight, head.bias)

    head.forward = project
    return True


def iter_token_rows(dataset: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the values (T,) of the named columns for each row of tokenised data, as arrays."""
    # Through Arrow: the numpy format of datasets imports a part of torchvision that the pinned version lacks.
    for table in dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME):
        for cells in zip(*(table[column] for column in columns), strict=True):
            yield tuple(cell.values.to_numpy() for cell in cells)
