"""Checks the network settings in the environment: proxy variables and the hub's address.

Every library reads these variables itself and fails on invalid ones: httpx raises on `socks://`, on SOCKS without the
package socksio and on a bad port, even for a request to localhost. So localhost bypasses the proxy, here and in child
processes, and when a request has failed, the error names the invalid variable with its password masked.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from sentifactory.errors import ConfigError
from sentifactory.redaction import mask_text

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ENDPOINT_VARIABLE = "HF_ENDPOINT"
_KINDS = ("http", "https", "all")
# As the hubs define it: no part starts or ends with "-" or ".".
_HUB_ID = re.compile(r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?/[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_HUB_ID_CHARS = 96
_SOCKS = ("socks5", "socks5h")
_PROXY_VARIABLE = re.compile(r"(?i)(http|https|all)_proxy")


def bypass_proxy_for_localhost() -> None:
    """Add localhost to no_proxy, for this process and its children."""
    names = ("no_proxy", "NO_PROXY")
    given = [word.strip() for name in names for word in os.environ.get(name, "").split(",")]
    if any(getproxies_environment().get(kind) for kind in _KINDS) and "*" not in given:
        for name in names:  # some libraries read the one, some the other
            os.environ[name] = ",".join(dict.fromkeys(word for word in (*given, *LOOPBACK) if word))


@contextmanager
def hide_proxy_variables() -> Iterator[None]:
    """Remove the proxy variables within the block, for a library that only contacts localhost there."""
    hidden = {name: value for name, value in os.environ.items() if _PROXY_VARIABLE.fullmatch(name)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def is_loopback_host(host: str) -> bool:
    """Return whether a host is a loopback address or localhost.

    Example:
        >>> is_loopback_host("127.0.0.53"), is_loopback_host("[::1]"), is_loopback_host("a.b")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, owner/name.

    Example:
        >>> is_hub_id("Qwen/Qwen2.5-0.5B"), is_hub_id("a/b/c"), is_hub_id("..//x"), is_hub_id("a/my model")
        (True, False, False, False)
    """
    is_formed = len(name) <= _HUB_ID_CHARS and _HUB_ID.fullmatch(name) is not None
    return is_formed and not any(part in name for part in ("--", "..")) and not name.endswith(".git")


def refuse_unusable_proxies() -> None:
    """Check the proxies in the environment.

    Raises:
        ConfigError: naming the variable of the first unusable one.
    """
    if fault := find_bad_proxy():
        raise fault


def find_network_fault() -> ConfigError | None:
    """Return what is wrong with the hub's address or a proxy, to explain a failed request; None if nothing is."""
    return _find_bad_endpoint() or find_bad_proxy()


def mask_address(address: str) -> str:
    """Return an address with its secrets masked, whether or not it has a scheme.

    Example:
        >>> mask_address("http://me:secret@host:1080"), mask_address("me:secret@host:1080")
        ('http://<not written down>@host:1080', '<not written down>@host:1080')
    """
    return mask_text(address) if "://" in address else mask_text(f"://{address}").removeprefix("://")


def find_proxy_variable(url: str) -> str | None:
    """Return the environment variable of the proxy that is used for an address; None if none is."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies_environment()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    return kind and next(_list_variables(kind, proxies[kind]), None)


def _list_variables(kind: str, value: str) -> Iterator[str]:
    return (name for name in os.environ if name.lower() == f"{kind}_proxy" and os.environ[name] == value)


def find_bad_proxy() -> ConfigError | None:
    """Return the error for the first unusable proxy, naming its variable; None if all are usable."""
    proxies = getproxies_environment()
    for kind in _KINDS:
        value = proxies.get(kind, "")
        if value and (why := _find_defect(value)):
            names = list(_list_variables(kind, value))
            return ConfigError(
                f"The proxy {mask_address(value)!r} cannot be used: {why}",
                where=names[0],
                expected="http://HOST:PORT, or socks5://HOST:PORT with the package socksio",
                next_step=f"correct {' and '.join(names)}, or unset {'them' if len(names) > 1 else 'it'}",
                code="proxy",
            )
    return None


def _find_defect(value: str) -> str:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        if parts.port == 0 or not parts.hostname:
            return "it names no host and port"
    except ValueError:
        return "its host or port is not valid"
    if parts.scheme in ("http", "https"):
        return ""
    if not parts.scheme.startswith("socks"):
        return f"the proxy type {parts.scheme!r} is unknown"
    faults = [] if parts.scheme in _SOCKS else [f"{parts.scheme}:// must be written socks5://"]
    if find_spec("socksio") is None:
        faults.append("SOCKS needs the package socksio, which is not installed (pip install socksio)")
    return ", and ".join(faults)


def _find_bad_endpoint() -> ConfigError | None:
    value = os.environ.get(ENDPOINT_VARIABLE, "")
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_valid = False
    if not value or is_valid:
        return None
    host = re.sub(r"^[A-Za-z]*:/+", "", value.strip()).strip("/").rpartition("@")[2]
    return ConfigError(
        f"{mask_address(value)!r} is not a valid address",
        where=ENDPOINT_VARIABLE,
        expected="https://HOST",
        next_step=f"set {ENDPOINT_VARIABLE}=https://{host}, or unset it",
        code="hub-address",
    )
