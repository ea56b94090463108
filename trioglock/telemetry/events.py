"""The events of connections, as frozen values.

::

    Event
    ├── ConnectStarted         a client starts an attempt to connect
    ├── ConnectAttemptFailed   the attempt failed
    ├── ReconnectScheduled     another attempt follows after a delay
    ├── Connected              a link was opened
    ├── FrameSent              a frame is passed to the transport
    ├── FrameReceived          a message or control frame was received
    ├── HookReplied            a hook replied with frames, or a ping was answered
    ├── HookFailed             a hook or a background task raised an exception
    ├── CloseStarted           one side started the closing handshake
    ├── BackpressureStarted    the reader or a sender waits because a queue is full
    ├── BackpressureEnded      the wait ended
    ├── MessageDropped         the overflow policy dropped a message
    ├── HeartbeatMissed        the peer is considered dead
    ├── StallDetected          the peer sent no data for too long
    ├── ProtocolEvent          an event of an application protocol was sent or received
    ├── LinkClosed             a link was closed
    └── Terminated             the connection has ended; this is the last event

See :mod:`trioglock.errors` and :mod:`trioglock.disconnect` for errors and reasons. Frames are not
redacted, but the repr of an event is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from .._redact import redact_line, safe_repr, shorten
from ..disconnect import Disconnect
from ..frames import Close, Data, Fragment, Ping, Pong

__all__ = [
    "BackpressureEnded",
    "BackpressureStarted",
    "CloseStarted",
    "ConnectAttemptFailed",
    "ConnectStarted",
    "Connected",
    "ConnectionId",
    "Event",
    "FrameReceived",
    "FrameSent",
    "HeartbeatMissed",
    "HookFailed",
    "HookReplied",
    "LinkClosed",
    "MessageDropped",
    "ProtocolEvent",
    "Queue",
    "ReconnectScheduled",
    "StallDetected",
    "Terminated",
    "WireFrame",
]

WireFrame: TypeAlias = Data | Fragment | Ping | Pong | Close
"""A message, ``str`` for text and ``bytes`` for binary, a fragment of one, or a control frame."""

Queue: TypeAlias = Literal["receive_queue", "mailbox", "send_queue", "rate_limit"]
"""The full queue: delivered messages, jobs for hooks, or frames to send; ``"rate_limit"`` if the
peer sends faster than ``message_rate`` or ``byte_rate`` allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionId:
    """The identity of a connection.

    Args:
        id: the number of the connection, unique in the process.
        name: the name of the connection in logs.
        url: the redacted URL, without user information or query values; "" if it is
            not known.
        side: the side of the connection.
    """

    id: int
    name: str
    url: str
    side: Literal["client", "server"]

    def __str__(self) -> str:
        """The name and the number."""
        own = f"#{self.id}"
        return self.name if self.name.endswith(own) else self.name + own


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event:
    """The base class of all events.

    Args:
        connection: the identity of the connection.
    """

    connection: ConnectionId

    def __repr__(self) -> str:
        # For logs: shortened, with secrets hidden.
        shown = [f"{one.name}={_format(getattr(self, one.name))}" for one in fields(self)]
        return f"{type(self).__name__}({', '.join(shown)})"


