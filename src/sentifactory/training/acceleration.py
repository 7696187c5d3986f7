"""Decides which exact accelerations a run gets, installs them, and says which ones and why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.number_spans import format_spans
from sentifactory.progress import say
from sentifactory.training.answer_loss import (
    AnswerLoss,
    find_causal_model,
    find_obstacle_in_model,
    find_obstacle_in_settings,
)
from sentifactory.training.fast_decoder import FastDecoder
from sentifactory.training.shared_prefix import LEAST_TOKENS, TrainingTokens, read_tokens
from sentifactory.training.trunk_cache import TrunkCache, hash_trunk, open_storage

LOGITS, TRUNK, PREFIX, LAST = "answer-only logits", "frozen-trunk reuse", "shared prefix", "answer-only last layer"

# Settings under which samples are not computed each for itself, or layers not always in the same way.
_FOREIGN_PASSES = {
    "packing": "packed reviews stand behind each other in one row",
    "neat_packing": "packed reviews stand behind each other in one row",
    "streaming": "streamed data are not known before they come",
    "neftune_noise_alpha": "NEFTune adds noise to the embeddings",
    "shift_attn": "shifted attention looks at other positions",
    "use_badam": "BAdam changes the trainable layers as it goes on",
    "galore_layerwise": "layer-wise GaLore is not proven to be exact",
    "apollo_layerwise": "layer-wise APOLLO is not proven to be exact",
}
_PROVEN_METHODS = ("freeze", "full", "lora")
_PROVEN_ROTARY_TYPES = ("default", "linear", "llama3", "yarn")
# Parts of a model's configuration that its hidden states do not depend on.
_NEUTRAL_CONFIG = frozenset({"_name_or_path", "architectures", "transformers_version", "use_cache"})


@dataclass(frozen=True, slots=True)
class Way:
    """Which way the steps of a run go.

    Attributes:
        is_answer_only: the vocabulary projection runs at answer tokens alone.
        is_fast: the decoder's other forward pass runs.
        prefix: tokens that all prompts share and that are computed once a batch.
        frozen: lowest layers that run without gradients, once for each sample where their output is kept.
        kept_share: the part of that output for which there is room, from 0 to 1.
    """

    is_answer_only: bool = False
    is_fast: bool = False
    prefix: int = 0
    frozen: int = 0
    kept_share: float = 0.0


def find_pass_obstacle_in_settings(settings: Mapping[str, Any]) -> str | None:
    """Return why a recipe rules another forward pass of the decoder out, or None."""
    if settings.get("stage", "sft") != "sft":
        return f"the stage {settings['stage']} has no prompts"
    if (method := settings.get("finetuning_type", "lora")) not in _PROVEN_METHODS:
        return f"{method} is not proven to be exact"
    return next((reason for key, reason in _FOREIGN_PASSES.items() if settings.get(key)), None)


def find_pass_obstacle_in_model(model: Any) -> str | None:
    """Return why a model rules another forward pass of the decoder out, or None."""
    from torch import nn

    causal = find_causal_model(model)
    config = causal.config
    if getattr(config, "attention_dropout", 0.0) or any(
        isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()
    ):
        return "dropout gives other states each time"
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"{config._attn_implementation} takes no mask"
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        return "a kind of attention is not known"
    if getattr(config, "use_bidirectional_attention", False):
        return "attention looks ahead"
    rotary = config.rope_parameters
    kinds = [rotary] if "rope_type" in rotary else [value for value in rotary.values() if isinstance(value, dict)]
    if not all(kind["rope_type"] in _PROVEN_ROTARY_TYPES for kind in kinds):
        return "position embeddings depend on the length of the batch"
    if len(set((getattr(causal, "hf_device_map", None) or {}).values())) > 1:
        return "the layers stand on several devices"
    if "forward" in vars(getattr(causal, causal.base_model_prefix)):
        return "the decoder's forward function has been replaced"
    return None


def find_pass_obstacle_in_trainer(args: Any, dataset: Any) -> str | None:
    """Return why the trainer rules another forward pass of the decoder out, or None."""
    if args.world_size > 1 or args.n_gpu > 1:
        return "it is proven on one device alone"
    if not {"input_ids", "labels"} <= set(getattr(dataset, "column_names", None) or ()):
        return "the tokenised data cannot be looked through"
    return None


def count_frozen_layers(causal: Any) -> int:
    """Return how many lowest layers give the same states for the same tokens in every step."""
    decoder = getattr(causal, causal.base_model_prefix)
    if any(value.requires_grad for value in decoder.embed_tokens.parameters()):
        return 0
    trained = (
        index for index, layer in enumerate(decoder.layers) if any(value.requires_grad for value in layer.parameters())
    )
    return next(trained, len(decoder.layers))


class Accelerations:
    """What was switched on in one run.

    Args:
        settings: what LLaMA-Factory gets.
        card: gets a list of what is on and off.
        limit_bytes: what all trunk caches together may take on the disk.
        is_wanted: False leaves everything off.
    """

    def __init__(
        self, settings: Mapping[str, Any], card: dict[str, Any], limit_bytes: int, *, is_wanted: bool
    ) -> None:
        self.answer_loss: AnswerLoss | None = None
        self.fast_decoder: FastDecoder | None = None
        self.way = Way()
        self._settings = settings
        self._card = card
        self._limit_bytes = limit_bytes
        self._is_wanted = is_wanted

    @property
    def is_enabled(self) -> bool:
        """Whether steps run accelerated; without answer-only logits nothing does."""
        return self.answer_loss is not None and self.answer_loss.is_enabled

    @is_enabled.setter
    def is_enabled(self, value: bool) -> None:
        if self.answer_loss is not None:
            self.answer_loss.is_enabled = value

    def install_answer_loss(self, model: Any) -> None:
        """Put the hooks in: needs the model alone."""
        self._card["accelerations"] = []
        obstacle = None if self._is_wanted else "switched off"
        obstacle = obstacle or find_obstacle_in_settings(self._settings) or find_obstacle_in_model(model)
        if obstacle is not None:
            self._report(LOGITS, is_on=False, note=obstacle)
            return
        self.way = Way(is_answer_only=True)
        needs_logits = next((k for k in ("compute_accuracy", "predict_with_generate") if self._settings.get(k)), None)
        self.answer_loss = AnswerLoss(model, in_evaluation=needs_logits is None)
        scope = f"in training; evaluation needs every logit for {needs_logits}" if needs_logits else ""
        self._report(LOGITS, is_on=True, note=scope)

    def install_fast_decoder(self, model: Any, args: Any, dataset: Any) -> None:
        """Put the decoder's other forward pass in: needs the tokenised data as well.

        The weights of a dry run stand on the device `meta`: nothing is opened for them.
        """
        obstacle = None if self._is_wanted else "switched off"
        if obstacle is None and self.answer_loss is None:
            obstacle = f"it needs {LOGITS}"
        obstacle = (
            obstacle
            or find_pass_obstacle_in_settings(self._settings)
            or find_pass_obstacle_in_model(model)
            or find_pass_obstacle_in_trainer(args, dataset)
        )
        if obstacle is not None:
            for name in (TRUNK, PREFIX, LAST):
                self._report(name, is_on=False, note=obstacle)
            return
        assert self.answer_loss is not None  # noqa: S101  (an obstacle otherwise)
        causal = find_causal_model(model)
        tokens = read_tokens(dataset)
        frozen = count_frozen_layers(causal)
        frozen = min(frozen, len(getattr(causal, causal.base_model_prefix).layers) - 1)
        cache, kept_share = self._open_cache(causal, frozen, tokens) if frozen else (None, 0.0)
        if not frozen:
            self._report(TRUNK, is_on=False, note="the embeddings or the lowest layer train")
        is_shared = len(tokens.prefix) > 0
        note = f"{len(tokens.prefix)} tokens" if is_shared else f"fewer than {LEAST_TOKENS} tokens are the same in all"
        self._report(PREFIX, is_on=is_shared, note=note)
        self._report(LAST, is_on=True)
        self.way = Way(True, True, len(tokens.prefix), frozen, kept_share)
        self.fast_decoder = FastDecoder(causal, self.answer_loss, tokens.prefix, frozen, cache)

    def _open_cache(self, causal: Any, frozen: int, tokens: TrainingTokens) -> tuple[TrunkCache | None, float]:
        """Find a place for the frozen layers' output, say where it is, and return how much of it has room."""
        import torch
        import transformers

        decoder = getattr(causal, causal.base_model_prefix)
        table = decoder.embed_tokens.weight
        weights = [table, *(value for layer in decoder.layers[:frozen] for value in layer.parameters())]
        facts = {
            "config": {k: v for k, v in decoder.config.to_dict().items() if k not in _NEUTRAL_CONFIG},
            "attention": decoder.config._attn_implementation,
            "frozen": frozen,
            "prefix": tokens.prefix,
            "precision": [self._settings.get(key) for key in ("bf16", "fp16", "pure_bf16")],
            "device": table.device.type,
            "versions": [torch.__version__, transformers.__version__],
        }
        needed = tokens.kept_tokens * decoder.config.hidden_size * table.dtype.itemsize
        share = min(1.0, self._limit_bytes / max(1, needed))
        extent = f"layers {format_spans(range(frozen))}, {needed / 2**20:.0f} MiB"
        if table.is_meta:
            self._report(TRUNK, is_on=share > 0, note=extent)
            return None, share
        storage, place = open_storage(lambda: hash_trunk(weights, facts), needed, self._limit_bytes)
        if storage is None:
            self._report(TRUNK, is_on=False, note=place)
            return None, 0.0
        self._report(TRUNK, is_on=True, note=f"{extent} {place}")
        return TrunkCache(storage, decoder.config.hidden_size, table.dtype), share

    def close(self) -> None:
        """Let other runs have the cache."""
        if self.fast_decoder is not None:
            self.fast_decoder.close()

    def note_use(self) -> None:
        """Write into the card how often the short way was taken, and how often the cache answered."""
        decoder = self.fast_decoder
        if decoder is None:
            return
        for entry in self._card["accelerations"]:
            if entry["name"] == LAST:
                entry["batches"] = {"fast": decoder.fast_batches, "stock": decoder.stock_batches}
            if entry["name"] == TRUNK and decoder.cache is not None:
                entry["samples"] = {"taken": decoder.cache.hits, "computed": decoder.cache.misses}

    def _report(self, name: str, *, is_on: bool, note: str = "") -> None:
        if is_on:
            promise = "; the loss stays the same" if name == LOGITS else ""
            say(f"Acceleration on: {name}{f' ({note})' if note else ''}{promise}.")
        else:
            say(f"Acceleration off: {name} ({note}).")
        self._card["accelerations"].append({"name": name, "is_on": is_on, "note": note})
