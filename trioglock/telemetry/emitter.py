"""The emitter of one connection's events."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from .._redact import redact_subprotocols, redact_url, shorten
from ..disconnect import Disconnect, HeartbeatTimeout, Stalled
from ..frames import Close, Frame, PreparedMessage
from ..retry import describe_delay
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
    ProtocolEvent,
    Queue,
    ReconnectScheduled,
    StallDetected,
    Terminated,
    WireFrame,
)
from .listeners import EmitterBase, emit, has_listeners

__all__ = ["EventEmitter"]

_logger = logging.getLogger("trioglock.client")

_numbers = itertools.count(1)

Waiter: TypeAlias = Literal["reader", "sender"]


@dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    """A wait for space in a queue.

    Args:
        waiter: the reader or a sender.
        began: the start of the wait, on trio's clock.
    """

    waiter: Waiter
    began: float


class EventEmitter(EmitterBase):
    """Passes the events of one connection to its trace and to all listeners.

    It also logs the connects, losses and attempts of a client.

    There is one method for each event; it creates the event only if there is a listener. For
    events of frames, the caller checks ``emits_frames`` first.

    Args:
        name: the name of the connection in logs, or None.
        of: the default name, to which the number of the connection is added.
        url: the URL.
        side: the side of the connection.
        traced: whether the trace is on at the start.
    """

    # The __dict__ is for the instance attribute emits_frames, which few emitters have.
    __slots__ = (
        "__dict__",
        "_connection",
        "_has_warned",
        "_name",
        "_of",
        "_side",
        "_url",
        "_waits",
        "id",
        "traced",
    )

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
        """The number of the connection, unique in the process."""
        self._name = name
        self._of = of
        self._url = url
        self._side: Literal["client", "server"] = side
        self._connection: ConnectionId | None = None
        self._has_warned = False
        self.traced: bool = False
        """Whether the trace is on."""
        self._waits: dict[_Wait, None] | None = None  # created at the first wait
        if traced:
            self.trace(on=True)

    @property
    def name(self) -> str:
        """The name of the connection in logs."""
        return self._name or f"{self._of}#{self.id}"

    @property
    def connection(self) -> ConnectionId:
        """The identity of the connection, created at the first event."""
        if self._connection is None:
            self._connection = ConnectionId(
                id=self.id, name=self.name, url=redact_url(self._url), side=self._side
            )
        return self._connection

    def trace(self, *, on: bool) -> None:
        """Switch the trace on or off."""
        self.traced = on
        if on:
            self.emits_frames = True
            trace.prepare_logging()
        else:
            # The class attribute applies again.
            self.__dict__.pop("emits_frames", None)

    def _wants(self, kind: type[Event]) -> bool:
        return self.traced or has_listeners(kind)

    def _emit(self, event: Event) -> None:
        if self.traced and not trace.write(event):
            self.trace(on=False)
        emit(event)

    # Links.

    def connect_started(self, attempt: int) -> None:
        """Emit ``ConnectStarted``, on the client side only."""
        if self._side == "client" and self._wants(ConnectStarted):
            self._emit(ConnectStarted(connection=self.connection, attempt=attempt))

    def connect_failed(self, attempt: int, error: Exception, seconds: float) -> None:
        """Emit ``ConnectAttemptFailed``."""
        if self._wants(ConnectAttemptFailed):
            event = ConnectAttemptFailed(
                connection=self.connection, attempt=attempt, error=error, seconds=seconds
            )
            self._emit(event)

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
        """Emit ``Connected``, and log it on the client side."""
        if self._side == "client" and _logger.isEnabledFor(logging.INFO):
            what = "connected" if upgrade == 1 else "reconnected"
            _logger.info("%s: %s to %s", self.name, what, redact_url(url))
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
            self._emit(event)

    def heartbeat_missed(self, timeout: HeartbeatTimeout) -> None:
        """Emit ``HeartbeatMissed``."""
        if self._wants(HeartbeatMissed):
            event = HeartbeatMissed(
                connection=self.connection, silence=timeout.silence, writing=timeout.writing
            )
            self._emit(event)

    def stall_detected(self, stalled: Stalled) -> None:
        """Emit ``StallDetected``."""
        if self._wants(StallDetected):
            self._emit(StallDetected(connection=self.connection, seconds=stalled.seconds))

    def close_started(self, side: Literal["local", "remote"], frame: Close) -> None:
        """Emit ``CloseStarted``."""
        if self._wants(CloseStarted):
            event = CloseStarted(
                connection=self.connection, side=side, code=frame.code, reason=frame.reason
            )
            self._emit(event)

    def link_closed(self, reason: Disconnect, lasted: float, *, forced: bool) -> None:
        """Emit ``LinkClosed``."""
        if self._wants(LinkClosed):
            event = LinkClosed(
                connection=self.connection, reason=reason, lasted=lasted, forced=forced
            )
            self._emit(event)

    def reconnect_scheduled(
        self, reason: Disconnect, attempt: int, delay: float, level: int
    ) -> None:
        """Log a loss or a failed attempt at ``level``, and emit ``ReconnectScheduled``."""
        _logger.log(level, "%s: %s; %s", self.name, reason, describe_delay(delay))
        if self._wants(ReconnectScheduled):
            event = ReconnectScheduled(connection=self.connection, delay=delay, attempt=attempt)
            self._emit(event)

    def connection_failed(self, end: Disconnect | Exception, outcome: str = "") -> None:
        """Log the end of a client connection that does not reconnect."""
        if self._side == "client":
            _logger.info("%s: %s%s", self.name, end, outcome)

    def terminated(self, reason: Disconnect) -> None:
        """End all waits and emit ``Terminated``."""
        for wait in tuple(self._waits or ()):
            self._end_wait(wait)
        if self._wants(Terminated):
            self._emit(Terminated(connection=self.connection, reason=reason))

    # Frames and hooks.

    def frames_sent(self, frames: Iterable[Frame]) -> None:
        """Emit ``FrameSent`` for each frame."""
        if self._wants(FrameSent):
            for frame in frames:
                self._emit(FrameSent(connection=self.connection, frame=_plain(frame)))

    def frames_received(self, frames: Iterable[WireFrame]) -> None:
        """Emit ``FrameReceived`` for each frame."""
        if self._wants(FrameReceived):
            for frame in frames:
                self._emit(FrameReceived(connection=self.connection, frame=frame))

    def hook_replied(self, hook: str, frames: Sequence[Frame]) -> None:
        """Emit ``HookReplied``."""
        if frames and self._wants(HookReplied):
            plain = tuple(map(_plain, frames))
            self._emit(HookReplied(connection=self.connection, hook=hook, frames=plain))

    def hook_failed(self, hook: str, error: BaseException, *, fatal: bool) -> None:
        """Emit ``HookFailed``."""
        if self._wants(HookFailed):
            event = HookFailed(connection=self.connection, hook=hook, error=error, fatal=fatal)
            self._emit(event)

    def messages_dropped(self, messages: Iterable[object]) -> None:
        """Emit ``MessageDropped`` for each message."""
        if self._wants(MessageDropped):
            for message in messages:
                self._emit(MessageDropped(connection=self.connection, message=message))

    def updates_delayed(self, messages: Sequence[object]) -> None:
        """Log once that unreceived messages delay the program's subscriptions."""
        if self._has_warned:
            return
        self._has_warned = True
        _logger.warning(
            "%s: subscriptions get no updates, because the receive queue is full: %d messages "
            "that handle_receive delivered wait to be received; the first one is %s. Receive "
            'them, return None from handle_receive, or use overflow="drop_oldest"',
            self.name,
            len(messages),
            shorten(messages[0]),
        )

    def protocol_event(
        self, protocol: str, direction: Literal["sent", "received"], name: str, status: str | None
    ) -> None:
        """Emit ``ProtocolEvent``."""
        if has_listeners(ProtocolEvent):  # the trace shows its frame
            emit(
                ProtocolEvent(
                    connection=self.connection,
                    protocol=protocol,
                    direction=direction,
                    name=name,
                    status=status,
                )
            )

    @property
    def emits_waits(self) -> bool:
        """Whether backpressure events are wanted; if not, :meth:`waiting` has no effect."""
        return self._wants(BackpressureStarted) or self._wants(BackpressureEnded)

    @contextmanager
    def waiting(self, waiter: Waiter, queue: Queue) -> Iterator[None]:
        """Emit ``BackpressureStarted`` and ``BackpressureEnded`` around the block."""
        wait = _Wait(waiter, trio.current_time())
        self._waits = self._waits or {}
        self._waits[wait] = None
        if self._wants(BackpressureStarted):
            self._emit(BackpressureStarted(connection=self.connection, waiting=waiter, queue=queue))
        try:
            yield
        finally:
            self._end_wait(wait)

    def _end_wait(self, wait: _Wait) -> None:
        """Emit ``BackpressureEnded``, unless the end of the connection has already emitted it."""
        if not self._waits or wait not in self._waits:
            return
        del self._waits[wait]
        if self._wants(BackpressureEnded):
            seconds = trio.current_time() - wait.began
            event = BackpressureEnded(
                connection=self.connection, waiting=wait.waiter, seconds=seconds
            )
            self._emit(event)


def _plain(frame: Frame) -> WireFrame:
    if isinstance(frame, PreparedMessage):
        return frame.message
    return bytes(frame) if isinstance(frame, bytearray | memoryview) else frame
