"""Settings of a service: limits, address, key."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field, fields
from itertools import pairwise

from sentifactory.errors import ConfigError
from sentifactory.system.network_settings import LOOPBACK

# Not SENTIFACTORY_API_KEY: that key may belong to the vLLM behind the service.
KEY_VARIABLE = "SENTIFACTORY_SERVE_KEY"
MIN_KEY_CHARS, MIN_DISTINCT_CHARS = 20, 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a service; the number is the status with which a request beyond it is refused.

    Attributes:
        text_chars: longest text, in characters (413).
        list_items: largest number of texts in a list (413).
        body_bytes: largest body (413).
        body_s: seconds in which a body must arrive (408).
        queue_items: largest number of texts that are being answered or waiting (429).
        request_s: seconds in which a request must be answered (504).
        batch_items: largest batch of a local engine.
        batch_wait_s: seconds that a text waits for others to fill its batch.
        head_bytes: largest head of a request, and largest trailer (431).
        head_fields: largest number of lines in either (431).
        head_s: seconds in which a head must arrive (408).
        idle_s: seconds for which an idle connection stays open.
        send_s: seconds in which the client must read an answer that exceeds the system's buffers.
        held_bytes: memory for all bodies that are being received, and for all answers that are not read.
        connections: largest number of open connections; fewer where file descriptors are short.
    """

    text_chars: int = 2000
    list_items: int = 256
    body_bytes: int = 4 << 20
    body_s: float = 10.0
    queue_items: int = 512
    request_s: float = 30.0
    batch_items: int = 32
    batch_wait_s: float = 0.005
    head_bytes: int = 64 << 10
    head_fields: int = 100
    head_s: float = 10.0
    idle_s: float = 30.0
    send_s: float = 30.0
    held_bytes: int = 256 << 20
    connections: int = 4096

    def check(self) -> None:
        """Raise a ConfigError that lists every invalid limit."""
        problems = [
            f"{limit.name} is {getattr(self, limit.name)}, and must be above 0"
            for limit in fields(self)
            if limit.name != "batch_wait_s" and not getattr(self, limit.name) > 0
        ]
        if not 0 <= self.batch_wait_s < self.request_s:
            problems.append(f"batch_wait_s is {self.batch_wait_s}, and must lie between 0 and request_s")
        if self.list_items > self.queue_items:
            problems.append(f"a list of {self.list_items} texts does not fit into a queue of {self.queue_items}")
        if problems:
            raise ConfigError("; ".join(problems), where="the limits", next_step="correct the options")


@dataclass(frozen=True, slots=True)
class Access:
    """Address of a service, and who may use it.

    Attributes:
        host: address to listen on; a loopback one is reached from this machine only.
        port: TCP port; 0 takes a free one.
        key: bearer token that every request must carry (but those for /health), or None.
        cors_origins: origins whose web pages may call the service from a browser.
        allowed_hosts: host names under which it answers without a key, besides those of `AllowedHosts`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = field(default=None, repr=False)
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()

    @property
    def is_public(self) -> bool:
        """Whether other machines reach it."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() not in LOOPBACK

    @property
    def is_open(self) -> bool:
        """Whether other machines reach it and no key is required."""
        return self.is_public and self.key is None


def read_key() -> str | None:
    """Return the key from the environment, or None where the variable is not set.

    Raises:
        ConfigError: when a header cannot carry it.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{KEY_VARIABLE} is not a valid key",
            expected="printable ASCII characters without spaces",
            next_step="set it to the output of `openssl rand -hex 32`, or unset it",
        )
    return key


def is_weak_key(key: str) -> bool:
    """Return whether a key could be guessed: short, of few characters, repeated, or a sequence.

    Example:
        >>> is_weak_key("secret"), is_weak_key("abc" * 20), is_weak_key("1f0d3a5c7b9e2846aa0c5e7f1b3d9e42")
        (True, True, False)
    """
    is_repeated = key in (key + key)[1:-1]
    n_steps = sum(abs(ord(char) - ord(following)) <= 1 for char, following in pairwise(key))
    return len(key) < MIN_KEY_CHARS or len(set(key)) < MIN_DISTINCT_CHARS or is_repeated or 2 * n_steps > len(key)
