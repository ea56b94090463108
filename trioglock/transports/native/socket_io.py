"""The wire: a plain socket, read and written with no more scheduler passes than it needs.

``trio.SocketStream`` asks the scheduler once per call, whether or not the call has waited. A
connection asks it once per batch already, and the rest would be a third of an echo's time.
"""

from __future__ import annotations

import os

import trio

__all__ = ["SocketWire", "Wire", "wire_for"]


class SocketWire(trio.abc.AsyncResource):
    """What a link needs of a stream, for a stream that is a socket.

    The descriptor is asked for at every call: one that was closed meanwhile is an OSError, never
    somebody else's file.

    Args:
        stream: open, and used by nobody else.
    """

    __slots__ = ("_empty", "_many", "_socket", "_stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._empty = True  # the last read took all there was
        self._many = False  # and that was as much as was asked for

    async def receive_some(self, max_bytes: int) -> bytes:
        """The next bytes; none at the end of the stream. Always lets other tasks run.

        Args:
            max_bytes: to be read; four times as many while the peer sends more than that at a
                time, so that a large message is seldom cut in two.
        """
        size = 4 * max_bytes if self._many else max_bytes
        while True:
            if self._empty:
                await trio.lowlevel.wait_readable(self._socket)
            else:
                await trio.lowlevel.checkpoint()
            try:
                data = os.read(self._socket.fileno(), size)
            except BlockingIOError:
                self._empty = True
            else:
                self._empty = len(data) < size
                self._many = len(data) >= max_bytes
                return data

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all of it; lets other tasks run only if the socket is full."""
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self.send_now(data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            while sent < len(view):
                await trio.lowlevel.wait_writable(self._socket)
                with view[sent:] as rest:
                    sent += self.send_now(rest)

    def send_now(self, data: bytes | memoryview) -> int:
        """Write what can be written without waiting; how many bytes that was."""
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


Wire = trio.abc.Stream | SocketWire
"""How a link reads and writes bytes."""


def wire_for(stream: trio.abc.Stream) -> Wire:
    """The fastest way to read and write ``stream``."""
    # A subclass may do anything; and elsewhere a socket is no file.
    if os.name == "posix" and stream.__class__ is trio.SocketStream:
        return SocketWire(stream)
    return stream
