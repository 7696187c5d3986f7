"""Finds secrets in the files to upload: by the token formats of issuers, and by the names of settings.

Most formats come from detect-secrets; `redaction.SECRET_FORMS` adds those that it lacks. Its entropy detectors are not
used, because a model folder is full of hashes.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sentifactory.bilingual import Sentence
from sentifactory.publishing.model_files import has_names
from sentifactory.redaction import SECRET_FORMS, is_secret_key

if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector

_DETECTORS = (
    "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "DiscordBotTokenDetector", "GitHubTokenDetector",
    "GitLabTokenDetector", "JwtTokenDetector", "MailchimpDetector", "NpmDetector", "OpenAIDetector",
    "PrivateKeyDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector", "SquareOAuthDetector",
    "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector",
)  # fmt: skip
# `name: value` and `name=value` in JSON, YAML, shell and settings files; a vocabulary's ids are numbers.
_SETTING = re.compile(r"""([A-Za-z][\w.-]{2,60})['"]?\s*[:=]\s*['"]?([^\s'",;{}<>$()\[\]]{8,})""")
# The same in JSON, where the value may contain any character, or be in a list.
_QUOTED = re.compile(r'"([A-Za-z][\w.-]{2,60})"\s*:\s*\[?\s*"((?:[^"\\]|\\.){8,400})"')
_PLACEHOLDER = re.compile(r"<.*>|\[.*\]|\{.*\}|\$\{?\w+\}?")
_SHORTEST_TOKEN = 8
_ESCAPED = re.compile(r"\\u00([2-7][0-9a-fA-F])")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]|(?i:\\\\u(?:00ad|200[b-f]|206[0-4]|feff))")
_PRINTABLE = re.compile(rb"[\x20-\x7e]{16,}")
_LONGEST_HEADER = 100_000_000  # of safetensors, by its specification
_BLOCK_BYTES, _OVERLAP_BYTES = 1 << 24, 1 << 13


def find_secrets(name: str, text: str, tokens: tuple[str, ...] = (), *, has_names: bool = True) -> list[str]:
    """Return which secrets a text seems to contain, as clauses that do not repeat them.

    Args:
        name: of the file.
        text: its content.
        tokens: the user's own tokens.
        has_names: whether the text may hold named settings; text extracted from a binary file does not.

    Example:
        >>> find_secrets("config.json", "-----BEGIN PRIVATE KEY-----")
        ['config.json holds a private key']
    """
    found = list(dict.fromkeys(f"{name} holds {form.what}" for form in SECRET_FORMS if form.is_in(text)))
    if not found:
        # NpmDetector's pattern takes seconds on a large vocabulary, where the text that it requires is missing.
        detectors = [one for one in _load_detectors() if ":_authToken=" in text or type(one).__name__ != "NpmDetector"]
        found = [f"{name} holds: {one.secret_type}" for one in detectors if any(one.analyze_string(text))]
    if not found and any(token in text for token in tokens if len(token) >= _SHORTEST_TOKEN):
        found = [f"{name} holds your own token or key"]
    if not found and has_names:
        named = (match.groups() for pattern in (_SETTING, _QUOTED) for match in pattern.finditer(text))
        found = [
            f"{name} holds a value for {key}"
            for key, value in named
            if is_secret_key(key.rpartition(".")[2]) and not value.isdigit() and not _PLACEHOLDER.fullmatch(value)
        ][:1]
    return found


def search_secrets(paths: Iterable[Path], tokens: tuple[str, ...]) -> Iterator[tuple[Path, Sentence]]:
    """Yield each file that seems to contain a secret, with the clauses of `find_secrets`."""
    for path in paths:
        for text in _read_parts(path):
            if found := find_secrets(path.name, text, tokens, has_names=has_names(path)):
                zh = f"{path.name} 中疑似含有密钥、令牌或密码"
                yield from ((path, Sentence.write(why, zh)) for why in found)
                break


def _read_parts(path: Path) -> Iterator[str]:
    """Yield the searchable text of a file: all of a text, the header of safetensors, printable runs of a binary."""
    if has_names(path):
        yield _read_text(path)
    elif path.suffix != ".png" and not path.name.endswith(".onnx.data"):  # pixels and numbers alone
        with path.open("rb") as file:
            rest = b""
            while block := file.read(_BLOCK_BYTES):
                yield "\n".join(piece.decode("ascii") for piece in _PRINTABLE.findall(rest + block))
                rest = block[-_OVERLAP_BYTES:]


def _read_text(path: Path) -> str:
    """Return the decoded text of a file in any Unicode encoding, without escapes and invisible characters."""
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            content = file.read(min(int.from_bytes(file.read(8), "little"), _LONGEST_HEADER))
        else:
            content = file.read()
    kind = "utf-8"
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        kind = "utf-16"
    elif 4 * content[:4096].count(0) > len(content[:4096]):
        kind = "utf-16-le" if content[1:4096:2].count(0) > content[:4096:2].count(0) else "utf-16-be"
    text = content.decode(kind, errors="replace")
    return _INVISIBLE.sub("", _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text))


@cache
def _load_detectors() -> tuple[RegexBasedDetector, ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    return tuple(
        detector() for detector in get_mapping_from_secret_type_to_class().values() if detector.__name__ in _DETECTORS
    )
