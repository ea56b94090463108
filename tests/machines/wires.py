"""Both ends of a link: in memory, or on a pair of sockets with and without TLS."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import trio

from tests.transports.servers import client_context, server_context
from trioglock.frames import Event, Frame, Violation
from trioglock.testing import MemoryLink
from trioglock.transports import Handshake, Link, LinkBroken
from trioglock.transports.native.decoder import Decoder
from trioglock.transports.native.encoder import Encoder
from trioglock.transports.native.link import NativeLink
from trioglock.transports.tls import TLSSocketIO

__all__ = ["RESET", "VIOLATION", "Far", "Wire", "memory_wire", "socket_wire"]

VIOLATION = "!violation"
"""Instead of this message the far end sends bytes that violate the protocol."""

RESET = "!reset"
"""Instead of this message the far end breaks the stream."""


class Far(Protocol):
    """The link of the peer."""

    async def receive(self) -> list[Event]: ...

    async def write(self, frames: Sequence[Frame]) -> None: ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Wire:
    """Both ends, and whether something waits to be read at the near end."""

    near: Link
    far: Far
    has_unread: Callable[[], bool]


# In memory.


class _NearMemoryLink(MemoryLink):
    """Receives the message VIOLATION as a violation of the protocol; RESET breaks the stream."""

    _violated = False
    _reset = False

    def has_unread(self) -> bool:
        statistics = self._incoming.statistics()
        return bool(statistics.current_buffer_used or statistics.tasks_waiting_send)

    async def receive(self) -> list[Event]:
        while not (self._violated or self._reset):
            received = await super().receive()
            events = self._translate(received)
            if events or not received:
                return events
        if self._reset:
            await trio.lowlevel.checkpoint()
            raise LinkBroken("reset by the scenario") from ConnectionResetError()
        # After a violation only the end of the stream is read.
        while await super().receive():
            pass
        return []

    def _translate(self, received: list[Event]) -> list[Event]:
        events: list[Event] = []
        for event in received:
            for at, message in enumerate(event if isinstance(event, list) else ()):
                self._reset = message == RESET
                self._violated = message == VIOLATION
                if self._reset or self._violated:
                    before = event[:at]  # type: ignore[index]
                    events += [before] if before else []
                    return events + [Violation(1002, "caused by the scenario")] * self._violated
            events.append(event)
        return events


def memory_wire(handshake: Handshake, capacity: float) -> Wire:
    """Connect two memory links.

    Args:
        handshake: the handshake of both links.
        capacity: the number of frames that fit into each direction.
    """
    to_far, from_near = trio.open_memory_channel[Frame](capacity)
    to_near, from_far = trio.open_memory_channel[Frame](capacity)
    near = _NearMemoryLink(handshake, to_far, from_far)
    return Wire(near, MemoryLink(handshake, to_near, from_near), near.has_unread)


# On sockets.


class _FarSocketLink(NativeLink):
    """The server's end of a link, which can also violate the protocol and break the stream."""

    __slots__ = ("_reading", "_stream")

    def __init__(self, stream: trio.abc.HalfCloseableStream, handshake: Handshake) -> None:
        decoder = Decoder(masked=True, max_size=None, deflate=None)
        super().__init__(stream, handshake, decoder, Encoder(mask=False, deflate=None))
        self._stream = stream
        self._reading = trio.Lock()

    async def receive(self) -> list[Event]:
        async with self._reading:
            return await super().receive()

    async def write(self, frames: Sequence[Frame]) -> None:
        if RESET in frames:
            await self.aclose()
        elif VIOLATION in frames:
            try:
                await self._stream.send_all(b"\xff\xff")  # reserved bits, reserved opcode
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
                raise LinkBroken(str(error)) from error
        else:
            await super().write(frames)

    async def send_eof(self) -> None:
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise LinkBroken(str(error)) from error


async def socket_wire(handshake: Handshake, capacity: float, *, encrypted: bool) -> Wire:
    """Connect two native links by a pair of sockets.

    What one end writes can be read at the other immediately, so a mock clock can be used.

    Args:
        handshake: the handshake of both links.
        capacity: the buffers are as small as the system allows, unless this is infinite.
        encrypted: whether TLS is used.
    """
    near_end, far_end = socket.socketpair()
    if capacity < math.inf:
        for end in (near_end, far_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    streams = [
        trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in (near_end, far_end)
    ]
    near, far = await _start_tls(*streams) if encrypted else streams
    decoder = Decoder(masked=False, max_size=None, deflate=None)
    link = NativeLink(near, handshake, decoder, Encoder(mask=True, deflate=None))
    return Wire(link, _FarSocketLink(far, handshake), lambda: _has_unread(near_end))


async def _start_tls(
    near: trio.SocketStream, far: trio.SocketStream
) -> tuple[TLSSocketIO, TLSSocketIO]:
    client, server = _contexts()
    near_io = TLSSocketIO(near, client, server_hostname="127.0.0.1")
    far_io = TLSSocketIO(far, server, server_side=True)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near_io.do_handshake)
            nursery.start_soon(far_io.do_handshake)
    except BaseException:
        await trio.aclose_forcefully(near_io)
        await trio.aclose_forcefully(far_io)
        raise
    return near_io, far_io


@cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return client_context(), server_context()


def _has_unread(end: socket.socket) -> bool:
    try:
        return bool(end.recv(1, socket.MSG_PEEK))
    except OSError:  # nothing, or closed
        return False
