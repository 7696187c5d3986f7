"""What a model hub says no with, as one sentence that tells the cause and what to do; no token is ever in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.network_settings import find_network_fault

HUGGING_FACE, MODELSCOPE = "huggingface", "modelscope"
HUBS = (HUGGING_FACE, MODELSCOPE)
HUB_NAMES = {HUGGING_FACE: "The Hugging Face hub", MODELSCOPE: "ModelScope"}
LOGIN = {
    HUGGING_FACE: "run `hf auth login`, or set HF_TOKEN to a token that may write",
    MODELSCOPE: "run `modelscope login`, or set MODELSCOPE_API_TOKEN",
}
MIRROR = {
    HUGGING_FACE: "check the connection, or set HF_ENDPOINT to a mirror (one without xet needs HF_HUB_DISABLE_XET=1)",
    MODELSCOPE: "check the connection",
}
_SHOWN_CHARS = 200
# Words of exceptions that mean: no answer came, or it broke off.
_BROKEN = ("connect", "network", "timeout", "protocol", "readerror", "writeerror", "closeerror", "offline", "ssl")


@contextmanager
def explain_hub_errors(hub: str, repo_id: str) -> Iterator[None]:
    """Turn whatever a hub's client raises into one sentence.

    Raises:
        ConfigError: in place of it.
    """
    try:
        yield
    except (SentiFactoryError, TypeError, AttributeError, LookupError, AssertionError):
        raise  # a sentence already, or a defect that must keep its traceback
    except Exception as error:  # each client has its own dozen of exceptions, and lets those below through
        raise explain_hub_error(error, hub, repo_id) from error


def explain_hub_error(error: Exception, hub: str, repo_id: str) -> ConfigError:
    """Return the sentence for what a hub's client raised."""
    chain = list(_walk_causes(error))
    status = next((found for one in chain if (found := _find_status(one)) is not None), None)
    if status is not None:
        return _explain_status(status, error, hub, repo_id)
    if fault := find_network_fault():
        return fault
    name = HUB_NAMES[hub]
    if any("offlinemode" in type(one).__name__.lower() for one in chain):
        return ConfigError("HF_HUB_OFFLINE is set: no hub is asked", where=repo_id, next_step="unset HF_HUB_OFFLINE")
    if any(sign in type(one).__name__.lower() for one in chain for sign in ("token", "authentication")):
        return ConfigError(f"{name} needs a token, and there is none", where=repo_id, next_step=LOGIN[hub])
    words = " ".join(f"{base.__name__}" for one in chain for base in type(one).__mro__).lower()
    if any(sign in words for sign in _BROKEN):
        return ConfigError(
            f"The connection to {name[0].lower() + name[1:] if name.startswith('The') else name} failed or broke off "
            f"({_shorten(error)})",
            where=repo_id,
            next_step=f"{MIRROR[hub]}; the same command then continues, and sends nothing twice that has arrived",
        )
    return ConfigError(
        f"{name} cannot be used ({_shorten(error)})", where=repo_id, next_step="read the words in brackets"
    )


def _explain_status(status: int, error: Exception, hub: str, repo_id: str) -> ConfigError:
    name = HUB_NAMES[hub]
    if status == 401:
        return ConfigError(f"{name} does not accept the token (401)", where=repo_id, next_step=LOGIN[hub])
    if status == 403:
        owner = repo_id.partition("/")[0]
        return ConfigError(
            f"The token may not do this with {repo_id} (403)",
            where=repo_id,
            expected=f"a token with write access to what belongs to {owner}",
            next_step=f"check the owner's name and the token's rights; {LOGIN[hub]}",
        )
    if status == 404:
        return ConfigError(
            f"{name} has no such repository, or does not show it to this token (404)",
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
            f"{name} takes no more requests from here for now (429)",
            where=repo_id,
            next_step="wait some minutes and run the same command, which continues",
        )
    if status >= 500:
        return ConfigError(
            f"{name} has a fault of its own ({status})",
            where=repo_id,
            next_step="run the same command later, which continues",
        )
    return ConfigError(
        f"{name} refused ({status}: {_shorten(error)})", where=repo_id, next_step="read the words in brackets"
    )


def _walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:  # a chain that comes back to itself would never end
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
