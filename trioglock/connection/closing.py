"""How a connection closes: its statuses, its deadlines, and the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum

import trio

from .._timer import PeerDeadline
from ..close_codes import NORMAL, TOO_LARGE
from ..disconnect import Disconnect, ProtocolViolation
from ..errors import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from ..frames import Close, Data, too_large
from .send_queue import SendQueue

__all__ = ["TRANSITIONS", "CloseState", "Deadlines", "Status", "Trigger"]


LINGER = 1.0
"""Maximum number of seconds for the peer to end the stream after the closing handshake (RFC 6455,
section 7.1.1), and for ``handle_disconnect`` if the peer has used up the close timeout."""


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


class Trigger(Enum):
    """The events that change the status of a connection."""

    UPGRADED = "the opening handshake has succeeded"
    CLOSE = "either side closes, and no other link is expected"
    RECONNECT = "reconnect(), a Reconnect decision or the policy opens another link"
    LINK_ENDED = "the link or the attempt has ended, and only handle_disconnect may reconnect"
    END = "no other link follows: a final decision, abort() or a cancellation"


TRANSITIONS: Mapping[Status, Mapping[Trigger, Status]] = {
    Status.CONNECTING: {
        Trigger.UPGRADED: Status.OPEN,
        Trigger.RECONNECT: Status.RECONNECTING,
        Trigger.LINK_ENDED: Status.DECIDING,
        Trigger.END: Status.CLOSED,
    },
    Status.OPEN: {
        Trigger.CLOSE: Status.CLOSING,
        Trigger.RECONNECT: Status.RECONNECTING,
        Trigger.LINK_ENDED: Status.DECIDING,
        Trigger.END: Status.CLOSED,
    },
    Status.CLOSING: {
        Trigger.RECONNECT: Status.RECONNECTING,
        Trigger.LINK_ENDED: Status.DECIDING,
        Trigger.END: Status.CLOSED,
    },
    Status.RECONNECTING: {
        Trigger.UPGRADED: Status.OPEN,
        Trigger.LINK_ENDED: Status.DECIDING,
        Trigger.END: Status.CLOSED,
    },
    Status.DECIDING: {
        Trigger.RECONNECT: Status.RECONNECTING,
        Trigger.END: Status.CLOSED,
    },
    Status.CLOSED: {},
}
"""For each status, the triggers that change it, and the next status.

Other triggers have no effect.
"""


class CloseState:
    """The Close frames of both sides, the cause of the end, and the messages that were not sent.

    Args:
        send_queue: the send queue of the connection.
    """

    __slots__ = ("_send_queue", "cause", "final_error", "received", "sent", "unsent")

    def __init__(self, send_queue: SendQueue) -> None:
        self._send_queue = send_queue
        self.sent: Close | None = None
        self.received: Close | None = None
        self.cause: Disconnect | None = None
        self.unsent: tuple[Data, ...] = ()
        self.final_error: Exception | None = None

    def start_link(self) -> None:
        """Discard the state of the previous link."""
        self.sent = self.received = self.cause = None
        self.unsent = ()

    def attempt_failed(self) -> None:
        """Discard the Close frames of an earlier link, which no longer explain the end."""
        self.sent = self.received = None

    def message_too_large(self, max_size: int) -> None:
        """Record that a received message could not be delivered, although all links have ended."""
        attempt = 1 if self.cause is None else self.cause.attempt
        self.cause = ProtocolViolation(code=TOO_LARGE, reason=too_large(max_size), attempt=attempt)

    @property
    def normal(self) -> bool:
        """Whether Close frames were sent, all with 1000, 1001 or 1005 (no code), and no error."""
        codes = {close.code for close in (self.sent, self.received) if close is not None}
        failed = self.final_error is not None or isinstance(self.cause, ProtocolViolation)
        return bool(codes) and codes <= NORMAL and not failed

    @property
    def clean(self) -> bool:
        """Whether the connection closes normally, and the peer has confirmed it at the end."""
        return self.normal and (self.cause is None or self.received is not None)

    def error(self) -> ConnectionClosed:
        """Create the exception for calls on a connection that is closing or closed.

        Its ``origin`` is this object, which identifies the connection.
        """
        kind = ConnectionClosedOK if self.clean else ConnectionClosedError
        in_doubt = self._send_queue.in_doubt
        error = kind(self.received, self.sent, self.cause, self.unsent, in_doubt)
        error.__cause__ = self.final_error
        error.origin = self
        return error


class Deadlines:
    """The cancel scopes of a connection's current link and of its hooks.

    Each has one deadline for a close, which is never extended.

    Args:
        close_timeout: seconds from the start of the close to its end; None for no limit.
    """

    __slots__ = ("_hooks", "_hooks_end", "_link_deadline", "_timeout", "link")

    def __init__(self, close_timeout: float | None) -> None:
        self.link: trio.CancelScope = trio.CancelScope()
        self._link_deadline: PeerDeadline | None = None  # while there is one
        self._timeout = math.inf if close_timeout is None else close_timeout
        self._hooks_end = math.inf
        self._hooks: trio.CancelScope | None = None

    def close_deadline(self) -> float:
        """Return the time at which a close that starts now must be complete."""
        return trio.current_time() + self._timeout

    def new_link(self) -> trio.CancelScope:
        """Create the scope of an attempt, or of the delay before it."""
        self.link = trio.CancelScope()
        self._link_deadline = None
        return self.link

    @property
    def link_expired(self) -> bool:
        """Whether the link has not closed in time."""
        return self._link_deadline is not None and self._link_deadline.expired

    def limit_link(self) -> None:
        """Start the close timeout of the link; an earlier deadline is kept."""
        self._limit_link(self.close_deadline())

    def _limit_link(self, deadline: float) -> None:
        if self._link_deadline is None:
            self._link_deadline = PeerDeadline(self.link, deadline)
        elif deadline < self._link_deadline.time:
            self._link_deadline.move(deadline)

    def lift_link(self) -> None:
        """Remove the deadline of the link."""
        if self._link_deadline is not None:
            self._link_deadline.stop()

    def linger(self) -> None:
        """Limit the wait for the peer to end the stream after both Close frames were sent."""
        self._limit_link(trio.current_time() + LINGER)

    def new_hooks(self, *, caught_up: bool) -> trio.CancelScope:
        """Create the scope in which ``handle_disconnect`` runs.

        Args:
            caught_up: whether no job is waiting for the hooks. If so, only the peer can have used
                up the close timeout, and the hook still gets :data:`LINGER` seconds.
        """
        end = self._hooks_end
        if caught_up:
            end = max(end, trio.current_time() + LINGER)
        self._hooks = trio.CancelScope(deadline=end)
        return self._hooks

    def limit_hooks(self) -> None:
        """Start the close timeout of the hooks; an earlier deadline is kept."""
        self._hooks_end = min(self._hooks_end, self.close_deadline())
        if self._hooks is not None:
            self._hooks.deadline = self._hooks_end

    def cancel(self) -> None:
        """Cancel both scopes."""
        self.link.cancel()
        if self._hooks is not None:
            self._hooks.cancel()
