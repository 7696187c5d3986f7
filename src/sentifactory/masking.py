"""Takes secrets out of what is written down: a recipe may hold the key of a tracker or the token of a hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "<not written down>"
# A webhook's address is all that it takes to post to it.
_SECRET_KEY = re.compile(r"(?i)(?:^|[_-])(?:api_?key|access_?key|key_id|token|secret|password|passwd|webhook_url)$")


def is_secret_key(key: str) -> bool:
    """Return whether the value of a setting is a secret, by the setting's name.

    Example:
        >>> is_secret_key("swanlab_api_key"), is_secret_key("hf_hub_token"), is_secret_key("max_new_tokens")
        (True, True, False)
    """
    return _SECRET_KEY.search(key) is not None


def mask_settings(value: Any) -> Any:
    """Return settings without their secrets, however deep they lie; what is empty or a switch stays.

    Example:
        >>> mask_settings({"seed": 1, "hub_token": "hf_abc", "more": [{"api_key": None}]})
        {'seed': 1, 'hub_token': '<not written down>', 'more': [{'api_key': None}]}
    """
    if isinstance(value, Mapping):
        return {key: _mask(inner) if is_secret_key(str(key)) else mask_settings(inner) for key, inner in value.items()}
    return [mask_settings(inner) for inner in value] if isinstance(value, list | tuple) else value


def mask_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without the secrets in `key=value`.

    Example:
        >>> mask_words(["train", "a.yaml", "seed=1", "swanlab_api_key=abc"])
        ['train', 'a.yaml', 'seed=1', 'swanlab_api_key=<not written down>']
    """
    masked = []
    for word in words:
        key, sign, value = word.partition("=")
        masked.append(f"{key}={MASK}" if sign and value and is_secret_key(key.rpartition(".")[2]) else word)
    return masked


def _mask(value: Any) -> Any:
    return value if value is None or value == "" or isinstance(value, bool) else MASK
