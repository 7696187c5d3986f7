"""Tells a request of the page itself from one that another web site has the user's browser send.

A browser names the sender: `Origin` on whatever can change something, `Sec-Fetch-Site` on everything where the page is
reached over TLS or on this machine, `Referer` where nobody has switched it off. The page's own origin is the host that
the request itself names, so that it needs no setting behind a tunnel; a site whose name is made to resolve to the page
(DNS rebinding) is its own origin by that rule, and is stopped by the check of the host or by the password.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

Headers = Iterable[tuple[bytes, bytes]]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE_METHODS = ("GET", "HEAD")


def read_header(headers: Headers, name: bytes) -> list[str]:
    """Return every value of a header.

    Example:
        >>> read_header([(b"Host", b"localhost")], b"host")
        ['localhost']
    """
    return [value.decode("latin-1").strip() for key, value in headers if key.lower() == name]


def is_foreign(scope: Mapping[str, Any], *, is_remote: bool) -> bool:
    """Return whether another site than the page's own sends a request; to open the page by a link is nobody's harm.

    Args:
        scope: of ASGI, of type `http`.
        is_remote: whether a proxy may stand before the page, whose `X-Forwarded-Host` then names the page as well. No
            web site can have a browser send that header without asking first.
    """
    headers = scope["headers"]
    origins, sites = read_header(headers, b"origin"), read_header(headers, b"sec-fetch-site")
    if len(origins) > 1 or len(sites) > 1:
        return True
    hosts = _find_own_hosts(headers, is_remote)
    if origins:
        if not _is_own(origins[0], hosts, scope.get("scheme", "http")):
            return True
    elif not sites and scope["method"] not in _SAFE_METHODS:
        referers = read_header(headers, b"referer")
        if any(not _is_own(referer, hosts, scope.get("scheme", "http")) for referer in referers):
            return True
    return bool(sites) and sites[0] not in ("same-origin", "none") and not _is_visit(scope)


def _find_own_hosts(headers: Headers, is_remote: bool) -> list[str]:
    """Return the names of the page, as far as the request tells one of each kind; of a row of proxies the first's."""
    kinds = [read_header(headers, name) for name in (b"host", *([b"x-forwarded-host"] if is_remote else []))]
    return [found[0].partition(",")[0].strip() for found in kinds if len(found) == 1]


def _is_own(address: str, hosts: list[str], scheme: str) -> bool:
    """Return whether an Origin or a Referer is that of the page.

    Behind a tunnel the page itself may speak plain HTTP while the browser speaks TLS, so only where TLS is known of
    it is asked for.
    """
    try:
        given = urlsplit(address)
        if given.scheme not in _DEFAULT_PORTS or (scheme == "https" and given.scheme != "https"):
            return False
        place = _find_place(given, given.scheme)
        return place[0] is not None and any(
            place == _find_place(urlsplit(f"//{host}"), given.scheme) for host in hosts
        )
    except ValueError:
        return False


def _find_place(parts: SplitResult, scheme: str) -> tuple[str | None, int]:
    return parts.hostname, parts.port if parts.port is not None else _DEFAULT_PORTS[scheme]


def _is_visit(scope: Mapping[str, Any]) -> bool:
    """Return whether somebody follows a link to the page, in a window of its own."""
    kind = [read_header(scope["headers"], name) for name in (b"sec-fetch-mode", b"sec-fetch-dest")]
    return scope["method"] in _SAFE_METHODS and scope["path"] == "/" and kind == [["navigate"], ["document"]]
