"""A classifier with our own head: a pretrained encoder, pooling, dropout and one linear layer.

Its checkpoints have their own `model_type`, so that loading without this module fails with a clear message; with the
encoder's type it would load silently with an untrained standard head. The encoder's name in files is `trunk`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

MODEL_TYPE = "sentifactory_pooled"


def pool_tokens(hidden: Any, mask: Any, pooling: str) -> Any:
    """Return one vector per text, (B, H).

    Args:
        hidden: (B, T, H) the encoder's output.
        mask: (B, T) 1 for a token, 0 for padding.
        pooling: `mean` or elementwise `max` over the tokens, or the first token (`cls`).
    """
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    if pooling == "mean":
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return hidden.masked_fill(weights == 0, float("-inf")).amax(dim=1)


@lru_cache(maxsize=1)
def register_pooled_classes() -> tuple[Any, Any]:
    """Register and return the configuration and the model class; transformers' Auto classes then find them."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForSequenceClassification,
        PreTrainedConfig,
        PreTrainedModel,
    )
    from transformers.modeling_outputs import SequenceClassifierOutput

    class PooledConfig(PreTrainedConfig):
        """`trunk` is the configuration of the pretrained model, `pooling` is mean, cls or max."""

        model_type = MODEL_TYPE
        sub_configs = {"trunk": AutoConfig}  # noqa: RUF012 - as transformers declares it
        pooling: str = "mean"
        head_dropout: float | int = 0.1

        def __post_init__(self, **kwargs: Any) -> None:
            trunk = dict(kwargs.pop("trunk", None) or {"model_type": "bert"})
            trunk.pop("_name_or_path", None)  # a local path of the training machine, not to be published
            self.trunk = AutoConfig.for_model(trunk.pop("model_type"), **trunk)
            self.max_position_embeddings = getattr(self.trunk, "max_position_embeddings", None)
            self.pad_token_id = self.trunk.pad_token_id
            super().__post_init__(**kwargs)

    class PooledClassifier(PreTrainedModel):
        """Encoder, pooling, dropout and linear layer."""

        config_class = PooledConfig
        base_model_prefix = "trunk"
        _supports_sdpa = True

        def __init__(self, config: Any, trunk: Any = None) -> None:
            super().__init__(config)
            self.trunk = AutoModel.from_config(config.trunk, trust_remote_code=False) if trunk is None else trunk
            if hasattr(self.trunk, "pooler"):
                self.trunk.pooler = None  # part of the standard head, unused here
            self.dropout = torch.nn.Dropout(config.head_dropout)
            self.classifier = torch.nn.Linear(config.trunk.hidden_size, config.num_labels)
            self.post_init()

        def compute_features(self, input_ids: Any, attention_mask: Any) -> Any:
            """Return the head's input (B, H)."""
            hidden = self.trunk(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return pool_tokens(hidden, attention_mask, self.config.pooling)

        def forward(self, input_ids: Any, attention_mask: Any, **kwargs: Any) -> Any:
            """Return the logits (B, n_labels)."""
            features = self.compute_features(input_ids, attention_mask)
            return SequenceClassifierOutput(logits=self.classifier(self.dropout(features)))

    AutoConfig.register(MODEL_TYPE, PooledConfig)
    AutoModelForSequenceClassification.register(PooledConfig, PooledClassifier)
    return PooledConfig, PooledClassifier
