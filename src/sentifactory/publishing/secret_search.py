"""Finds secrets in the texts that would go up: by the forms that issuers give them, and by the names of settings.

The forms of most issuers are those of detect-secrets; `_FORMS` holds what it lacks. Its guesses by entropy are left
out: a model's folder is full of hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sentifactory.masking import is_secret_key
from sentifactory.publishing.files import is_text

if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector

_DETECTORS = (
    "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "DiscordBotTokenDetector", "GitHubTokenDetector",
    "GitLabTokenDetector", "JwtTokenDetector", "MailchimpDetector", "NpmDetector", "OpenAIDetector",
    "PrivateKeyDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector", "SquareOAuthDetector",
    "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector",
)  # fmt: skip
_FORMS = (
    ("a Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}\b"),
    ("a ModelScope token", r"\bms-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
    ("a GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    ("an API key", r"\bsk-[A-Za-z0-9_-]{32,}"),
    ("a W&B key", r"\bwandb_v\d_[A-Za-z0-9_-]{40,}"),
    ("a Google key", r"\bAIza[A-Za-z0-9_-]{35}|\bGOCSPX-[A-Za-z0-9_-]{20,}|\bya29\.[A-Za-z0-9_-]{20,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a PyPI token", r"\bpypi-[A-Za-z0-9_-]{60,}"),
    ("a Slack token", r"\bxox[a-z]-[A-Za-z0-9-]{20,}|\bxapp-\d-[A-Za-z0-9-]{20,}"),
    ("a Docker token", r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    ("a Databricks token", r"\bdapi[0-9a-f]{32}\b"),
    ("a DigitalOcean token", r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    ("an Alibaba Cloud key", r"\bLTAI[A-Za-z0-9]{16,26}\b"),
    ("a Tencent Cloud key", r"\bAKID[A-Za-z0-9]{32}\b"),
    (
        "a webhook",
        r"https://(?:open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/[\w-]{20,}"
        r"|oapi\.dingtalk\.com/robot/send\?access_token=\w{20,}"
        r"|qyapi\.weixin\.qq\.com/cgi-bin/webhook/send\?key=[\w-]{20,}"
        r"|discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,})",
    ),
    ("a private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"),
    ("a request's credentials", r"(?i)\bauthorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token)\s+[\w.~+/=-]{8,}"),
)
_COMPILED_FORMS = tuple((what, re.compile(pattern)) for what, pattern in _FORMS)
# `name: value` and `name=value` of JSON, YAML, shells and settings files; ids of a vocabulary are numbers.
_SETTING = re.compile(r"""([A-Za-z][\w.-]{2,60})['"]?\s*[:=]\s*['"]?([^\s'",;{}<>$()\[\]]{8,})""")
_SHORTEST_TOKEN = 8


def find_secrets(name: str, text: str, tokens: tuple[str, ...] = ()) -> list[str]:
    """Return what in a text looks like a secret, as clauses that do not repeat it.

    Args:
        name: of the file.
        text: what it holds.
        tokens: the tokens that are in use here; they must not stand in it either.

    Example:
        >>> find_secrets("config.json", "-----BEGIN PRIVATE KEY-----")
        ['config.json holds a private key']
    """
    found = [f"{name} holds {what}" for what, pattern in _COMPILED_FORMS if pattern.search(text)]
    if not found:
        found = [f"{name} holds: {one.secret_type}" for one in _load_detectors() if any(one.analyze_string(text))]
    if not found and any(token in text for token in tokens if len(token) >= _SHORTEST_TOKEN):
        found = [f"{name} holds your own token or key"]
    if not found:
        named = (match.groups() for match in _SETTING.finditer(text))
        found = [
            f"{name} holds a value for {key}"
            for key, value in named
            if is_secret_key(key.rpartition(".")[2]) and not value.isdigit()
        ][:1]
    return found


def search_secrets(paths: Iterable[Path], tokens: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Yield each text among some files that holds what looks like a secret, and which, as `find_secrets` says it."""
    for path in filter(is_text, paths):
        text = path.read_text(encoding="utf-8", errors="replace")
        yield from ((path, why) for why in find_secrets(path.name, text, tokens))


@cache
def _load_detectors() -> tuple[RegexBasedDetector, ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    return tuple(
        detector() for detector in get_mapping_from_secret_type_to_class().values() if detector.__name__ in _DETECTORS
    )
