"""Loads encoder classifiers from a folder or a hub, and encodes texts for them.

Training and all engines load through this module, so that training and inference treat texts the same. A checkpoint
that lacks weights of the encoder is refused, because transformers would initialise them randomly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.errors import EngineError, SentiFactoryError
from sentifactory.models.folder_checks import describe_load_error, find_unsafe_content, is_load_error
from sentifactory.models.hub import MODELSCOPE_PREFIX, check_hub_id
from sentifactory.models.pooled_classifier import MODEL_TYPE, register_pooled_classes
from sentifactory.system.environments import wants_modelscope
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import hide_transformers_bars
from sentifactory.task.label_names import name_labels
from sentifactory.task.task import Task

# Model types whose position ids start after the id of the padding token.
_SHIFTED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


# Model type of ModelScope's StructBERT, whose layers are BERT's.
_SAME_AS_BERT = ("structbert",)
_BARE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,95}")
# Suffixes of class names of generative models.
_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True, slots=True)
class Classifier:
    """A classifier that is ready to answer.

    Attributes:
        tokenizer: encodes texts; use `encode_texts`.
        model: called with `input_ids` and `attention_mask` (B, T), it returns an object with `logits` (B, n_labels).
        has_trained_head: False if the checkpoint has no classification head, so that it was initialised randomly.
    """

    tokenizer: Any
    model: Any
    has_trained_head: bool


def is_classifier(name: str) -> bool:
    """Return whether a model is a text classifier or an encoder, not a language model, from its configuration only.

    Raises:
        EngineError: when the configuration of a hub model cannot be fetched.
    """
    kinds = _read_config(name).get("architectures") or []
    return bool(kinds) and not any(kind.endswith(_LANGUAGE_MODELS) for kind in kinds)


def _read_config(name: str) -> Mapping[str, Any]:
    """Return the configuration of a folder or hub model; {} for a folder without one.

    Raises:
        EngineError: when the configuration of a hub model cannot be fetched.
    """
    file = Path(name).expanduser() / "config.json"
    if file.parent.exists():
        return read_json_object(file) or {}
    with explain_load_errors(name):
        return dict(load_config(find_model_folder(name)).to_dict())


def has_declared_head(name: str, *, classifier: bool) -> bool:
    """Return whether a folder's configuration declares a classification head, or else a language-model head."""
    return _declares_head(read_json_object(Path(name).expanduser() / "config.json") or {}, classifier=classifier)


def has_random_head(name: str) -> bool:
    """Return whether an encoder's checkpoint has no classification head, so that loading it makes up a random one.

    Raises:
        EngineError: when the configuration of a hub model cannot be fetched.
    """
    return not _declares_head(_read_config(name), classifier=True)


def _declares_head(config: Mapping[str, Any], *, classifier: bool) -> bool:
    if classifier and config.get("model_type") == MODEL_TYPE:
        return True
    endings = ("ForSequenceClassification",) if classifier else _LANGUAGE_MODELS
    return any(str(kind).endswith(endings) for kind in config.get("architectures") or [])


def find_model_folder(name: str) -> str:
    """Return the name for transformers' loaders: `ms:owner/name` is fetched from ModelScope, others are unchanged.

    With USE_MODELSCOPE_HUB=1 (as in LLaMA-Factory) every name that is not a folder is fetched from ModelScope.

    Raises:
        ConfigError: when it is neither a folder nor a valid hub id.
        EngineError: when the package modelscope is missing or the model cannot be fetched.
    """
    folder = Path(name).expanduser()
    if os.path.exists(folder):
        return str(folder)
    hub_id = name.removeprefix(MODELSCOPE_PREFIX)
    if "/" in hub_id or not _BARE_NAME.fullmatch(hub_id):  # early hub models have no owner: bert-base-chinese
        check_hub_id(hub_id)
    if not name.startswith(MODELSCOPE_PREFIX) and not wants_modelscope():
        return name
    try:
        from modelscope import snapshot_download

        return str(snapshot_download(hub_id))
    except ImportError as error:
        raise EngineError(
            "The package modelscope is not installed",
            where=name,
            next_step="pip install modelscope",
            code="package-needed",
        ) from error
    except Exception as error:  # it raises many types
        raise EngineError(
            f"The model cannot be fetched from ModelScope ({error})",
            where=name,
            next_step="check name and network",
            code="model-unloadable",
        ) from error


