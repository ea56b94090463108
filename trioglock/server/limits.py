"""The limits on opening handshakes and connections: in total, and for each address."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import trio

from .._timer import PeerDeadline
from ..transports.http1 import refuse
from .client_address import ClientAddress, IPAddress
from .descriptors import descriptor_limit

__all__ = ["RETRY_AFTER", "OpenConnections", "PendingHandshake", "PendingHandshakes"]

CLOSING_GRACE = 1.0
"""Seconds that clients have to finish a request when the server closes. Browsers open connections
before they need them, so a shutdown must not wait for requests that may never arrive."""

RETRY_AFTER = {"Retry-After": "5"}
"""The time after which a client that was refused because of a limit may try again (RFC 9110,
section 10.2.3)."""


class PendingHandshake:
    """An opening handshake that has not ended."""

    __slots__ = ("_later", "client", "deadline", "group", "rejected", "scope", "waiting")

    def __init__(self, client: ClientAddress, deadline: float, *, exempt: bool = False) -> None:
        self.client: ClientAddress = client
        self.group: IPAddress | None = None if exempt else client.group
        self.scope: trio.CancelScope = trio.CancelScope()
        self.deadline: PeerDeadline = PeerDeadline(self.scope, deadline)
        self._later: float | None = None  # the usual deadline, after hurry() has set an earlier one
        self.waiting: bool = True  # for the complete request
        self.rejected: bool = False

    @property
    def name(self) -> str:
        """The name of the client in the log."""
        return self.client.name or "a client"

    @property
    def key(self) -> object:
        """The group that the handshake counts toward; an exempt client is its own group."""
        return self.group or self

    def hurry(self) -> None:
        """Limit the time for the rest of the request to :data:`CLOSING_GRACE`."""
        soon = trio.current_time() + CLOSING_GRACE
        if self._later is None and soon < self.deadline.time:
            self._later = self.deadline.time
            self.deadline.move(soon)

    def extend(self, seconds: int) -> None:
        """Allow more time for a long response."""
        if seconds:
            self.deadline.move(self.deadline.time + seconds)

    def received(self) -> None:
        self.waiting = False
        if self._later is not None:
            self.deadline.move(self._later)
            self._later = None


class PendingHandshakes:
    """The opening handshakes that have not ended.

    Above a limit, the oldest handshake from the address with the most handshakes is dropped. One
    client therefore cannot keep others out, and the handshake that has had the most time is
    dropped.

    Args:
        limit: the maximum number of handshakes, None for no limit. Handshakes never use more than
            half of the process's file descriptors; the others remain for connections.
        address_limit: the maximum number for each address, None for no limit.
    """

    def __init__(self, limit: int | None, address_limit: int | None) -> None:
        descriptors = descriptor_limit()
        if descriptors is not None:
            half = max(1, descriptors // 2)
            limit = half if limit is None else min(limit, half)
        self._limit = limit
        self._address_limit = address_limit
        self._all: dict[PendingHandshake, None] = {}
        # The handshakes that have not been dropped, oldest first.
        self._groups: dict[object, dict[PendingHandshake, None]] = {}

    def __contains__(self, handshake: PendingHandshake) -> bool:
        return handshake in self._all

    def __iter__(self) -> Iterator[PendingHandshake]:
        return iter(self._all)

    def add(self, handshake: PendingHandshake) -> None:
        """Add a handshake, and drop one if there are too many."""
        if self._limit is not None and len(self._all) >= self._limit:
            self.drop_oldest()
        self._all[handshake] = None
        self._join(handshake)

    def remove(self, handshake: PendingHandshake) -> None:
        """Remove a handshake that has ended."""
        del self._all[handshake]
        self._leave(handshake)

    def drop_oldest(self) -> PendingHandshake | None:
        """Drop the oldest handshake from the address with the most handshakes, and return it."""
        if not self._groups:
            return None
        return self._drop_first(max(self._groups.values(), key=len))

    def move(
        self, handshake: PendingHandshake, client: ClientAddress, *, exempt: bool = False
    ) -> None:
        """Count a handshake toward the address that a proxy has reported."""
        self._leave(handshake)
        handshake.client = client
        handshake.group = None if exempt else client.group
        if not handshake.scope.cancel_called:
            self._join(handshake)

    def _join(self, handshake: PendingHandshake) -> None:
        group = self._groups.get(handshake.key, {})
        if self._address_limit is not None and len(group) >= self._address_limit:
            self._drop_first(group)
        group[handshake] = None
        self._groups[handshake.key] = group

    def _leave(self, handshake: PendingHandshake) -> None:
        group = self._groups.get(handshake.key, {})
        group.pop(handshake, None)
        if not group:
            self._groups.pop(handshake.key, None)

    def _drop_first(self, group: dict[PendingHandshake, None]) -> PendingHandshake:
        handshake = next(iter(group))
        handshake.scope.cancel()
        self._leave(handshake)
        return handshake


class OpenConnections:
    """Counts the open connections.

    Args:
        limit: the maximum number, None for no limit.
        address_limit: the maximum number for each address, None for no limit.
    """

    def __init__(self, limit: int | None, address_limit: int | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._address_limit = address_limit
        self._count = 0
        self._counts: Counter[IPAddress] = Counter()

    def add(self, client: ClientAddress) -> IPAddress | None:
        """Count a connection.

        Returns:
            The argument for :meth:`remove`.

        Raises:
            Refusal: there are too many connections.
        """
        if self._count >= self._limit:
            raise refuse(503, "too many connections", RETRY_AFTER)
        group = None if self._address_limit is None else client.group
        if group is not None:
            if self._counts[group] >= self._address_limit:  # type: ignore[operator]
                # RFC 6585, section 4.
                raise refuse(429, "too many connections from this address", RETRY_AFTER)
            self._counts[group] += 1
        self._count += 1
        return group

    def remove(self, group: IPAddress | None) -> None:
        """Stop counting a connection that has ended."""
        self._count -= 1
        if group is not None:
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]
