"""The statuses of a connection, and how it closes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ..close_codes import NORMAL
from ..disconnect import Disconnect
from ..errors import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from ..frames import Close, Data

__all__ = ["TRANSITIONS", "CloseState", "Status"]


class Status(Enum):
    """The status of a connection; :data:`TRANSITIONS` lists the possible changes."""

    CONNECTING = "connecting"
    """The first attempt to connect is in progress."""
    OPEN = "open"
    """A link is open, and neither side has started to close it."""
    CLOSING = "closing"
    """The closing handshake is in progress, and no other link is expected."""
    RECONNECTING = "reconnecting"
    """The link has ended or is closing, and another one is expected."""
    DECIDING = "deciding"
    """The policy does not reconnect, but ``handle_disconnect`` may still decide to."""
    CLOSED = "closed"
    """The connection has ended. This status is final."""


TRANSITIONS: Mapping[Status, Mapping[Status, str]] = {
    Status.CONNECTING: {
        Status.OPEN: "upgraded",
        Status.RECONNECTING: "attempt failed, policy retries",
        Status.DECIDING: "attempt failed",
        Status.CLOSED: "attempt failed, closed or cancelled",
    },
    Status.OPEN: {
        Status.CLOSING: "either side closes",
        Status.RECONNECTING: "lost, closed by the peer or reconnect()",
        Status.DECIDING: "lost",
        Status.CLOSED: "lost, abort() or cancelled",
    },
    Status.CLOSING: {
        Status.CLOSED: "closing handshake complete or timed out",
        Status.RECONNECTING: "policy reconnects",
        Status.DECIDING: "closed by the peer",
    },
    Status.RECONNECTING: {
        Status.OPEN: "upgraded",
        Status.DECIDING: "last attempt failed",
        Status.CLOSED: "attempts exhausted, closed or cancelled",
    },
    Status.DECIDING: {
        Status.RECONNECTING: "handle_disconnect returned Reconnect",
        Status.CLOSED: "no reconnect, closed or cancelled",
    },
    Status.CLOSED: {},
}
"""For each status, the statuses that may follow and why."""


class CloseState:
    """The Close frames of both sides, the cause of the end, and the messages that were not sent."""

    def __init__(self) -> None:
        self.sent: Close | None = None
        self.received: Close | None = None
        self.cause: Disconnect | None = None
        self.unsent: tuple[Data, ...] = ()
        self.in_doubt: tuple[Data, ...] = ()
        self.final_error: Exception | None = None

    @property
    def clean(self) -> bool:
        """Whether a Close frame was exchanged and all codes are 1000 or 1001."""
        codes = {close.code for close in (self.sent, self.received) if close is not None}
        if self.final_error is not None or (self.cause is not None and self.received is None):
            return False
        return bool(codes) and codes <= NORMAL

    def error(self) -> ConnectionClosed:
        """Create the exception that describes the close."""
        kind = ConnectionClosedOK if self.clean else ConnectionClosedError
        error = kind(self.received, self.sent, self.cause, self.unsent, self.in_doubt)
        error.__cause__ = self.final_error
        return error
