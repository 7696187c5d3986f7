"""A published model by its name alone: its folder here, or what a hub has under that name.

Only files that hold no code are taken: weights in safetensors or ONNX, and texts.
"""

from __future__ import annotations

import os
from pathlib import Path

from sentifactory.environments import wants_modelscope
from sentifactory.errors import ConfigError
from sentifactory.model_task import TASK_NAME
from sentifactory.models.hub_errors import HUGGING_FACE, MODELSCOPE, explain_hub_errors
from sentifactory.progress import say

MODELSCOPE_PREFIX = "ms:"
HARMLESS_FILES = [
    "*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.onnx", "*.onnx.data", "NOTICE*",
    "LICENSE*",
]  # fmt: skip


def fetch_published(model: str) -> Path:
    """Return the folder of a model: the one of that name here, else what the hub has, kept in its cache.

    Args:
        model: a folder, owner/name on the hub that USE_MODELSCOPE_HUB says, or `ms:owner/name`.

    Raises:
        ConfigError: when there is no such model, or the hub cannot be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    hub = MODELSCOPE if wants_modelscope() or model.startswith(MODELSCOPE_PREFIX) else HUGGING_FACE
    model = model.removeprefix(MODELSCOPE_PREFIX)
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ConfigError(
            "There is no such model", where=model, expected="a folder, or owner/name on a hub", next_step="check it"
        )
    say(f"Fetching {model} from {hub}")
    with explain_hub_errors(hub, model):
        return Path(_download_from_modelscope(model) if hub == MODELSCOPE else _download(model))


def find_task_folder(model: str) -> str:
    """Return the folder in which the task of a model stands: of a hub's model, that file alone is fetched.

    What cannot be fetched is left to whoever loads the model; then the model itself is returned.
    """
    name = model.removeprefix(MODELSCOPE_PREFIX)
    place = Path(model).expanduser()
    if place.exists() or place.parent.is_dir() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return model
    try:
        if wants_modelscope() or model.startswith(MODELSCOPE_PREFIX):
            from modelscope.hub.snapshot_download import snapshot_download

            return str(snapshot_download(name, allow_patterns=[TASK_NAME]))
        from huggingface_hub import hf_hub_download

        return str(Path(hf_hub_download(name, TASK_NAME, endpoint=os.environ.get("HF_ENDPOINT") or None)).parent)
    except Exception:  # of many kinds: no such file, no such model, no network
        return model


def _download(model: str) -> str:
    from huggingface_hub import snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT") or None
    return str(snapshot_download(model, endpoint=endpoint, allow_patterns=HARMLESS_FILES))


def _download_from_modelscope(model: str) -> str:
    try:
        from modelscope.hub.snapshot_download import snapshot_download
    except ImportError as error:
        raise ConfigError(
            "The package modelscope is not installed", where=model, next_step="pip install modelscope"
        ) from error
    return str(snapshot_download(model, allow_patterns=HARMLESS_FILES))
