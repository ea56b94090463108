"""The emitter: where one connection says what happens to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from .._redact import redact_subprotocols, redact_url
from ..disconnect import Disconnect, HeartbeatTimeout
from ..frames import Close, Frame, PreparedMessage
from . import trace
from .events import (
    BackpressureEnded,
    BackpressureStarted,
    CloseStarted,
    ConnectAttemptFailed,
    Connected,
    ConnectionId,
    ConnectStarted,
    Event,
    FrameReceived,
    FrameSent,
    HeartbeatMissed,
    HookFailed,
    HookReplied,
    LinkClosed,
    MessageDropped,
    Queue,
    ReconnectScheduled,
    Terminated,
    WireFrame,
)
from .listeners import Watch, hear, is_heard

__all__ = ["EventEmitter"]

_numbers = itertools.count(1)

Waiting: TypeAlias = Literal["reader", "sender"]


@dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    """Somebody who waits for room.

    Args:
        who: what waits.
        began: when, on trio's clock.
    """

    who: Waiting
    began: float


class EventEmitter(Watch):
    """Tells the events of one connection to its trace and to all listeners.

    One method for each event; none builds it unless somebody wants it. Of frames, callers ask
    :attr:`frames` before they call.

    Args:
        name: what logs call the connection.
        of: what to call it where it has no name: this, and its number.
        url: its address.
        side: whose end of the connection this is.
        traced: whether it writes a trace at first.
    """

    # The dict, which few have, is for a value of its own of ``frames``.
    __slots__ = ("__dict__", "_connection", "_side", "_url", "_waits", "id", "name", "traced")

    def __init__(
        self,
        name: str | None,
        *,
        of: str,
        url: str = "",
        side: Literal["client", "server"] = "client",
        traced: bool = False,
    ) -> None:
        self.id: int = next(_numbers)
        """The number that no other connection of the process has."""
        self.name: str = name or f"{of}#{self.id}"
        """What logs call the connection."""
        self._url = url
        self._side: Literal["client", "server"] = side
        self._connection: ConnectionId | None = None
        self.traced: bool = False
        """Whether it writes a trace."""
        self._waits: dict[_Wait, None] | None = None  # most connections never have any
        if traced:
            self.trace(on=True)

    @property
    def connection(self) -> ConnectionId:
        """Which one it is; made for those that somebody looks at."""
        if self._connection is None:
            self._connection = ConnectionId(
                id=self.id, name=self.name, url=redact_url(self._url), side=self._side
            )
        return self._connection

    def trace(self, *, on: bool) -> None:
        """Switch the trace on or off."""
        self.traced = on
        if on:
            self.frames = True
            trace.prepare_logging()
        else:
            # What is left is what all connections have.
            self.__dict__.pop("frames", None)

    def _wants(self, kind: type[Event]) -> bool:
        return self.traced or is_heard(kind)

    def _tell(self, event: Event) -> None:
        if self.traced and not trace.write(event):
            self.trace(on=False)
        hear(event)

    # Links come and go.

    def connect_started(self, attempt: int) -> None:
        """An attempt begins; a server makes none."""
        if self._side == "client" and self._wants(ConnectStarted):
            self._tell(ConnectStarted(connection=self.connection, attempt=attempt))

    def connect_failed(self, attempt: int, error: Exception, seconds: float) -> None:
        """It came to nothing."""
        if self._wants(ConnectAttemptFailed):
            event = ConnectAttemptFailed(
                connection=self.connection, attempt=attempt, error=error, seconds=seconds
            )
            self._tell(event)

    def connected(
        self,
        attempt: int,
        upgrade: int,
        seconds: float,
        *,
        url: str,
        peer: str,
        subprotocol: str | None,
    ) -> None:
        """A link is up."""
        if self._wants(Connected):
            event = Connected(
                connection=self.connection,
                attempt=attempt,
                upgrade=upgrade,
                seconds=seconds if self.connection.side == "client" else 0.0,
                url=redact_url(url),
                peer=peer,
                subprotocol=None if subprotocol is None else redact_subprotocols(subprotocol),
            )
            self._tell(event)

    def heartbeat_missed(self, timeout: HeartbeatTimeout) -> None:
        """The peer is taken for dead."""
        if self._wants(HeartbeatMissed):
            event = HeartbeatMissed(
                connection=self.connection, silence=timeout.silence, writing=timeout.writing
            )
            self._tell(event)

    def close_started(self, side: Literal["local", "remote"], frame: Close) -> None:
        """One side begins to close."""
        if self._wants(CloseStarted):
            event = CloseStarted(
                connection=self.connection, side=side, code=frame.code, reason=frame.reason
            )
            self._tell(event)

    def disconnected(self, reason: Disconnect, lasted: float, *, forced: bool) -> None:
        """A link is gone."""
        if self._wants(LinkClosed):
            event = LinkClosed(
                connection=self.connection, reason=reason, lasted=lasted, forced=forced
            )
            self._tell(event)

    def reconnect_scheduled(self, attempt: int, delay: float) -> None:
        """Another attempt will follow."""
        if self._wants(ReconnectScheduled):
            event = ReconnectScheduled(connection=self.connection, delay=delay, attempt=attempt)
            self._tell(event)

    def terminated(self, reason: Disconnect) -> None:
        """The connection has ended, and nobody waits for it any more."""
        for wait in tuple(self._waits or ()):
            self._waits_no_more(wait)
        if self._wants(Terminated):
            self._tell(Terminated(connection=self.connection, reason=reason))

    # Frames and hooks.

    def frames_sent(self, frames: Iterable[Frame]) -> None:
        """Frames go to the transport."""
        if self._wants(FrameSent):
            for frame in frames:
                self._tell(FrameSent(connection=self.connection, frame=_plain(frame)))

    def frames_received(self, frames: Iterable[WireFrame]) -> None:
        """Messages or a control frame have come."""
        if self._wants(FrameReceived):
            for frame in frames:
                self._tell(FrameReceived(connection=self.connection, frame=frame))

    def hook_replied(self, hook: str, frames: Sequence[Frame]) -> None:
        """A hook answers with frames."""
        if frames and self._wants(HookReplied):
            plain = tuple(map(_plain, frames))
            self._tell(HookReplied(connection=self.connection, hook=hook, frames=plain))

    def hook_failed(self, hook: str, error: BaseException, *, fatal: bool) -> None:
        """A hook or a background task raised."""
        if self._wants(HookFailed):
            event = HookFailed(connection=self.connection, hook=hook, error=error, fatal=fatal)
            self._tell(event)

    def messages_dropped(self, messages: Iterable[object]) -> None:
        """Nobody will receive them."""
        if self._wants(MessageDropped):
            for message in messages:
                self._tell(MessageDropped(connection=self.connection, message=message))

    @contextmanager
    def waiting(self, who: Waiting, queue: Queue) -> Iterator[None]:
        """Somebody waits for room in this block."""
        wait = _Wait(who, trio.current_time())
        self._waits = self._waits or {}
        self._waits[wait] = None
        if self._wants(BackpressureStarted):
            self._tell(BackpressureStarted(connection=self.connection, waiting=who, queue=queue))
        try:
            yield
        finally:
            self._waits_no_more(wait)

    def _waits_no_more(self, wait: _Wait) -> None:
        """Once for each: a send may still have to wake when the connection has ended."""
        if not self._waits or wait not in self._waits:
            return
        del self._waits[wait]
        if self._wants(BackpressureEnded):
            seconds = trio.current_time() - wait.began
            event = BackpressureEnded(connection=self.connection, waiting=wait.who, seconds=seconds)
            self._tell(event)


def _plain(frame: Frame) -> WireFrame:
    if isinstance(frame, PreparedMessage):
        return frame.message
    return bytes(frame) if isinstance(frame, bytearray | memoryview) else frame
