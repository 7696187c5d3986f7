"""Takes secrets out of what is written down: a recipe may hold the key of a tracker or the token of a hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "<not written down>"
# The one table of names whose value is a secret, in lower case with "_" between the words.
# A webhook's address is all that it takes to post to it.
_SECRET_KEY = re.compile(
    r"(?:^|_)(?:(?:api|access|secret|private|serve|signing|encryption)_?key|key_id|token|secret|password|passwd"
    r"|passphrase|(?:proxy_)?authorization|credentials?|cookie|webhook(?:_url)?)$|_pwd$"
)
# Tokens of a vocabulary, which every tokenizer's settings name.
_VOCABULARY_KEY = re.compile(r"(?:^|_)(?:pad|eos|bos|unk|sep|cls|mask|image|video|audio|special|stop)_token$")
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# What is a secret by its own form, wherever it stands: credentials in an address, a header, a hub's token.
_SECRET_FORM = re.compile(
    r"(?P<before>://[^/\s:@]*:)[^/\s@]+(?=@)"
    r"|(?P<header>\bauthorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)[^\s'\"]+"
    r"|\b(?:hf_[A-Za-z0-9]{30,}|github_pat_\w{20,}|gh[pousr]_[A-Za-z0-9]{36,}|sk-[A-Za-z0-9_-]{20,})",
    re.IGNORECASE,
)


def is_secret_key(key: str) -> bool:
    """Return whether the value of a setting is a secret, by the setting's name.

    Example:
        >>> is_secret_key("swanlab_api_key"), is_secret_key("hubToken"), is_secret_key("max_new_tokens")
        (True, True, False)
    """
    words = _WORD_BREAK.sub("_", key).replace("-", "_").lower()
    return _SECRET_KEY.search(words) is not None and _VOCABULARY_KEY.search(words) is None


def mask_settings(value: Any) -> Any:
    """Return settings without their secrets, however deep they lie; what is empty or a switch stays.

    Example:
        >>> mask_settings({"seed": 1, "hub_token": "hf_abc", "more": [{"api_key": None}]})
        {'seed': 1, 'hub_token': '<not written down>', 'more': [{'api_key': None}]}
    """
    if isinstance(value, Mapping):
        return {key: _mask(inner) if is_secret_key(str(key)) else mask_settings(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mask_settings(inner) for inner in value]
    return mask_text(value) if isinstance(value, str) else value


def mask_text(text: str) -> str:
    """Return a text without what is a secret by its own form.

    Example:
        >>> mask_text("http://me:s3cr3t@proxy:3128")
        'http://me:<not written down>@proxy:3128'
    """
    return _SECRET_FORM.sub(lambda found: (found["before"] or found["header"] or "") + MASK, text)


def mask_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without the secrets in `key=value` and `--key value`.

    Example:
        >>> mask_words(["train", "a.yaml", "seed=1", "swanlab_api_key=abc", "--hub_token", "abc"])
        ['train', 'a.yaml', 'seed=1', 'swanlab_api_key=<not written down>', '--hub_token', '<not written down>']
    """
    masked: list[str] = []
    is_value = False
    for word in words:
        key, sign, value = word.partition("=")
        if is_value and not word.startswith("--"):
            masked.append(MASK)
        elif sign and value and is_secret_key(key.rpartition(".")[2].lstrip("-")):
            masked.append(f"{key}={MASK}")
        else:
            masked.append(mask_text(word))
        is_value = word.startswith("-") and not sign and is_secret_key(word.lstrip("-").rpartition(".")[2])
    return masked


def _mask(value: Any) -> Any:
    return value if value is None or value == "" or isinstance(value, bool) else MASK
