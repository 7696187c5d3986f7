"""The host names under which a service without a key answers: protection against DNS rebinding.

A web site may make its own name resolve to this machine; a browser then sends requests to the service with that name
as `Host`, and lets the page read the answers. Such a name has to be registered. Safe are IP addresses, names without a
dot, and names below domains that nobody can register.
"""

from __future__ import annotations

import ipaddress
import socket

from sentifactory.serving.service_settings import Access

# Reserved by RFC 6761, 6762 and 8375, and by ICANN for names within an organisation.
_RESERVED_DOMAINS = (".localhost", ".local", ".internal", ".home.arpa")
_MAX_NAME_CHARS = 255


class AllowedHosts:
    """Decides whether a service answers under a host name.

    Args:
        access: where it listens, and which other names are allowed.
    """

    def __init__(self, access: Access) -> None:
        self._is_public = access.is_public
        self._names = {"localhost", *(name.lower().rstrip(".") for name in (access.host, *access.allowed_hosts))}
        if self._is_public:
            self._names.add(socket.gethostname().lower())

    def allows(self, hosts: list[bytes]) -> bool:
        """Return whether the Host headers of a request are allowed; every browser sends one."""
        if not hosts:
            return True
        name = read_host(hosts[0]) if len(hosts) == 1 else None
        if name is None:
            return False
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return self._is_public and ("." not in name or name.endswith(_RESERVED_DOMAINS))
        return self._is_public or address.is_loopback


def read_host(header: bytes) -> str | None:
    """Return the name or address in a Host header, without port and brackets; None where it holds neither.

    Example:
        >>> read_host(b"Reviews.example.com.:8000"), read_host(b"[::1]:80"), read_host(b"a b")
        ('reviews.example.com', '::1', None)
    """
    text = header.decode("latin-1").strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        port = port.removeprefix(":")
        is_valid = bool(bracket) and ":" in name
    else:
        name, _, port = text.partition(":")
        name = name.removesuffix(".")
        is_valid = name.isascii() and all(char.isalnum() or char in "-._" for char in name)
    if not is_valid or not name or len(name) > _MAX_NAME_CHARS or not (port == "" or port.isdecimal()):
        return None
    return name
