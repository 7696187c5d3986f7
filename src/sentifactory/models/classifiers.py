"""Encoders that classify: from a folder or a hub's name to tokenizer and model.

Training and every engine load through this module, so that a model is asked as it was taught. Weights of a trunk that
a checkpoint lacks are never made up: whoever names it would train or ask random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.environments import wants_modelscope
from sentifactory.errors import EngineError
from sentifactory.json_object import read_json_object
from sentifactory.models.classifier_labels import name_labels
from sentifactory.models.hostile import find_hostile
from sentifactory.models.load_errors import describe_load_error, list_load_errors
from sentifactory.models.pooled import MODEL_TYPE, register_pooled_classes
from sentifactory.models.published import MODELSCOPE_PREFIX
from sentifactory.models.transformers_bars import hide_transformers_bars
from sentifactory.task import Task

# What ModelScope's StructBERT calls itself; its layers are BERT's.
_SAME_AS_BERT = ("structbert",)
# How the classes of models end that write.
_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True, slots=True)
class Classifier:
    """A classifier that is ready to answer.

    Attributes:
        tokenizer: encodes texts; use `encode_texts`.
        model: called with `input_ids` and `attention_mask` (B, T), it returns an object with `logits` (B, n_labels).
        has_trained_head: False where the checkpoint holds no head, so that a random one was put there.
    """

    tokenizer: Any
    model: Any
    has_trained_head: bool


def is_classifier(name: str) -> bool:
    """Return whether a model is a text classifier or an encoder, and no language model, by its configuration alone.

    Raises:
        EngineError: when the configuration of a hub's model cannot be fetched.
    """
    file = Path(name).expanduser() / "config.json"
    if file.is_file():
        config = read_json_object(file) or {}
    elif file.parent.exists():
        return False
    else:
        with explain_load_errors(name):
            config = load_config(find_model_folder(name)).to_dict()
    kinds = config.get("architectures") or []
    return bool(kinds) and not any(kind.endswith(_LANGUAGE_MODELS) for kind in kinds)


def is_surely_of_kind(name: str, *, classifier: bool) -> bool:
    """Return whether a folder's configuration names a head of classes, or one that writes; else it has neither."""
    config = read_json_object(Path(name).expanduser() / "config.json") or {}
    if classifier and config.get("model_type") == MODEL_TYPE:
        return True
    endings = ("ForSequenceClassification",) if classifier else _LANGUAGE_MODELS
    return any(str(kind).endswith(endings) for kind in config.get("architectures") or [])


def find_model_folder(name: str) -> str:
    """Return the name as the loaders take it: `ms:owner/name` is fetched from ModelScope, all else stays as it is.

    With USE_MODELSCOPE_HUB=1 (as in LLaMA-Factory) every name that is no folder is fetched from there.

    Raises:
        EngineError: when the package modelscope is missing or the model cannot be fetched.
    """
    folder = Path(name).expanduser()
    is_asked = wants_modelscope() and not folder.exists()
    if not name.startswith(MODELSCOPE_PREFIX) and not is_asked:
        return str(folder) if folder.exists() else name
    hub_id = name.removeprefix(MODELSCOPE_PREFIX)
    try:
        from modelscope import snapshot_download

        return str(snapshot_download(hub_id))
    except ImportError as error:
        raise EngineError(
            "The package modelscope is not installed", where=name, next_step="pip install modelscope"
        ) from error
    except Exception as error:  # its errors are of many kinds
        raise EngineError(
            f"The model cannot be fetched from ModelScope ({error})", where=name, next_step="check name and network"
        ) from error


@contextmanager
def explain_load_errors(name: str) -> Iterator[None]:
    """Turn what transformers raises for a model that it cannot load into a sentence, and keep its reports silent.

    Raises:
        EngineError: when loading fails.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with hide_transformers_bars():
            yield
    except list_load_errors() as error:
        raise EngineError(
            f"The encoder cannot be loaded ({describe_load_error(error)})",
            where=name,
            expected="the folder of an encoder with its tokenizer, or a hub id",
            next_step="make the checkpoint again, or name one that is there "
            "(`sentifactory model fetch multilingual-e5-small` makes one without a hub)",
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def load_config(folder: str, **changes: Any) -> Any:
    """Return the configuration of a checkpoint; raises what transformers raises."""
    from transformers import AutoConfig, BertConfig

    if fault := find_hostile(folder):
        raise OSError(fault)
    register_pooled_classes()
    file = Path(folder) / "config.json"
    if (read_json_object(file) or {}).get("model_type") in _SAME_AS_BERT:
        return BertConfig.from_pretrained(folder, **changes)
    return AutoConfig.from_pretrained(folder, trust_remote_code=False, **changes)


def load_classifier(name: str, task: Task, *, device: str = "cpu") -> Classifier:
    """Load a classifier in float32; one without a head gets a random one, the same each time.

    Args:
        name: folder, hub id, or `ms:owner/name`.
        task: names the labels of a head that is missing.
        device: of torch.

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
    refuse_random_trunk(model, report, name)
    return Classifier(tokenizer, model.to(device).eval(), not report["missing_keys"])


def refuse_random_trunk(model: Any, report: Mapping[str, Any], where: str) -> None:
    """Refuse a model of whose trunk not every weight came from the checkpoint; heads and poolers may be new.

    A checkpoint whose weights carry the prefix of another library lacks all of them.

    Args:
        model: a trunk, or a classifier that has one.
        report: what transformers says of loading it (`output_loading_info`).
        where: the checkpoint's name.

    Raises:
        EngineError: naming the first weight.
    """
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    random = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    missing = sorted(key for key in random if key.startswith(prefix) and not key.startswith(f"{prefix}pooler."))
    if missing:
        raise EngineError(
            f"{len(missing)} weights of the encoder are missing, or of another size, the first is {missing[0]}",
            where=where,
            expected=f"the weights of {type(model).__name__}, under the names that transformers gives them",
            next_step="name another checkpoint, or save this one again with transformers",
        )
