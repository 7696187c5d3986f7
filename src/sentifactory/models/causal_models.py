"""Loads a causal language model: a complete checkpoint, or a LoRA adapter on its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentifactory.errors import EngineError, SentiFactoryError
from sentifactory.models.folder_checks import describe_load_error, find_unsafe_content, is_load_error
from sentifactory.models.weights import ADAPTER_CONFIG
from sentifactory.system.hardware import is_device_full
from sentifactory.system.progress import hide_transformers_bars


def load_model(model_path: str, device: str, dtype: str) -> tuple[Any, Any]:
    """Return the tokenizer and the model, in evaluation mode.

    Raises:
        EngineError: when one of them cannot be loaded, or the tokenizer has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
        _try_template(tokenizer, model_path)
        model = load_network(model_path, dtype).to(device).eval()
    except Exception as error:
        if isinstance(error, SentiFactoryError) or not is_load_error(error):
            raise
        is_memory = is_device_full(error)
        raise EngineError(
            f"The model cannot be loaded ({describe_load_error(error)})",
            where=model_path,
            expected="the folder of a complete checkpoint with its tokenizer, or a hub id",
            next_step="use a smaller model or dtype" if is_memory else "create the checkpoint again",
            code="model-unloadable",
        ) from error
    return tokenizer, model


def _try_template(tokenizer: Any, model_path: str) -> None:
    """Check that the tokenizer has a chat template that can be rendered.

    Raises:
        EngineError: when it has not.
    """
    expected = "chat_template.jinja or a template in tokenizer_config.json"
    next_step = "use an instruction-tuned model, or copy the template of the training run into the folder"
    if not getattr(tokenizer, "chat_template", None):
        raise EngineError(
            "The tokenizer has no chat template",
            where=model_path,
            expected=expected,
            next_step=next_step,
            code="chat-template",
        )
    try:
        question = [{"role": "user", "content": "很好"}]
        tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template may raise anything
        raise EngineError(
            f"The chat template cannot be used ({describe_load_error(error)})",
            where=model_path,
            expected=expected,
            next_step=next_step,
            code="chat-template",
        ) from error


def load_network(model_path: str, dtype: str) -> Any:
    """Return a causal language model; for a LoRA adapter, its base model with the adapter applied.

    Adapters are loaded by peft, because transformers' own loading does not work with every version of peft.

    Raises:
        OSError: or another error of transformers or peft, when it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    if fault := find_unsafe_content(model_path):
        raise OSError(fault)
    if not (Path(model_path) / ADAPTER_CONFIG).is_file():
        with hide_transformers_bars():
            return AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype, trust_remote_code=False)
    from peft import PeftConfig, PeftModel

    base = str(PeftConfig.from_pretrained(model_path).base_model_name_or_path)
    return PeftModel.from_pretrained(load_network(base, dtype), model_path).get_base_model()
