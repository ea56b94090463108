"""How a connection ends: what both sides said, and the error that tells it."""

from __future__ import annotations

from enum import Enum

from ..errors import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from ..frames import Close, Data
from ..reasons import Disconnect

__all__ = ["OK_CODES", "Ending", "Status"]

OK_CODES = frozenset({1000, 1001})


class Status(Enum):
    """Where a connection stands.

    ::

        CONNECTING -> OPEN -> CLOSING -> CLOSED
                       ^ |       |
                       | v       v
                     RECONNECTING -> CLOSED
    """

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


class Ending:
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
