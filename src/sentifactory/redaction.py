"""Masks secrets, and shortens the paths of this machine, in everything that is logged, recorded or published.

Every `SentiFactoryError`, every line of the log and every run card passes through `mask_text`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# An absolute POSIX or Windows path, or one in a home folder, up to a space, a quote or a comma.
_PATH = re.compile(r"""(?<![\w:/.])(?:~|[A-Za-z]:)?[/\\](?:[^\s"',;:()\\/]+[/\\])*([^\s"',;:()\\/]*)""")

MASK = "<not written down>"
# Names of settings whose value is a secret, in lower case with "_" between the words. Webhook addresses count: whoever
# has one can post to it.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:(?:api|access|secret|private|serve|signing|encryption)_?key|key_id|token|secret|password|passwd"
    r"|passphrase|(?:proxy_)?authorization|credentials?|cookie|webhook(?:_url)?)$|_pwd$|^(?:pg|mysql)password$"
)
# Vocabulary tokens in a tokenizer's settings, which are not secrets.
_VOCABULARY_KEY = re.compile(r"(?:^|_)(?:pad|eos|bos|unk|sep|cls|mask|image|video|audio|special|stop)_token$")
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class SecretForm:
    """Secrets that are recognised by their format, whatever their name.

    Attributes:
        what: what it is, with an article.
        marks: the words with one of which each of them begins, between two words of a text; () where none is fixed.
        rest: pattern of what follows the mark, or of all where there are no marks.
    """

    what: str
    marks: tuple[str, ...]
    rest: str

    @property
    def pattern(self) -> str:
        """The whole pattern."""
        return rf"\b(?:{'|'.join(map(re.escape, self.marks))}){self.rest}" if self.marks else self.rest

    def is_in(self, text: str) -> bool:
        """Return whether a text holds such a secret.

        The pattern is tried only where a mark is: to search a whole vocabulary for it takes half a second each.
        """
        found = _compile(self.pattern)
        if not self.marks:
            return found.search(text) is not None
        return any(found.match(text, at) for mark in self.marks for at in _find_all(mark, text))


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _find_all(word: str, text: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


SECRET_FORMS = (
    SecretForm("a Hugging Face token", ("hf_", "api_org_"), r"[A-Za-z0-9]{30,}\b"),
    SecretForm("a ModelScope token", ("ms-",), r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
    SecretForm("a GitHub token", ("github_pat_",), r"[A-Za-z0-9_]{22,}"),
    SecretForm("a GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"[A-Za-z0-9]{36,}"),
    SecretForm("a GitLab token", ("glpat-",), r"[A-Za-z0-9_-]{20,}"),
    SecretForm("an API key", ("sk-", "rk-"), r"[A-Za-z0-9_-]{32,}"),
    SecretForm("an API key", ("sk_live_", "rk_live_"), r"[A-Za-z0-9]{16,}"),
    SecretForm("an AWS key", ("AKIA", "ASIA"), r"[0-9A-Z]{16}\b"),
    SecretForm("a JSON web token", ("eyJ",), r"[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]*"),
    SecretForm("a SendGrid key", ("SG.",), r"[A-Za-z0-9_-]{16,200}\.[A-Za-z0-9_-]{16,}"),
    SecretForm("a Telegram token", (), r"\b\d{8,10}:[A-Za-z0-9_-]{35}\b"),
    SecretForm("an Azure key", ("AccountKey=",), r"[A-Za-z0-9+/=]{40,}"),
    SecretForm("a W&B key", ("wandb_v",), r"\d_[A-Za-z0-9_-]{40,}"),
    SecretForm("a Google key", ("AIza",), r"[A-Za-z0-9_-]{35}"),
    SecretForm("a Google key", ("GOCSPX-", "ya29."), r"[A-Za-z0-9_-]{20,}"),
    SecretForm("an npm token", ("npm_",), r"[A-Za-z0-9]{36}\b"),
    SecretForm("a PyPI token", ("pypi-",), r"[A-Za-z0-9_-]{60,}"),
    SecretForm("a Slack token", ("xox",), r"[a-z]-[A-Za-z0-9-]{20,}"),
    SecretForm("a Slack token", ("xapp-",), r"\d-[A-Za-z0-9-]{20,}"),
    SecretForm("a Docker token", ("dckr_pat_", "dckr_oat_"), r"[A-Za-z0-9_-]{20,}"),
    SecretForm("a Databricks token", ("dapi",), r"[0-9a-f]{32}\b"),
    SecretForm("a DigitalOcean token", ("doo_v1_", "dop_v1_", "dor_v1_"), r"[0-9a-f]{64}\b"),
    SecretForm("an Alibaba Cloud key", ("LTAI",), r"[A-Za-z0-9]{16,26}\b"),
    SecretForm("a Tencent Cloud key", ("AKID",), r"[A-Za-z0-9]{32}\b"),
    SecretForm(
        "a webhook",
        (),
        r"https://(?:hooks\.slack\.com/services/[\w/-]{20,}"
        r"|open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/[\w-]{20,}"
        r"|oapi\.dingtalk\.com/robot/send\?access_token=\w{20,}"
        r"|qyapi\.weixin\.qq\.com/cgi-bin/webhook/send\?key=[\w-]{20,}"
        r"|discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,})",
    ),
    SecretForm(
        "a private key",
        (),
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:[\s\S]{0,16000}?-----END [^-\n]*-----)?",
    ),
    SecretForm(
        "a request's credentials",
        (),
        r"(?i)\bauthorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token)\s+[\w.~+/=-]{8,}",
    ),
)
_SECRET_FORM = re.compile("|".join(f"(?:{form.pattern})" for form in SECRET_FORMS[:-1]))
_HEADER = re.compile(
    r"""(\b(?:proxy-)?authorization['"]?\s*[:=,]\s*(?:b?['"])?+(?:(?:bearer|basic|token)\s+)?+|\bbearer\s+(?=\S*\d)(?=\S{8}))"""
    r"""(?!<)[^\s'"]+""",
    re.IGNORECASE,
)
# User and password in an address. An unquoted password may contain "/" and "@".
_CREDENTIALS = re.compile(
    r"""(?P<before>://)[^/\s:@'"<>]{0,200}:(?!\d{1,5}(?:[/\s]|$))(?P<password>[^\s'"<>]{1,300})(?=@)"""
    r"""|(?P<scheme>\bhttps?://)[^/\s:@'"<>]{1,300}(?=@)"""
)
_SIGNATURE = re.compile(r"([?&](?:X-Amz-[A-Za-z-]+|sig|signature|Signature|Policy|Key-Pair-Id)=)(?!<)[^&\s'\"]+")
# A value that begins with one of `$<{.` is a placeholder; words after a colon are prose. One pattern per notation,
# because the value of one may contain a name in another.
_NAME = r"(?<![\w-])(?P<name>[A-Za-z][\w-]{1,60})"
_VALUE = r"""(?P<value>(?![$<{.\s'"])[^\s'",;&]+)"""
_NAMED = tuple(
    re.compile(f"{_NAME}(?P<between>{between}){_VALUE}")
    for between in (
        r"""\s?=\s?(?:b?['"])?""",  # name=value
        r"""['"]\s*:\s*b?['"]""",  # "name": "value"
        r""":[ \t]*(?!//)(?=\S*\d)(?=\S{8})""",  # Name: value123
    )
)
_PROXY = re.compile(r"(?i)\w+_proxy")
_MIN_SECRET_CHARS = 8
_AMBIGUOUS_SUFFIXES = ("PASS", "_PAT")  # of environment variables only; elsewhere other things are called so


def is_secret_key(key: str) -> bool:
    """Return whether the value of a setting is a secret, by the setting's name.

    Example:
        >>> is_secret_key("swanlab_api_key"), is_secret_key("hubToken"), is_secret_key("max_new_tokens")
        (True, True, False)
    """
    words = _WORD_BREAK.sub("_", key).replace("-", "_").lower()
    return _SECRET_NAME.search(words) is not None and _VOCABULARY_KEY.search(words) is None


def mask_settings(value: Any) -> Any:
    """Return nested settings with secrets masked; empty values and booleans are kept.

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
    """Return a text with secrets masked: those of the environment, and those recognised by format or by name.

    Example:
        >>> mask_text("http://me:s3cr3t@proxy:3128")
        'http://<not written down>@proxy:3128'
    """
    for secret in list_environment_secrets():
        text = text.replace(secret, MASK)
    text = _SECRET_FORM.sub(MASK, text)
    text = _HEADER.sub(rf"\1{MASK}", text)
    text = _CREDENTIALS.sub(lambda found: (found["before"] or found["scheme"] or "") + MASK, text)
    text = _SIGNATURE.sub(rf"\1{MASK}", text)
    for pattern in _NAMED:
        text = pattern.sub(_mask_named, text)
    return text


def _mask_named(found: re.Match[str]) -> str:
    return found["name"] + found["between"] + MASK if is_secret_key(found["name"]) else found[0]


def list_environment_secrets() -> list[str]:
    """Return the keys, tokens and passwords in the environment, longest first, without those of a few characters."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if is_secret_key(name) or name.upper().endswith(_AMBIGUOUS_SUFFIXES):
            found.add(value)
        credentials = _CREDENTIALS.search(f"://{value}" if _PROXY.fullmatch(name) and "://" not in value else value)
        if credentials and (password := credentials["password"]):
            found |= {password, unquote(password)}
    return sorted((value for value in found if len(value) >= _MIN_SECRET_CHARS), key=len, reverse=True)


def mask_arguments(words: Sequence[str]) -> list[str]:
    """Return command-line arguments with the secrets in `key=value` and `--key value` masked.

    Example:
        >>> mask_arguments(["train", "a.yaml", "seed=1", "swanlab_api_key=abc", "--hub_token", "abc"])
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


def redact_paths(value: Any) -> Any:
    """Return JSON values with absolute paths shortened to their last component.

    Example:
        >>> redact_paths({"file": "/home/me/data/train.jsonl", "url": "https://host/path", "share": "1/2"})
        {'file': 'train.jsonl', 'url': 'https://host/path', 'share': '1/2'}
    """
    if isinstance(value, str):
        return _PATH.sub(lambda match: match[1], value)
    if isinstance(value, dict):
        return {key: redact_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_paths(item) for item in value]
    return value


def relate_paths(value: Any) -> Any:
    """Return JSON values for readers elsewhere: absolute paths relative to the current folder, or only their name.

    Unlike `redact_paths` it keeps where a file is within the project. Do not apply it to reviews or prompts, whose
    slashes are no paths.

    Example:
        >>> relate_paths([f"{Path.cwd()}/data/a.csv", "/home/me/b.csv", "data/c.csv"])
        ['data/a.csv', 'b.csv', 'data/c.csv']
    """
    if isinstance(value, str):
        here = f"{Path.cwd()}{os.sep}"
        # A path that begins here loses its beginning; what is left is no absolute path.
        return redact_paths(re.sub(rf"(?<![\w/.-]){re.escape(here)}", "", value))
    if isinstance(value, Mapping):
        return {key: relate_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [relate_paths(item) for item in value]
    return value
