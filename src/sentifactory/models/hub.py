"""Fetches models from a hub, and turns every error of a hub's client into one message, which never contains a token.

Only files without code are fetched: weights in safetensors or ONNX, and text files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.system.environments import wants_modelscope
from sentifactory.system.network_settings import find_network_fault, is_hub_id
from sentifactory.system.progress import say
from sentifactory.task.model_folder import TASK_NAME

MODELSCOPE_PREFIX = "ms:"
SAFE_FILES = [
    "*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.onnx", "*.onnx.data", "NOTICE*",
    "LICENSE*",
]  # fmt: skip


HUGGING_FACE, MODELSCOPE = "huggingface", "modelscope"
HUBS = (HUGGING_FACE, MODELSCOPE)
HUB_NAMES = {HUGGING_FACE: "The Hugging Face hub", MODELSCOPE: "ModelScope"}
LOGIN = {
    HUGGING_FACE: "run `hf auth login`, or set HF_TOKEN to a token with write access",
    MODELSCOPE: "run `modelscope login`, or set MODELSCOPE_API_TOKEN",
}
MIRROR = {
    HUGGING_FACE: "check the connection, or set HF_ENDPOINT to a mirror (one without xet needs HF_HUB_DISABLE_XET=1)",
    MODELSCOPE: "check the connection",
}
_SHOWN_CHARS = 200
# Parts of the names of exceptions that mean a failed or interrupted connection.
_BROKEN = ("connect", "network", "timeout", "protocol", "readerror", "writeerror", "closeerror", "offline", "ssl")


@contextmanager
def explain_hub_errors(hub: str, repo_id: str) -> Iterator[None]:
    """Turn any error of a hub's client into one message.

    Raises:
        ConfigError: in place of it.
    """
    try:
        yield
    except (SentiFactoryError, TypeError, AttributeError, LookupError, AssertionError):
        raise  # our own error, or a defect that must keep its traceback
    except Exception as error:  # each client has a dozen exceptions of its own, and passes on those of its libraries
        raise explain_hub_error(error, hub, repo_id) from error


def explain_hub_error(error: Exception, hub: str, repo_id: str) -> ConfigError:
    """Return the error message for an exception of a hub's client."""
    chain = list(_walk_causes(error))
    status = next((found for one in chain if (found := _find_status(one)) is not None), None)
    if status is not None:
        return _explain_status(status, error, hub, repo_id)
    if fault := find_network_fault():
        return fault
    name = HUB_NAMES[hub]
    if any("offlinemode" in type(one).__name__.lower() for one in chain):
        return ConfigError(
            "HF_HUB_OFFLINE is set, so that no hub is contacted", where=repo_id, next_step="unset HF_HUB_OFFLINE"
        )
    if any(sign in type(one).__name__.lower() for one in chain for sign in ("token", "authentication")):
        return ConfigError(f"{name} requires a token, but none is set", where=repo_id, next_step=LOGIN[hub])
    words = " ".join(f"{base.__name__}" for one in chain for base in type(one).__mro__).lower()
    if any(sign in words for sign in _BROKEN):
        return ConfigError(
            f"The connection to {name[0].lower() + name[1:] if name.startswith('The') else name} failed or was "
            f"interrupted ({_shorten(error)})",
            where=repo_id,
            next_step=f"{MIRROR[hub]}; then run the same command, which continues where it stopped",
        )
    return ConfigError(
        f"{name} cannot be used ({_shorten(error)})", where=repo_id, next_step="see the message in parentheses"
    )


