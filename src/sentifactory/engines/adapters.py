"""Loads a causal language model, whole or as a LoRA adapter on its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentifactory.models.hostile import find_hostile
from sentifactory.models.transformers_bars import hide_transformers_bars
from sentifactory.models.weights import ADAPTER_CONFIG


def load_network(model_path: str, dtype: str) -> Any:
    """Return a causal language model; of a LoRA adapter's folder, its base model with the adapter in place.

    transformers' own loading of adapters does not go with every peft, so peft itself does it.

    Raises:
        OSError: or another of transformers' and peft's errors, when it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    if fault := find_hostile(model_path):
        raise OSError(fault)
    if not (Path(model_path) / ADAPTER_CONFIG).is_file():
        with hide_transformers_bars():
            return AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype, trust_remote_code=False)
    from peft import PeftConfig, PeftModel

    base = str(PeftConfig.from_pretrained(model_path).base_model_name_or_path)
    return PeftModel.from_pretrained(load_network(base, dtype), model_path).get_base_model()