@contextmanager
def explain_load_errors(name: str) -> Iterator[None]:
    """Turn load errors of transformers into an EngineError, and silence its log meanwhile.

    Raises:
        EngineError: when loading fails.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with hide_transformers_bars():
            yield
    except Exception as error:
        if isinstance(error, SentiFactoryError) or not is_load_error(error):
            raise
        raise EngineError(
            f"The encoder cannot be loaded ({describe_load_error(error)})",
            where=name,
            expected="the folder of an encoder with its tokenizer, or a hub id",
            next_step="create the checkpoint again, or use another one "
            "(`sentifactory model fetch multilingual-e5-small` creates one without a hub)",
            code="model-unloadable",
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def load_config(folder: str, **changes: Any) -> Any:
    """Return the configuration of a checkpoint; raises transformers' errors."""
    from transformers import AutoConfig, BertConfig

    if fault := find_unsafe_content(folder):
        raise OSError(fault)
    register_pooled_classes()
    file = Path(folder) / "config.json"
    if (read_json_object(file) or {}).get("model_type") in _SAME_AS_BERT:
        return BertConfig.from_pretrained(folder, **changes)
    return AutoConfig.from_pretrained(folder, trust_remote_code=False, **changes)


def load_classifier(name: str, task: Task, *, device: str = "cpu") -> Classifier:
    """Load a classifier in float32; a missing head is initialised randomly with a fixed seed.

    Args:
        name: folder, hub id, or `ms:owner/name`.
        task: with the label names for a missing head.
        device: torch device.

    Raises:
        EngineError: when it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = find_model_folder(name)
    with explain_load_errors(name):
        config = load_config(folder)
        if not any(kind.endswith("Classification") for kind in config.architectures or []) and (
            config.model_type != MODEL_TYPE
        ):
            config = load_config(folder, **name_labels(task))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    refuse_missing_weights(model, report, name)
    return Classifier(tokenizer, model.to(device).eval(), not report["missing_keys"])


def refuse_missing_weights(model: Any, report: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint that lacks weights of the encoder; head and pooler may be missing.

    Weights under another library's prefix count as missing.

    Args:
        model: an encoder, or a classifier with one.
        report: transformers' loading info (`output_loading_info`).
        where: the checkpoint's name.

    Raises:
        EngineError: naming the first missing weight.
    """
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    random = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    missing = sorted(key for key in random if key.startswith(prefix) and not key.startswith(f"{prefix}pooler."))
    if missing:
        raise EngineError(
            f"{len(missing)} weights of the encoder are missing or have another shape; the first is {missing[0]}",
            where=where,
            expected=f"the weights of {type(model).__name__}, under transformers' names",
            next_step="use another checkpoint, or save this one again with transformers",
            code="model-unloadable",
        )


def find_max_length(tokenizer: Any, config: Any) -> int:
    """Return the model's input length in tokens: the tokenizer's limit, at most the number of positions."""
    core = getattr(config, "trunk", config)
    positions = getattr(core, "max_position_embeddings", None) or 512
    if core.model_type in _SHIFTED_POSITIONS:
        positions -= (core.pad_token_id or 0) + 1
    return int(min(tokenizer.model_max_length, positions))


def encode_texts(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return the token ids of each text with the tokenizer's special tokens, truncated to `max_length`.

    Special tokens spelled out in a text ("</s>", "[SEP]") become the unknown token, as a review is data.
    """
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        split_special_tokens=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
    )
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return [
        [
            tokenizer.unk_token_id if not is_frame and token in control else token
            for token, is_frame in zip(*row, strict=True)
        ]
        for row in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    ]


def pad_batch(tokenizer: Any, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Return token ids and mask (B, T) as tensors, padded on the right to the longest row."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id or 0)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids, mask
