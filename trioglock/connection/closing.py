"""How a connection ends: what both sides said, and the error that tells it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ..disconnect import Disconnect
from ..errors import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from ..frames import Close, Data

__all__ = ["OK_CODES", "TRANSITIONS", "CloseState", "Status"]

OK_CODES = frozenset({1000, 1001})


class Status(Enum):
    """Where a connection stands; :data:`TRANSITIONS` is the table of what may follow."""

    CONNECTING = "connecting"
    """There is no link yet: the first attempt is under way."""
    OPEN = "open"
    """A link is up, and nobody has begun to close it."""
    CLOSING = "closing"
    """The closing handshake is under way, and no other link is expected."""
    RECONNECTING = "reconnecting"
    """The link has ended, or is ending, and another one is expected."""
    DECIDING = "deciding"
    """The link has ended, and ``handle_disconnect`` decides whether another one is opened."""
    CLOSED = "closed"
    """The connection has ended; final."""


TRANSITIONS: Mapping[Status, Mapping[Status, str]] = {
    Status.CONNECTING: {
        Status.OPEN: "upgraded",
        Status.RECONNECTING: "attempt failed, policy tries again",
        Status.DECIDING: "attempt failed",
        Status.CLOSED: "attempt failed, closed or cancelled",
    },
    Status.OPEN: {
        Status.CLOSING: "either side closes",
        Status.RECONNECTING: "lost, closed by the peer, or reconnect()",
        Status.DECIDING: "lost",
        Status.CLOSED: "lost, abort() or cancelled",
    },
    Status.CLOSING: {
        Status.CLOSED: "closing handshake over, or out of time",
        Status.RECONNECTING: "policy, asked again, wants another link",
        Status.DECIDING: "closed by the peer",
    },
    Status.RECONNECTING: {
        Status.OPEN: "upgraded",
        Status.DECIDING: "last attempt failed",
        Status.CLOSED: "no attempt left, closed or cancelled",
    },
    Status.DECIDING: {
        Status.RECONNECTING: "handle_disconnect returned Reconnect",
        Status.CLOSED: "no reconnect, closed or cancelled",
    },
    Status.CLOSED: {},
}
"""From each status to those that may follow, and what leads there."""


class CloseState:
    """What is known so far of how the connection ends."""

    def __init__(self) -> None:
        self.sent: Close | None = None
        self.received: Close | None = None
        self.cause: Disconnect | None = None
        self.unsent: tuple[Data, ...] = ()
        self.in_doubt: tuple[Data, ...] = ()
        self.gave_up: Exception | None = None

    @property
    def clean(self) -> bool:
        """Whether all that was said is 1000 or 1001, and something was."""
        codes = {close.code for close in (self.sent, self.received) if close is not None}
        if self.gave_up is not None or (self.cause is not None and self.received is None):
            return False
        return bool(codes) and codes <= OK_CODES

    def error(self) -> ConnectionClosed:
        """A new exception that tells all of it."""
        kind = ConnectionClosedOK if self.clean else ConnectionClosedError
        error = kind(self.received, self.sent, self.cause, self.unsent, self.in_doubt)
        error.__cause__ = self.gave_up
        return error
