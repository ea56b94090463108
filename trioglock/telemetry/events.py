"""What happens to connections, as frozen values for whoever listens.

::

    Event
    ├── ConnectStarted         an attempt begins; clients only, as the next two
    ├── ConnectAttemptFailed          no connection came about, this time
    ├── ReconnectScheduled     another attempt will follow
    ├── Connected              a link is up
    ├── FrameSent              a frame goes to the transport
    ├── FrameReceived          a message or control frame has come
    ├── HookReplied            a hook, or the library for handle_ping, answers with frames
    ├── HookFailed             a hook or a background task raised
    ├── CloseStarted           one side begins to close
    ├── BackpressureStarted    something has to wait because a queue is full
    ├── BackpressureEnded      it goes on
    ├── MessageDropped         the overflow policy gives a message up
    ├── HeartbeatMissed        the peer is taken for dead
    ├── LinkClosed           a link is gone
    └── Terminated             the connection has ended; the last of its events

Errors and reasons are those of :mod:`trioglock.errors` and :mod:`trioglock.disconnect`. Frames are
what they are: whoever writes them somewhere answers for the secrets in them. The repr of an event
is that of a line in a log.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from .._redact import redact_line, shorten, shown
from ..disconnect import Disconnect
from ..frames import Close, Data, Ping, Pong

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
    "Queue",
    "ReconnectScheduled",
    "Terminated",
    "WireFrame",
]

WireFrame: TypeAlias = Data | Ping | Pong | Close
"""A whole message, ``str`` for text and ``bytes`` for binary, or a control frame."""

Queue: TypeAlias = Literal["receive_queue", "mailbox", "send_queue"]
"""What is full: delivered messages, jobs for the hooks, or frames to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionId:
    """Which connection it was.

    Args:
        id: a number that no other connection of this process has.
        name: what logs call it.
        url: the address, without user information and without the values of its query; "" where
            it is not known yet, or where a server's connection has none.
        side: whose end of the connection this is.
    """

    id: int
    name: str
    url: str
    side: Literal["client", "server"]

    def __str__(self) -> str:
        """Name and number."""
        own = f"#{self.id}"
        return self.name if self.name.endswith(own) else self.name + own


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event:
    """Base of all events.

    Args:
        connection: which one it happened to.
    """

    connection: ConnectionId

    def __repr__(self) -> str:
        # An event ends up in logs as a whole: shortened, and with secrets hidden.
        told = [f"{one.name}={_shown(getattr(self, one.name))}" for one in fields(self)]
        return f"{type(self).__name__}({', '.join(told)})"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(shorten, value))})"
    return shorten(value) if isinstance(value, str | bytes) else redact_line(shown(value))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectStarted(Event):
    """An attempt to connect begins.

    :class:`Connected` or :class:`ConnectAttemptFailed` follows, unless it is cancelled: then
    :class:`Terminated`.

    Args:
        attempt: counted from 1 over the life of the connection, failed ones included.
    """

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConnectAttemptFailed(Event):
    """The attempt came to nothing.

    Args:
        attempt: which one.
        error: usually a :class:`~trioglock.ConnectError`.
        seconds: that it took.
    """

    attempt: int
    error: Exception
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Connected(Event):
    """A link is up; ``handle_connect`` runs next.

    Args:
        attempt: which one it was.
        upgrade: how many links there have been, this one included: above 1 it is a reconnect.
        seconds: that dialling and the opening handshake took; 0 on the side of a server, where
            they come before there is a connection.
        url: the address that was reached, after redirects, redacted as that of
            :class:`ConnectionId`.
        peer: the other end, such as ``"127.0.0.1:8765"``; "" where it has no address.
        subprotocol: the negotiated one, or None; without a token that somebody has put there.
    """

    attempt: int
    upgrade: int
    seconds: float
    url: str
    peer: str
    subprotocol: str | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FrameSent(Event):
    """A frame goes to the transport. If the link breaks meanwhile, it may not have left.

    Args:
        frame: a whole message, or a control frame.
    """

    frame: WireFrame


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FrameReceived(Event):
    """A whole message, or a control frame, has come; no hook has seen it yet.

    Args:
        frame: which; of text that is ``str``, of binary ``bytes``.
    """

    frame: WireFrame


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HookReplied(Event):
    """A hook returned ``Reply``; or a ping is answered, which is done for every ``handle_ping``.

    Args:
        hook: its name, such as ``"handle_receive"``.
        frames: what will be sent.
    """

    hook: str
    frames: tuple[WireFrame, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HookFailed(Event):
    """A hook raised, or returned the wrong shape, or a background task raised.

    The connection ends by it, unless the hook is ``handle_send`` or ``handle_call``: their
    errors belong to the calls that brought them, and come out there.

    Args:
        hook: its class and name, such as ``"Counter.handle_receive"``; "" for a task, or for a
            function given as an option.
        error: what it raised.
        fatal: whether the connection ends by it.
    """

    hook: str
    error: BaseException
    fatal: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CloseStarted(Event):
    """One side begins to close (RFC 6455, section 7.1).

    Args:
        side: ``"local"`` when we do, ``"remote"`` when the peer does; when the peer has broken
            the protocol, it is we who close.
        code: of the Close frame.
        reason: its text.
    """

    side: Literal["local", "remote"]
    code: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BackpressureStarted(Event):
    """Something has to wait, because a queue is full.

    Args:
        waiting: the ``"reader"``, which takes nothing more from the network, or a ``"sender"``:
            one call of ``send``.
        queue: the one that is full.
    """

    waiting: Literal["reader", "sender"]
    queue: Queue


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BackpressureEnded(Event):
    """What had to wait goes on, be it because the connection closes.

    Args:
        waiting: as in :class:`BackpressureStarted`.
        seconds: that it waited.
    """

    waiting: Literal["reader", "sender"]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MessageDropped(Event):
    """A received message is given up, as ``overflow`` wants, or because the connection closes.

    Args:
        message: what ``handle_receive`` delivered, or the frame where no hook has seen it.
    """

    message: object


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HeartbeatMissed(Event):
    """The peer was silent, or took nothing, for too long: its link is dropped.

    Args:
        silence: seconds that it had to show life.
        writing: whether it was our writing that made no progress.
    """

    silence: float
    writing: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LinkClosed(Event):
    """A link is gone; ``handle_disconnect`` runs next.

    Args:
        reason: why.
        lasted: seconds that it was up.
        forced: whether it was dropped because the peer took too long.
    """

    reason: Disconnect
    lasted: float
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReconnectScheduled(Event):
    """Another attempt will follow.

    Args:
        delay: seconds until then.
        attempt: which one it will be, counted as in :class:`ConnectStarted`.
    """

    delay: float
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Terminated(Event):
    """The connection has ended, and ``terminate`` has run. Nothing follows.

    Args:
        reason: why.
    """

    reason: Disconnect
