"""Encoders that classify: from a folder or a hub's name to tokenizer and model, and from a text to its tokens.

Training and every engine load and encode through this module, so that a model is asked as it was taught.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.labels import build_label_index, find_label
from sentifactory.environments import wants_modelscope
from sentifactory.errors import EngineError
from sentifactory.models.pooled import MODEL_TYPE, register_pooled_classes
from sentifactory.models.published import MODELSCOPE_PREFIX
from sentifactory.task import Task

# What ModelScope's StructBERT calls itself; its layers are BERT's.
_SAME_AS_BERT = ("structbert",)
# Their positions begin behind the number of the padding token.
_SHIFTED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


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
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            return False
    elif file.parent.exists():
        return False
    else:
        with explain_load_errors(name):
            config = load_config(find_model_folder(name)).to_dict()
    kinds = config.get("architectures") or []
    return bool(kinds) and not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds)


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

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError) as error:
        lines = str(error).strip().splitlines()
        raise EngineError(
            f"The encoder cannot be loaded ({lines[0] if lines else type(error).__name__})",
            where=name,
            expected="the folder of an encoder with its tokenizer, or a hub id",
            next_step="make the checkpoint again, or name one that is there "
            "(`sentifactory model fetch multilingual-e5-small` makes one without a hub)",
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def load_config(folder: str, **changes: Any) -> Any:
    """Return the configuration of a checkpoint; raises what transformers raises."""
    from transformers import AutoConfig, BertConfig

    register_pooled_classes()
    file = Path(folder) / "config.json"
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("model_type") in _SAME_AS_BERT:
        return BertConfig.from_pretrained(folder, **changes)
    return AutoConfig.from_pretrained(folder, **changes)


def load_classifier(
    name: str, task: Task, *, device: str = "cpu", dtype: str = "float32", seed: int = 0
) -> Classifier:
    """Load a classifier; one without a head gets a random one, drawn from the seed.

    Args:
        name: folder, hub id, or `ms:owner/name`.
        task: names the labels of a head that is missing.
        device: of torch.
        dtype: name of a torch dtype.
        seed: of a random head.

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
        tokenizer = AutoTokenizer.from_pretrained(folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, dtype=getattr(torch, dtype), output_loading_info=True
            )
    missing = sorted(key for key in report["missing_keys"] if is_trunk_weight(key, model.base_model_prefix))
    if missing:
        raise EngineError(
            f"{len(missing)} weights of the encoder are missing, the first is {missing[0]}",
            where=name,
            expected=f"the weights of {type(model).__name__}",
            next_step="name another checkpoint",
        )
    return Classifier(tokenizer, model.to(device).eval(), not report["missing_keys"])


def is_trunk_weight(key: str, prefix: str) -> bool:
    """Return whether a parameter belongs to the pretrained trunk and not to what is made anew on top of it.

    Example:
        >>> is_trunk_weight("bert.encoder.layer.0.output.dense.bias", "bert")
        True
        >>> is_trunk_weight("bert.pooler.dense.bias", "bert")
        False
    """
    return key.startswith(f"{prefix}.") and not key.startswith(f"{prefix}.pooler.")


def name_labels(task: Task) -> dict[str, Any]:
    """Return the entries of a configuration that name the labels of a head."""
    return {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: index for index, label in enumerate(task.labels)},
    }


def read_label_name(name: str, index: dict[str, int]) -> int | None:
    """Return the label that a model's name for it states, by the whole of it or its first word; None for none."""
    found = find_label(name, index)
    return find_label(name.split()[0], index) if found is None and name.split() else found


def match_labels(id2label: dict[int, str], task: Task, where: str) -> list[int]:
    """Return for each label of the task the column of the model's logits that stands for it.

    Names are compared as those in files of reviews are, synonyms included; of a longer name the first word decides.
    Names that say nothing (LABEL_0) are taken in their order.

    Raises:
        EngineError: when the model's labels are not those of the task.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
        >>> match_labels({0: "positive (stars 4 and 5)", 1: "negative (stars 1 to 3)"}, BINARY_SENTIMENT, "model")
        [1, 0]
    """
    names = [str(id2label[column]) for column in sorted(id2label)]
    if len(names) == len(task.labels) and all(name.upper() == f"LABEL_{at}" for at, name in enumerate(names)):
        return list(range(len(names)))
    index = build_label_index(task)
    columns: dict[int | None, int] = {}
    for column, name in enumerate(names):
        columns.setdefault(read_label_name(name, index), column)
    if len(names) != len(task.labels) or set(columns) != set(range(len(names))):
        raise EngineError(
            f"The model's labels are {', '.join(names)}",
            where=where,
            expected=f"those of the task {task.name}: {', '.join(task.labels)}",
            next_step="give the --task that the model was trained for",
        )
    return [columns[label] for label in range(len(names))]


def find_max_length(tokenizer: Any, config: Any) -> int:
    """Return how many tokens of a text the model sees: the tokenizer's limit, but not more than it has positions."""
    core = getattr(config, "trunk", config)
    positions = getattr(core, "max_position_embeddings", None) or 512
    if core.model_type in _SHIFTED_POSITIONS:
        positions -= (core.pad_token_id or 0) + 1
    return int(min(tokenizer.model_max_length, positions))


def encode_texts(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return the token ids of each text with the tokenizer's own frame, cut at `max_length` tokens.

    A review is data: a token of control that a text spells out ("</s>", "[SEP]") becomes an unknown token.
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
