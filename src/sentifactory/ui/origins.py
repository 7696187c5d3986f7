"""Detects cross-site requests: those that another web site makes the user's browser send.

Browsers name the sender: `Origin` on requests that can change something, `Sec-Fetch-Site` on all requests over TLS or
to this machine, `Referer` unless it is switched off. The page's own origin is the host that the request names, so that
no setting is needed behind a tunnel. DNS rebinding passes this rule; the check of the host or the password stops it.
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
    """Return whether another site sends a request; following a link to the page is allowed.

    Args:
        scope: of ASGI, of type `http`.
        is_remote: whether the page may be behind a proxy, whose `X-Forwarded-Host` then names the page as well. A web
            site cannot make a browser send that header without a preflight request.
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
    """Return the hosts that the request names, one of each header; of a chain of proxies that of the first."""
    kinds = [read_header(headers, name) for name in (b"host", *([b"x-forwarded-host"] if is_remote else []))]
    return [found[0].partition(",")[0].strip() for found in kinds if len(found) == 1]


def _is_own(url: str, hosts: list[str], scheme: str) -> bool:
    """Return whether an Origin or a Referer is that of the page.

    Behind a tunnel the page may receive plain HTTP while the browser uses TLS: https is required only where the
    request came over TLS.
    """
    try:
        given = urlsplit(url)
        if given.scheme not in _DEFAULT_PORTS or (scheme == "https" and given.scheme != "https"):
            return False
        address = _get_host_and_port(given, given.scheme)
        return address[0] is not None and any(
            address == _get_host_and_port(urlsplit(f"//{host}"), given.scheme) for host in hosts
        )
    except ValueError:
        return False


def _get_host_and_port(parts: SplitResult, scheme: str) -> tuple[str | None, int]:
    return parts.hostname, parts.port if parts.port is not None else _DEFAULT_PORTS[scheme]


def _is_visit(scope: Mapping[str, Any]) -> bool:
    """Return whether the user opens the page by a link, in a window of its own."""
    kind = [read_header(scope["headers"], name) for name in (b"sec-fetch-mode", b"sec-fetch-dest")]
    return scope["method"] in _SAFE_METHODS and scope["path"] == "/" and kind == [["navigate"], ["document"]]
