"""Chooses which exact accelerations apply to a run, installs them, and reports which are off and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sentifactory.system.formats import format_spans
from sentifactory.system.progress import say
from sentifactory.training.acceleration.answer_logits import (
    AnswerLogits,
    cast_projection_once,
    find_causal_model,
    find_obstacle_in_model,
    find_obstacle_in_settings,
)
from sentifactory.training.acceleration.fast_decoder import FastDecoder
from sentifactory.training.acceleration.frozen_layer_cache import FrozenLayerCache, hash_frozen_layers, open_storage
from sentifactory.training.acceleration.sharding import find_sharding, find_sharding_obstacle
from sentifactory.training.acceleration.shared_prefix import MIN_TOKENS, TrainingTokens, read_tokens

# Names in the run card.
ANSWER_LOGITS, FROZEN_LAYERS = "answer-only logits", "frozen-trunk reuse"
SHARED_PREFIX, LAST_LAYER = "shared prefix", "answer-only last layer"
ROUNDED_PROJECTION = "vocabulary projection rounded to bf16 once"

# Settings under which samples are not computed independently, or a layer changes between steps.
_UNSUPPORTED_SETTINGS = {
    "packing": "several reviews are packed into one row",
    "neat_packing": "several reviews are packed into one row",
    "streaming": "streamed data cannot be inspected beforehand",
    "neftune_noise_alpha": "NEFTune adds noise to the embeddings",
    "shift_attn": "shifted attention attends to other positions",
    "use_badam": "BAdam changes the trainable layers during training",
    "galore_layerwise": "layer-wise GaLore is not proven to be exact",
    "apollo_layerwise": "layer-wise APOLLO is not proven to be exact",
}
_PROVEN_METHODS = ("freeze", "full", "lora")
_PROVEN_ROTARY_TYPES = ("default", "linear", "llama3", "yarn")
# Keys of a model's configuration that do not affect its hidden states.
_NEUTRAL_CONFIG = frozenset({"_name_or_path", "architectures", "transformers_version", "use_cache"})


@dataclass(frozen=True, slots=True)
class AccelerationPlan:
    """Which accelerations the steps of a run use.

    Attributes:
        is_answer_only: whether the vocabulary projection runs only at answer tokens.
        is_fast: whether `FastDecoder` replaces the decoder's forward pass.
        prefix: number of tokens shared by all prompts, computed once per batch.
        frozen: number of lowest layers that run without gradients, once per sample where their output is cached.
        cached_share: share of that output that fits into the cache, from 0 to 1.
    """

    is_answer_only: bool = False
    is_fast: bool = False
    prefix: int = 0
    frozen: int = 0
    cached_share: float = 0.0


def find_pass_obstacle_in_settings(settings: Mapping[str, Any]) -> str | None:
    """Return why a recipe rules out the fast forward pass, or None."""
    if settings.get("stage", "sft") != "sft":
        return f"the stage {settings['stage']} has no prompts"
    if (method := settings.get("finetuning_type", "lora")) not in _PROVEN_METHODS:
        return f"{method} is not proven to be exact"
    return next((reason for key, reason in _UNSUPPORTED_SETTINGS.items() if settings.get(key)), None)


def find_pass_obstacle_in_model(model: Any) -> str | None:
    """Return why a model rules out the fast forward pass, or None."""
    from torch import nn

    causal = find_causal_model(model)
    config = causal.config
    if getattr(config, "attention_dropout", 0.0) or any(
        isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()
    ):
        return "dropout makes hidden states random"
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"{config._attn_implementation} accepts no explicit mask"
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        return "a layer has an unknown kind of attention"
    if getattr(config, "use_bidirectional_attention", False):
        return "attention is bidirectional"
    rotary = config.rope_parameters
    kinds = [rotary] if "rope_type" in rotary else [value for value in rotary.values() if isinstance(value, dict)]
    if not all(kind["rope_type"] in _PROVEN_ROTARY_TYPES for kind in kinds):
        return "position embeddings depend on the length of the batch"
    if len(set((getattr(causal, "hf_device_map", None) or {}).values())) > 1:
        return "the layers are on several devices"
    if "forward" in vars(getattr(causal, causal.base_model_prefix)):
        return "the decoder's forward function has been replaced"
    return None


def find_pass_obstacle_in_trainer(args: Any, dataset: Any) -> str | None:
    """Return why the trainer rules out the fast forward pass, or None."""
    if args.n_gpu > 1:
        return "one process trains on several devices"
    if kind := find_sharding(args):
        return f"{kind} splits the weights among the processes"
    if not {"input_ids", "labels"} <= set(getattr(dataset, "column_names", None) or ()):
        return "the tokenised data cannot be inspected"
    return None


def count_frozen_layers(causal: Any) -> int:
    """Return the number of lowest layers whose output for a sample is the same in every step."""
    decoder = getattr(causal, causal.base_model_prefix)
    if any(value.requires_grad for value in decoder.embed_tokens.parameters()):
        return 0
    trained = (
        index for index, layer in enumerate(decoder.layers) if any(value.requires_grad for value in layer.parameters())
    )
    return next(trained, len(decoder.layers))


class Accelerations:
    """Installs the accelerations of one run.

    Args:
        settings: the settings passed to LLaMA-Factory.
        card: the run card, which receives the list of accelerations that are on and off.
        limit_bytes: disk space for all caches of frozen layers together.
        is_wanted: False switches everything off.
    """

    def __init__(
        self, settings: Mapping[str, Any], card: dict[str, Any], limit_bytes: int, *, is_wanted: bool
    ) -> None:
        self.answer_logits: AnswerLogits | None = None
        self.fast_decoder: FastDecoder | None = None
        self.plan = AccelerationPlan()
        self._settings = settings
        self._card = card
        self._limit_bytes = limit_bytes
        self._is_wanted = is_wanted

    @property
    def is_enabled(self) -> bool:
        """Whether steps run accelerated; every acceleration needs answer-only logits."""
        return self.answer_logits is not None and self.answer_logits.is_enabled

    @is_enabled.setter
    def is_enabled(self, value: bool) -> None:
        if self.answer_logits is not None:
            self.answer_logits.is_enabled = value

    def install_answer_logits(self, model: Any, args: Any) -> None:
        """Install answer-only logits, which need only the model and how the trainer splits it."""
        self._card["accelerations"] = []
        obstacle = None if self._is_wanted else "switched off"
        obstacle = (
            obstacle
            or find_obstacle_in_settings(self._settings)
            or find_obstacle_in_model(model)
            or find_sharding_obstacle(args)
        )
        if obstacle is not None:
            self._report(ANSWER_LOGITS, is_on=False, note=obstacle)
            return
        self.plan = AccelerationPlan(is_answer_only=True)
        needs_logits = next((k for k in ("compute_accuracy", "predict_with_generate") if self._settings.get(k)), None)
        self.answer_logits = AnswerLogits(model, in_evaluation=needs_logits is None)
        scope = f"in training; evaluation needs every logit for {needs_logits}" if needs_logits else ""
        self._report(ANSWER_LOGITS, is_on=True, note=scope)
        # Split weights are whole only within the forward pass of their module.
        is_whole = find_sharding(args) is None
        if is_whole and self._settings.get("bf16") and cast_projection_once(find_causal_model(model)):
            self._report(ROUNDED_PROJECTION, is_on=True)

    def install_fast_decoder(self, model: Any, args: Any, dataset: Any) -> None:
        """Install the fast forward pass, which also needs the tokenised data.

        A dry run has its weights on the device `meta`: no cache is opened for it.
        """
        obstacle = None if self._is_wanted else "switched off"
        if obstacle is None and self.answer_logits is None:
            obstacle = f"it needs {ANSWER_LOGITS}"
        obstacle = (
            obstacle
            or find_pass_obstacle_in_settings(self._settings)
            or find_pass_obstacle_in_model(model)
            or find_pass_obstacle_in_trainer(args, dataset)
        )
        if obstacle is not None:
            for name in (FROZEN_LAYERS, SHARED_PREFIX, LAST_LAYER):
                self._report(name, is_on=False, note=obstacle)
            return
        assert self.answer_logits is not None  # noqa: S101  (an obstacle otherwise)
        causal = find_causal_model(model)
        tokens = read_tokens(dataset)
        frozen = count_frozen_layers(causal)
        frozen = min(frozen, len(getattr(causal, causal.base_model_prefix).layers) - 1)
        cache, cached_share = self._open_cache(causal, frozen, tokens) if frozen else (None, 0.0)
        if not frozen:
            self._report(FROZEN_LAYERS, is_on=False, note="the embeddings or the lowest layer are trainable")
        is_shared = len(tokens.prefix) > 0
        note = f"{len(tokens.prefix)} tokens" if is_shared else f"fewer than {MIN_TOKENS} tokens are the same in all"
        self._report(SHARED_PREFIX, is_on=is_shared, note=note)
        self._report(LAST_LAYER, is_on=True)
        self.plan = AccelerationPlan(True, True, len(tokens.prefix), frozen, cached_share)
        self.fast_decoder = FastDecoder(causal, self.answer_logits, tokens.prefix, frozen, cache)

    def _open_cache(self, causal: Any, frozen: int, tokens: TrainingTokens) -> tuple[FrozenLayerCache | None, float]:
        """Open the cache of the frozen layers' output, report where it is, and return the share of it that fits."""
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
            "precision": [bool(self._settings.get(key)) for key in ("bf16", "fp16", "pure_bf16")],
            "device": table.device.type,
            "versions": [torch.__version__, transformers.__version__],
        }
        needed = tokens.cached_tokens * decoder.config.hidden_size * table.dtype.itemsize
        share = min(1.0, self._limit_bytes / max(1, needed))
        extent = f"layers {format_spans(range(frozen))}, {needed / 2**20:.0f} MiB"
        if table.is_meta:
            self._report(FROZEN_LAYERS, is_on=share > 0, note=extent)
            return None, share
        storage, place = open_storage(lambda: hash_frozen_layers(weights, facts), needed, self._limit_bytes)
        if storage is None:
            self._report(FROZEN_LAYERS, is_on=False, note=place)
            return None, 0.0
        self._report(FROZEN_LAYERS, is_on=True, note=f"{extent} {place}")
        return FrozenLayerCache(storage, decoder.config.hidden_size, table.dtype), share

    def close(self) -> None:
        """Close the cache, so that other runs can use it."""
        if self.fast_decoder is not None:
            self.fast_decoder.close()

    def count_use(self) -> list[int]:
        """Return how many batches ran fast and stock, and how many samples were taken from the cache and computed."""
        decoder = self.fast_decoder
        if decoder is None:
            return [0, 0, 0, 0]
        cache = decoder.cache
        samples = [cache.hits, cache.misses] if cache is not None else [0, 0]
        return [decoder.fast_batches, decoder.stock_batches, *samples]

    def record_use(self, counts: Sequence[int]) -> None:
        """Write counts of `count_use` into the card.

        Args:
            counts: of this process, or the sums over those of the run.
        """
        decoder = self.fast_decoder
        if decoder is None:
            return
        fast, stock, taken, computed = counts
        for entry in self._card["accelerations"]:
            if entry["name"] == LAST_LAYER:
                entry["batches"] = {"fast": fast, "stock": stock}
            if entry["name"] == FROZEN_LAYERS and decoder.cache is not None:
                entry["samples"] = {"taken": taken, "computed": computed}

    def _report(self, name: str, *, is_on: bool, note: str = "") -> None:
        if is_on:
            promise = "; the loss stays the same" if name == ANSWER_LOGITS else ""
            say(f"Acceleration on: {name}{f' ({note})' if note else ''}{promise}.")
        else:
            say(f"Acceleration off: {name} ({note}).")
        self._card["accelerations"].append({"name": name, "is_on": is_on, "note": note})
