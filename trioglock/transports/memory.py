"""The memory transport: both ends in one process, without bytes or sockets.

For tests with trio's ``MockClock``. Every ``connect`` creates a pair of links; the test gets the
far link from :meth:`MemoryTransport.accept` and exchanges frames with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import trio

from .._redact import without_user_info
from ..errors import ConnectFailed
from ..frames import Close, Data, Event, Fragment, Frame, Ping, Pong, PreparedMessage
from ..options import DialOptions
from .base import Capabilities, Handshake, Link, LinkBroken, Transport
from .urls import parse_url

__all__ = ["MemoryLink", "MemoryTransport", "memory_link_pair"]


class MemoryLink(Link):
    """One end of a pair: it receives the frames that the other end writes."""

    takes_fragments: bool = True

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
        self._rest: list[Frame] = []  # frames that write_now() did not write
        self.fragments: bool = False
        """Whether :meth:`receive` returns messages as fragments instead of joining them."""
        self._parts: list[Data] = []  # of the message whose fragments are arriving

    async def receive(self) -> list[Event]:
        while True:
            events = await self._receive_some()
            if events is not None:
                return events

    async def _receive_some(self) -> list[Event] | None:
        """Return the next events, [] at the end of the stream, None for a part of a message."""
        try:
            first = await self._incoming.receive()
        except trio.EndOfChannel:
            # A loop that calls receive() repeatedly must not starve other tasks.
            await trio.lowlevel.checkpoint()
            return []
        except trio.ClosedResourceError as error:
            raise LinkBroken("the link was closed") from error
        events: list[Event] = []
        self._add(events, first)
        with suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                self._add(events, self._incoming.receive_nowait())
        return events or None

    def _add(self, events: list[Event], frame: Frame) -> None:
        self.bytes_received += _size(frame)
        if not isinstance(frame, Fragment):
            _add(events, frame)
            if self.fragments and isinstance(events[-1], list):
                events[-1:] = [Fragment(data, first=True, final=True) for data in events[-1]]
            return
        if self.fragments:
            events.append(frame)
            return
        self._parts.append(frame.data)
        if frame.final:
            # All parts of a message are of the same type.
            _add(events, type(frame.data)().join(self._parts))  # type: ignore[arg-type]
            self._parts = []

    async def write(self, frames: Sequence[Frame]) -> None:
        rest, self._rest = self._rest, []
        for frame in (*rest, *frames):
            try:
                await self._outgoing.send(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise LinkBroken("the other end is closed") from error
            self.bytes_sent += _size(frame)

    @property
    def writes_now(self) -> bool:
        return True

    def write_now(self, frames: Sequence[Frame]) -> bool:
        for at, frame in enumerate(frames):
            try:
                self._outgoing.send_nowait(frame)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                self._rest = list(frames[at:])
                return False
            self.bytes_sent += _size(frame)
        return True

    async def aclose(self) -> None:
        self._outgoing.close()
        self._incoming.close()

    async def send_eof(self) -> None:
        """End this direction of the stream, like a TCP half-close."""
        self._outgoing.close()
        await trio.lowlevel.checkpoint()


def memory_link_pair(
    handshake: Handshake, *, capacity: float = math.inf
) -> tuple[MemoryLink, MemoryLink]:
    """Create two connected links.

    Args:
        handshake: the handshake of both ends.
        capacity: number of frames in each direction that may be in transit before a write waits.
    """
    to_far, from_near = trio.open_memory_channel[Frame](capacity)
    to_near, from_far = trio.open_memory_channel[Frame](capacity)
    return MemoryLink(handshake, to_far, from_far), MemoryLink(handshake, to_near, from_near)


class MemoryTransport(Transport):
    """Connects to the caller of :meth:`accept` in the same process.

    Args:
        capacity: number of frames in each direction that may be in transit before a write waits.
        subprotocol: the subprotocol that every connection negotiates.
    """

    capabilities: Capabilities = Capabilities(fragments=True)

    def __init__(self, *, capacity: float = math.inf, subprotocol: str | None = None) -> None:
        self._capacity = capacity
        self._subprotocol = subprotocol
        self._refusals: list[Exception] = []
        self._far, self._accepted = trio.open_memory_channel[MemoryLink](math.inf)
        self.dialed: list[DialOptions] = []
        """The options of every attempt, oldest first."""

    def refuse_next(self, error: Exception | None = None) -> None:
        """Make the next attempt fail with ``error``, by default a :class:`ConnectFailed`."""
        self._refusals.append(error or ConnectFailed("refused by the test"))

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:  # noqa: ARG002 - the interface
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
        near.fragments = options.fragments
        self._far.send_nowait(far)
        return near

    async def accept(self) -> MemoryLink:
        """Wait for the far link of the next connection, in the order of the attempts."""
        return await self._accepted.receive()


def _add(events: list[Event], frame: Frame) -> None:
    match frame:
        case Ping() | Pong() | Close():
            events.append(frame)
        case PreparedMessage():
            _add(events, frame.message)
        case Fragment():
            raise AssertionError("the link joins fragments")
        case _:
            message = frame if isinstance(frame, str) else bytes(frame)
            if events and isinstance(events[-1], list):
                events[-1].append(message)
            else:
                events.append([message])


def _size(item: Frame) -> int:
    """Estimate the bytes on the wire: the payload and two bytes for the frame."""
    match item:
        case Ping(payload) | Pong(payload):
            return 2 + len(payload)
        case PreparedMessage() | Fragment():
            return 2 + item.size
        case str() | bytes() | bytearray() | memoryview():
            return 2 + len(item)
        case _:
            return 4