def _format(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(shorten, value))})"
    return shorten(value) if isinstance(value, str | bytes) else redact_line(safe_repr(value))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectStarted(Event):
    """A client starts an attempt to connect.

    :class:`Connected` or :class:`ConnectAttemptFailed` follows, or :class:`Terminated` if the
    attempt is cancelled.

    Args:
        attempt: the number of the attempt, counted from 1 over the lifetime of the connection.
    """

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectAttemptFailed(Event):
    """An attempt to connect failed.

    Args:
        attempt: the number of the attempt.
        error: the exception, usually a :class:`~trioglock.ConnectError`.
        seconds: the duration of the attempt.
    """

    attempt: int
    error: Exception
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Connected(Event):
    """A link was opened; ``handle_connect`` runs next.

    Args:
        attempt: the number of the attempt.
        upgrade: the number of the link, counted from 1; a number above 1 means a reconnect.
        seconds: the duration of connecting and the opening handshake; 0 on the server side,
            where the connection starts after the handshake.
        url: the redacted URL after redirects.
        peer: the peer's address, such as ``"127.0.0.1:8765"``; "" if it has none.
        subprotocol: the negotiated subprotocol, redacted, or None.
    """

    attempt: int
    upgrade: int
    seconds: float
    url: str
    peer: str
    subprotocol: str | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FrameSent(Event):
    """A frame is passed to the transport. It may not arrive if the link breaks.

    Args:
        frame: a message, a fragment of one, or a control frame.
    """

    frame: WireFrame


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FrameReceived(Event):
    """A message or a control frame was received. Its hook runs next.

    Args:
        frame: a message, ``str`` for text and ``bytes`` for binary, a fragment of one, or a control
            frame.
    """

    frame: WireFrame


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HookReplied(Event):
    """A hook returned ``Reply``, or a ping was answered automatically.

    Args:
        hook: the name of the hook, such as ``"handle_receive"``; ``"handle_ping"`` for a pong.
        frames: the frames to send.
    """

    hook: str
    frames: tuple[WireFrame, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HookFailed(Event):
    """A hook or a background task raised an exception, or a hook returned an invalid value.

    This ends the connection, except for ``handle_send`` and ``handle_call``, whose exceptions are
    raised by the call that caused them.

    Args:
        hook: the class and name of the hook, such as ``"Counter.handle_receive"``; "" for a task
            or a function passed as an option.
        error: the exception.
        fatal: whether it ends the connection.
    """

    hook: str
    error: BaseException
    fatal: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CloseStarted(Event):
    """One side started the closing handshake (RFC 6455, section 7.1).

    Args:
        side: ``"remote"`` if the peer closes; ``"local"`` otherwise, including after a protocol
            violation by the peer.
        code: the code of the Close frame.
        reason: the reason of the Close frame.
    """

    side: Literal["local", "remote"]
    code: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BackpressureStarted(Event):
    """The reader or a sender waits because a queue is full.

    Args:
        waiting: ``"reader"`` if reading from the network is paused, ``"sender"`` for one call of
            ``send``.
        queue: the full queue.
    """

    waiting: Literal["reader", "sender"]
    queue: Queue


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BackpressureEnded(Event):
    """The reader or a sender continues, or the connection closes.

    Args:
        waiting: as in :class:`BackpressureStarted`.
        seconds: the duration of the wait.
    """

    waiting: Literal["reader", "sender"]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MessageDropped(Event):
    """A received message was dropped by the overflow policy, or at the end of the connection.

    Args:
        message: the message that ``handle_receive`` delivered, or the frame if the hook did not
            run.
    """

    message: object


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HeartbeatMissed(Event):
    """The peer sent or read nothing for too long; its link is dropped.

    Args:
        silence: the timeout in seconds.
        writing: True if the peer read nothing, so that writing made no progress.
    """

    silence: float
    writing: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StallDetected(Event):
    """The peer sent no data for ``stall_timeout``; its link is dropped.

    Args:
        seconds: the timeout in seconds.
    """

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ProtocolEvent(Event):
    """An event of an application protocol is sent, or was received. The Gossip client emits it.

    Args:
        protocol: the protocol: ``"gossip"``.
        direction: whether this side sends or received it.
        name: the name of the event, such as ``"channels/broadcast"``; "" for a failure for which
            the peer names no event.
        status: ``"success"`` or ``"failure"`` in an answer; None in all other events.
    """

    protocol: str
    direction: Literal["sent", "received"]
    name: str
    status: str | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LinkClosed(Event):
    """A link was closed; ``handle_disconnect`` runs next.

    Args:
        reason: why the link was closed.
        lasted: the lifetime of the link in seconds.
        forced: whether it was dropped after a timeout.
    """

    reason: Disconnect
    lasted: float
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReconnectScheduled(Event):
    """Another attempt follows after a delay.

    Args:
        delay: the delay in seconds.
        attempt: the number of the next attempt.
    """

    delay: float
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Terminated(Event):
    """The connection has ended, and ``terminate`` has run. This is the last event.

    Args:
        reason: why the connection ended.
    """

    reason: Disconnect
