"""What a service allows, and how it is reached."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field, fields
from itertools import pairwise

from sentifactory.errors import ConfigError

# Not the variable of the clients' key (SENTIFACTORY_API_KEY): that one may be meant for the vLLM behind the service.
KEY_VARIABLE = "SENTIFACTORY_SERVE_KEY"
SOUND_KEY_CHARS, SOUND_KEY_SIGNS = 20, 10
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken at once; what is beyond it is refused, each with a status of its own.

    Attributes:
        text_chars: longest text, in characters (413).
        list_items: most texts in one list (413).
        body_bytes: largest body (413).
        body_s: seconds in which a body must have come (408).
        queue_items: most texts that are answered or wait at the same time (429).
        request_s: seconds in which a request must be answered (504).
        batch_items: most texts that a local engine is given at once.
        batch_wait_s: seconds that a text waits for others to fill its batch.
        head_bytes: largest head of a request, and largest trailer (431).
        head_fields: most lines in either (431).
        head_s: seconds in which a head must have come (408).
        idle_s: seconds for which a connection stays open without another request.
        send_s: seconds in which an answer must be read that does not fit into the system's buffers.
        held_bytes: memory for all bodies that are coming in, and for all answers that are not read.
        connections: most connections at the same time; fewer where descriptors are short.
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
        """Refuse limits with which nothing could be answered.

        Raises:
            ConfigError: naming all of them.
        """
        problems = [
            f"{limit.name} is {getattr(self, limit.name)}, and must be above 0"
            for limit in fields(self)
            if limit.name != "batch_wait_s" and not getattr(self, limit.name) > 0
        ]
        if not 0 <= self.batch_wait_s < self.request_s:
            problems.append(f"batch_wait_s is {self.batch_wait_s}, and must lie between 0 and request_s")
        if self.list_items > self.queue_items:
            problems.append(f"a list of {self.list_items} texts would never fit into a queue of {self.queue_items}")
        if problems:
            raise ConfigError("; ".join(problems), where="the limits", next_step="correct the options")


@dataclass(frozen=True, slots=True)
class Access:
    """From where and by whom the service may be used.

    Attributes:
        host: address to listen on; only this machine reaches a loopback one.
        port: TCP port; 0 takes a free one.
        key: bearer token that every request must carry (but those for /health), or None.
        cors_origins: web pages of these origins may call it from a browser; () for none.
        allowed_hosts: names by which it may be called without a key, beside those that `HostRule` knows.
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
        """Whether other machines reach it and no key is asked for."""
        return self.is_public and self.key is None


def read_key() -> str | None:
    """Return the key that the environment names, or None where the variable is not set.

    Raises:
        ConfigError: when it is set to something that no header can carry.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{KEY_VARIABLE} is set to something that is no key",
            expected="letters, digits and signs of ASCII, without blanks",
            next_step="set it to the output of `openssl rand -hex 32`, or unset it",
        )
    return key


def is_weak_key(key: str) -> bool:
    """Return whether a key could be guessed: short, of few signs, repeated, or counted up.

    Example:
        >>> is_weak_key("secret"), is_weak_key("abc" * 20), is_weak_key("1f0d3a5c7b9e2846aa0c5e7f1b3d9e42")
        (True, True, False)
    """
    is_repeated = key in (key + key)[1:-1]
    n_steps = sum(abs(ord(sign) - ord(following)) <= 1 for sign, following in pairwise(key))
    return len(key) < SOUND_KEY_CHARS or len(set(key)) < SOUND_KEY_SIGNS or is_repeated or 2 * n_steps > len(key)