def _explain_status(status: int, error: Exception, hub: str, repo_id: str) -> ConfigError:
    name = HUB_NAMES[hub]
    if status == 401:
        return ConfigError(f"{name} does not accept the token (401)", where=repo_id, next_step=LOGIN[hub])
    if status == 403:
        owner = repo_id.partition("/")[0]
        return ConfigError(
            f"The token has no permission for this on {repo_id} (403)",
            where=repo_id,
            expected=f"a token with write access to the repositories of {owner}",
            next_step=f"check the owner's name and the token's permissions; {LOGIN[hub]}",
        )
    if status == 404:
        return ConfigError(
            f"{name} has no such repository, or this token cannot see it (404)",
            where=repo_id,
            next_step="check owner and name; a private repository needs a token of its owner",
        )
    if status in (409, 412):
        return ConfigError(
            f"The repository was changed by somebody else at the same time ({status})",
            where=repo_id,
            next_step="run the same command again",
        )
    if status == 429:
        return ConfigError(
            f"{name} limits the rate of requests (429)",
            where=repo_id,
            next_step="wait some minutes and run the same command, which continues",
        )
    if status >= 500:
        return ConfigError(
            f"{name} has an internal error ({status})",
            where=repo_id,
            next_step="run the same command later, which continues",
        )
    return ConfigError(
        f"{name} refused the request ({status}: {_shorten(error)})",
        where=repo_id,
        next_step="see the message in parentheses",
    )


def _walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:  # a cyclic chain would never end
        yield error
        error = error.__cause__ or error.__context__
        seen += 1


def _find_status(error: BaseException) -> int | None:
    response: Any = getattr(error, "response", None)
    for holder in (response, error):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _shorten(error: Exception) -> str:
    words = str(getattr(error, "server_message", None) or error)
    text = " ".join(words.split()) or type(error).__name__
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def fetch_from_hub(model: str) -> Path:
    """Return a model's folder: a local one of that name, else the hub's, downloaded into its cache.

    Args:
        model: a folder, owner/name on the hub that USE_MODELSCOPE_HUB selects, or `ms:owner/name`.

    Raises:
        ConfigError: when there is no such model, or the hub cannot be reached.
    """
    folder = Path(model).expanduser()
    if os.path.isdir(folder):  # unlike Path.is_dir, also accepts names that no file can have
        return folder
    hub = MODELSCOPE if wants_modelscope() or model.startswith(MODELSCOPE_PREFIX) else HUGGING_FACE
    model = model.removeprefix(MODELSCOPE_PREFIX)
    check_hub_id(model)
    say(f"Fetching {model} from {hub}")
    with explain_hub_errors(hub, model):
        return Path(_download_from_modelscope(model) if hub == MODELSCOPE else _download(model))


def check_hub_id(model: str) -> None:
    """Check that a name has the form of a hub id.

    Raises:
        ConfigError: when it has not.
    """
    if not is_hub_id(model):
        raise ConfigError(
            "This model does not exist",
            where=model,
            expected='a folder, or owner/name on a hub, of letters, digits, "-", "_" and "."',
            next_step="check the name",
        )


def find_task_folder(model: str) -> str:
    """Return the folder that holds a model's task; for a hub model, only the task file is fetched.

    If it cannot be fetched, `model` itself is returned, and loading the model reports the error.
    """
    name = model.removeprefix(MODELSCOPE_PREFIX)
    place = Path(model).expanduser()
    if not is_hub_id(name) or place.exists() or place.parent.is_dir():
        return model
    try:
        if wants_modelscope() or model.startswith(MODELSCOPE_PREFIX):
            from modelscope.hub.snapshot_download import snapshot_download

            return str(snapshot_download(name, allow_patterns=[TASK_NAME]))
        from huggingface_hub import hf_hub_download

        return str(Path(hf_hub_download(name, TASK_NAME, endpoint=os.environ.get("HF_ENDPOINT") or None)).parent)
    except Exception:  # clients raise many types: no such file, no such model, no network
        return model


def _download(model: str) -> str:
    from huggingface_hub import snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT") or None
    return str(snapshot_download(model, endpoint=endpoint, allow_patterns=SAFE_FILES))


def _download_from_modelscope(model: str) -> str:
    try:
        from modelscope.hub.snapshot_download import snapshot_download
    except ImportError as error:
        raise ConfigError(
            "The package modelscope is not installed", where=model, next_step="pip install modelscope"
        ) from error
    return str(snapshot_download(model, allow_patterns=SAFE_FILES))
