"""Computes the vocabulary projection only where an answer token is predicted; the loss stays the same.

A causal language model is trained on the answer alone: labels of the prompt are -100 and drop out of the loss. Stock
training still multiplies every hidden state by the whole vocabulary (262,144 logits for each of 140 tokens of which 8
matter, for gemma-3). Here two hooks keep the model's own forward function, with all that it does to logits (biases,
scaling, soft caps, casts), and its own loss function:

- before the forward pass, labels (B, T) are replaced by the (1, K + 1) labels of the K predicted positions;
- after the decoder, hidden states (B, T, H) are replaced by the rows (1, K + 1, H) of those positions.

The loss function shifts labels by one, so the packed labels begin with an ignored one and a row that predicts nothing
(the last position of the first sample) is added at the end. Sums, means and `num_items_in_batch` run over the same
labels as before. Whatever is not known to be exact is left alone, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

IGNORED_LABEL = -100
# Which tokens are learnt: all of the answer, or (label_loss.py) those alone that tell the labels apart.
WHOLE_ANSWER, LABEL = LOSSES = ("answer", "label")

# Classes whose forward function uses the decoder's hidden states for the logits alone; tests prove each of them.
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
_FOREIGN_LOSSES = {
    "use_dft_loss": "the DFT loss needs every logit",
    "use_eaft_loss": "the EAFT loss needs every logit",
    "use_asft_loss": "the ASFT loss needs every logit",
    "label_smoothing_factor": "label smoothing needs every logit",
    "enable_liger_kernel": "the Liger kernel brings its own fused loss",
    "use_unsloth": "Unsloth brings its own loss",
    "mixture_of_depths": "mixture of depths changes the forward function",
    "use_kt": "KTransformers brings its own forward function",
    "use_mca": "Megatron brings its own trainer",
    "use_hyper_parallel": "HyperParallel brings its own trainer",
    "use_v1_kernels": "replaced kernels are not proven to be exact",
    "fp8": "FP8 projections are not proven to be exact",
    "torch_compile": "the number of answer tokens changes from batch to batch, so torch.compile would compile anew",
    "deepspeed": "DeepSpeed is not proven to be exact",
    "fsdp": "FSDP is not proven to be exact",
}


def find_obstacle_in_settings(settings: Mapping[str, Any]) -> str | None:
    """Return why a recipe rules the answer-only projection out, or None."""
    if settings.get("stage", "sft") not in ("sft", "pt"):
        return f"the stage {settings['stage']} has a loss of its own"
    for key, reason in _FOREIGN_LOSSES.items():
        if settings.get(key):
            return reason
    return None


def find_causal_model(model: Any) -> Any:
    """Return the transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def find_obstacle_in_model(model: Any) -> str | None:
    """Return why this model rules the answer-only projection out, or None."""
    from torch import nn
    from transformers.loss.loss_utils import ForCausalLMLoss

    causal = find_causal_model(model)
    name = type(causal).__name__
    if name not in PROVEN_CLASSES:
        return f"{name} is not among the proven model classes"
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "prompt tuning puts virtual tokens before the text"
    forward = inspect.unwrap(type(causal).forward)
    if not forward.__module__.startswith("transformers.models.") or "forward" in vars(causal):
        return f"the forward function of {name} has been replaced"
    if causal.loss_function is not ForCausalLMLoss:
        return f"{name} has a loss function of its own"
    if type(causal.get_output_embeddings()) is not nn.Linear:
        return "the vocabulary projection is not a plain linear layer"
    return None


class AnswerLoss:
    """The installed hooks.

    Args:
        model: the model that the trainer calls, plain or wrapped by PEFT.
        in_evaluation: whether evaluation needs the loss alone; where it needs logits (`compute_accuracy`), the stock
            forward pass must run.
    """

    def __init__(self, model: Any, *, in_evaluation: bool = True) -> None:
        causal = find_causal_model(model)
        decoder = getattr(causal, causal.base_model_prefix)
        self.is_enabled = True
        self._in_evaluation = in_evaluation
        self.rows: Any = None  # (K + 1,) flat positions, between the two hooks
        self._handles = [
            model.register_forward_pre_hook(self._pack_labels, with_kwargs=True),
            decoder.register_forward_hook(self._gather_rows),
            model.register_forward_hook(self._forget, always_call=True),
        ]

    def remove(self) -> None:
        """Take the hooks out again."""
        for handle in self._handles:
            handle.remove()

    def take_rows(self) -> Any:
        """Return the positions (K + 1,) whose hidden states are wanted, and leave the gathering to the caller."""
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
        """Replace labels (B, T) by (1, K + 1), and remember which hidden states they belong to."""
        import torch

        self.rows = None
        if not self._applies(module, kwargs):
            return None
        labels = kwargs["labels"]
        width = labels.shape[1]
        targets = labels[:, 1:]
        sample, position = (targets != IGNORED_LABEL).nonzero(as_tuple=True)
        # The last position of a sample predicts nothing, so this row stands in no other place of the index.
        idle_row = position.new_full((1,), width - 1)
        self.rows = torch.cat([sample * width + position, idle_row])
        packed = torch.cat([labels.new_full((1,), IGNORED_LABEL), targets[sample, position]])
        return args, {**kwargs, "labels": packed.unsqueeze(0)}

    def _gather_rows(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Replace hidden states (B, T, H) by the rows (1, K + 1, H) that predict an answer token."""
        if self.rows is None:
            return None
        rows = self.take_rows()
        hidden = output[0]
        gathered = hidden.flatten(0, 1).index_select(0, rows.to(hidden.device)).unsqueeze(0)
        if isinstance(output, tuple):
            return (gathered, *output[1:])
        output["last_hidden_state"] = gathered
        return output

    def _forget(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.rows = None
