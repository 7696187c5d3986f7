"""What the environment says about the way to other machines: proxies, and the address of the hub.

Every library reads these variables for itself and gives up on one that it cannot use: httpx raises at the word
`socks`, at SOCKS without the package socksio and at a bad port, be the address that is asked this very machine's. So
this machine is exempt for us and for all programs below us, and where something else has failed, the variable at
fault is named. Passwords in it are not shown.
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
from sentifactory.masking import MASK

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ENDPOINT_VARIABLE = "HF_ENDPOINT"
_KINDS = ("http", "https", "all")
_SOCKS = ("socks5", "socks5h")
_PROXY_VARIABLE = re.compile(r"(?i)(http|https|all)_proxy")
_CREDENTIALS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@")


def exempt_this_machine() -> None:
    """Add this machine to the addresses that are reached without a proxy, here and in programs below this one."""
    names = ("no_proxy", "NO_PROXY")
    given = [word.strip() for name in names for word in os.environ.get(name, "").split(",")]
    if any(getproxies_environment().get(kind) for kind in _KINDS) and "*" not in given:
        for name in names:  # some libraries read the one, some the other
            os.environ[name] = ",".join(dict.fromkeys(word for word in (*given, *LOOPBACK) if word))


@contextmanager
def leave_out_proxies() -> Iterator[None]:
    """Hide the variables of proxies within the block, for a library that asks this machine alone in it."""
    hidden = {name: value for name, value in os.environ.items() if _PROXY_VARIABLE.fullmatch(name)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine by its own name for itself.

    Example:
        >>> is_this_machine("127.0.0.53"), is_this_machine("[::1]"), is_this_machine("a.b")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def refuse_unusable_proxies() -> None:
    """Do nothing where every proxy that the environment names can be used.

    Raises:
        ConfigError: naming the variable of the first that cannot.
    """
    if fault := find_bad_proxy():
        raise fault


def find_network_fault() -> ConfigError | None:
    """Return what is wrong with the variables that lead to a hub, None if nothing: for when one was not reached."""
    return _find_bad_endpoint() or find_bad_proxy()


def mask_credentials(address: str) -> str:
    """Return an address without the user and password in it.

    Example:
        >>> mask_credentials("http://me:secret@host:1080"), mask_credentials("host:1080")
        ('http://<not written down>@host:1080', 'host:1080')
    """
    return _CREDENTIALS.sub(rf"\1{MASK}@", address)


def name_proxy_of(url: str) -> str | None:
    """Return the variable whose proxy an address is reached through; None where none is."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies_environment()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    return kind and next(_list_variables(kind, proxies[kind]), None)


def _list_variables(kind: str, value: str) -> Iterator[str]:
    return (name for name in os.environ if name.lower() == f"{kind}_proxy" and os.environ[name] == value)


def find_bad_proxy() -> ConfigError | None:
    """Return the sentence for the first proxy that cannot be used, naming its variable; None where all can."""
    proxies = getproxies_environment()
    for kind in _KINDS:
        value = proxies.get(kind, "")
        if value and (why := _find_defect(value)):
            names = list(_list_variables(kind, value))
            return ConfigError(
                f"The proxy {mask_credentials(value)!r} cannot be used: {why}",
                where=names[0],
                expected="http://HOST:PORT, or socks5://HOST:PORT with the package socksio",
                next_step=f"correct {' and '.join(names)}, or unset {'them' if len(names) > 1 else 'it'}",
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
        return f"there is no kind of proxy {parts.scheme!r}"
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
        f"{mask_credentials(value)!r} is no address",
        where=ENDPOINT_VARIABLE,
        expected="https://HOST",
        next_step=f"set {ENDPOINT_VARIABLE}=https://{host}, or unset it",
    )
