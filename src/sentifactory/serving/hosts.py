"""Under which names a service without a key answers, so that no web page reaches it by a name that points here.

A page of any web site may let its own name point at this machine (DNS rebinding); a browser then sends requests to the
service with that name as `Host`, and lets the page read the answers. Such a name is one that somebody has registered.
Addresses of numbers are none, neither are names without a dot, nor those below a domain that nobody can own.
"""

from __future__ import annotations

import ipaddress
import socket

from sentifactory.serving.settings import Access

# Reserved by RFC 6761, 6762 and 8375, and by ICANN for names within an organisation.
_NOBODYS = (".localhost", ".local", ".internal", ".home.arpa")
_LONGEST = 255


class HostRule:
    """Knows the names that a service is rightly called by.

    Args:
        access: where it listens, and which names are allowed besides.
    """

    def __init__(self, access: Access) -> None:
        self._is_public = access.is_public
        self._names = {"localhost", *(name.lower().rstrip(".") for name in (access.host, *access.allowed_hosts))}
        if self._is_public:
            self._names.add(socket.gethostname().lower())

    def knows(self, hosts: list[bytes]) -> bool:
        """Return whether the Host headers of a request name this service; no browser leaves the header out."""
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
            return self._is_public and ("." not in name or name.endswith(_NOBODYS))
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
        is_sound = bool(bracket) and ":" in name
    else:
        name, _, port = text.partition(":")
        name = name.removesuffix(".")
        is_sound = name.isascii() and all(sign.isalnum() or sign in "-._" for sign in name)
    if not is_sound or not name or len(name) > _LONGEST or not (port == "" or port.isdecimal()):
        return None
    return name
