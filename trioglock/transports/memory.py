"""The memory plug: both ends in one process, no bytes, no sockets, no clock of its own.

For tests under trio's ``MockClock``. Every ``connect`` makes a pair of links; the test takes the
far one from :meth:`MemoryTransport.accept` and speaks with it, frame by frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import trio

from .._redact import without_user_info
from ..errors import ConnectFailed
from ..frames import Close, Event, Frame, Ping, Pong, PreparedMessage
from ..options import DialOptions
from .addresses import parse_url
from .base import Handshake, Link, LinkBroken, Transport

__all__ = ["MemoryLink", "MemoryTransport", "memory_link_pair"]


class MemoryLink(Link):
    """One end of a pair; what one end writes, the other receives."""

    def __init__(
        self,
        handshake: Handshake,
        outgoing: trio.MemorySendChannel[Frame],
        incoming: trio.MemoryReceiveChannel[Frame],
    ) -> None:
        self.handshake = handshake
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        self._outgoing = outgoing
        self._incoming = incoming
        self._rest: list[Frame] = []  # of a write_now() that came to an end half-way

    async def receive(self) -> list[Event]:
        """See :meth:`Link.receive`."""
        try:
            first = await self._incoming.receive()
        except trio.EndOfChannel:
            # A program that asks again and again must not starve the others.
            await trio.lowlevel.checkpoint()
            return []
        except trio.ClosedResourceError as error:
            raise LinkBroken("the link was closed") from error
        events: list[Event] = []
        _add(events, first)
        while True:
            try:
                _add(events, self._incoming.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
        self.bytes_received += sum(map(_size, events))
        return events

    async def write(self, frames: Sequence[Frame]) -> None:
        """See :meth:`Link.write`."""
        rest, self._rest = self._rest, []
        for frame in (*rest, *frames):
            try:
                await self._outgoing.send(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise LinkBroken("the other end is gone") from error
            self.bytes_sent += _size(frame)

    @property
    def writes_now(self) -> bool:
        """See :attr:`Link.writes_now`."""
        return True

    def write_now(self, frames: Sequence[Frame]) -> bool:
        """See :meth:`Link.write_now`."""
        for at, frame in enumerate(frames):
            try:
                self._outgoing.send_nowait(frame)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                self._rest = list(frames[at:])
                return False
            self.bytes_sent += _size(frame)
        return True

    async def aclose(self) -> None:
        """See :meth:`Link.aclose`."""
        self._outgoing.close()
        self._incoming.close()

    async def send_eof(self) -> None:
        """End the stream in this direction, as a TCP half-close does."""
        self._outgoing.close()
        await trio.lowlevel.checkpoint()


def memory_link_pair(
    handshake: Handshake, *, capacity: float = math.inf
) -> tuple[MemoryLink, MemoryLink]:
    """Two links that are each other's peer.

    Args:
        handshake: that both ends tell.
        capacity: frames that fit in between, each way, before a write waits.
    """
    to_far, from_near = trio.open_memory_channel[Frame](capacity)
    to_near, from_far = trio.open_memory_channel[Frame](capacity)
    return MemoryLink(handshake, to_far, from_far), MemoryLink(handshake, to_near, from_near)


class MemoryTransport(Transport):
    """Connects to whoever calls :meth:`accept`, in the same process.

    Args:
        capacity: how many frames fit between the two ends, each way, before a write waits.
        subprotocol: the one that every connection negotiates.
    """

    def __init__(self, *, capacity: float = math.inf, subprotocol: str | None = None) -> None:
        self._capacity = capacity
        self._subprotocol = subprotocol
        self._refusals: list[Exception] = []
        self._far, self._accepted = trio.open_memory_channel[MemoryLink](math.inf)
        self.dialed: list[DialOptions] = []
        """What every attempt asked for, oldest first."""

    def refuse_next(self, error: Exception | None = None) -> None:
        """Let the next attempt fail with ``error``, by default a :class:`ConnectFailed`."""
        self._refusals.append(error or ConnectFailed("refused by the test"))

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:  # noqa: ARG002 - the port's signature
        """See :meth:`Transport.connect`."""
        parse_url(options.url)
        self.dialed.append(options)
        await trio.lowlevel.checkpoint()
        if self._refusals:
            raise self._refusals.pop(0)
        handshake = Handshake(
            url=without_user_info(options.url),
            subprotocol=self._subprotocol,
            request_headers=options.additional_headers,
            peer="memory",
        )
        near, far = memory_link_pair(handshake, capacity=self._capacity)
        self._far.send_nowait(far)
        return near

    async def accept(self) -> MemoryLink:
        """The far end of the next connection, in the order in which they were made."""
        return await self._accepted.receive()


def _add(events: list[Event], frame: Frame) -> None:
    match frame:
        case Ping() | Pong() | Close():
            events.append(frame)
        case PreparedMessage():
            _add(events, frame.message)
        case _:
            message = frame if isinstance(frame, str) else bytes(frame)
            if events and isinstance(events[-1], list):
                events[-1].append(message)
            else:
                events.append([message])


def _size(item: Event | Frame) -> int:
    """Bytes, near enough: what the payload has, and two for the frame around it."""
    match item:
        case list():
            return sum(map(_size, item))
        case Ping(payload) | Pong(payload):
            return 2 + len(payload)
        case PreparedMessage():
            return 2 + item.size
        case str() | bytes() | bytearray() | memoryview():
            return 2 + len(item)
        case _:
            return 4
