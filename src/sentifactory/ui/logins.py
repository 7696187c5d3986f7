"""Slows down password guessing, per address and in total.

Nobody is locked out: an attempt is delayed for some seconds and then checked, so that the right password is accepted
while others guess. Through a tunnel that does not name its clients, all attempts come from this machine's own address;
there many may wait at once, otherwise one per address.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable

FREE_FAILURES = 5  # of one address
FREE_FAILURES_OF_ALL = 30  # in a minute
MAX_DELAY_S = 8.0
FORGET_S = 900.0
_MINUTE_S = 60.0
_MOST_ADDRESSES = 4096


class LoginThrottle:
    """Counts attempts; each counts as a failure until it succeeds, so that concurrent attempts gain nothing.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # number, time of the last; oldest first
        self._recent: deque[float] = deque(maxlen=1000)
        self._waiting: set[str] = set()

    def start(self, address: str) -> float | None:
        """Return the seconds to delay an attempt; None: refused, because one of its address is being delayed.

        Every attempt that is started has to be ended by `end`.
        """
        now, group = self._clock(), group_address(address)
        count, last = self._failures.get(group, (0, now))
        count = count if now - last < FORGET_S else 0
        while self._recent and now - self._recent[0] > _MINUTE_S:
            self._recent.popleft()
        of_all = 0.1 * (len(self._recent) - FREE_FAILURES_OF_ALL)
        of_one = 0.5 * 2 ** min(count - FREE_FAILURES, 16) if count >= FREE_FAILURES else 0.0
        if of_one and group in self._waiting and not _is_loopback(group):
            return None
        self._failures[group] = (count + 1, now)
        self._failures.move_to_end(group)
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)
        self._recent.append(now)
        self._waiting.add(group)
        return min(max(of_one, of_all, 0.0), MAX_DELAY_S)

    def end(self, address: str, *, is_right: bool) -> None:
        """Record the result of an attempt; the right password clears the failures of its address."""
        group = group_address(address)
        self._waiting.discard(group)
        if is_right:
            self._failures.pop(group, None)
            if self._recent:
                self._recent.pop()


def group_address(address: str) -> str:
    """Return the address, or of an IPv6 address its /64 network, which usually is one client.

    Example:
        >>> group_address("2001:db8::1"), group_address("192.0.2.7")
        ('2001:db8::/64', '192.0.2.7')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if found.version == 4 or found.is_loopback:
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False))


def _is_loopback(group: str) -> bool:
    return group == "::1" or group.startswith("127.")
