"""Reads and writes a socket with no more passes through the scheduler than necessary.

Every call of ``trio.SocketStream`` runs the scheduler, whether or not the call has to wait. A
connection runs it once per batch already; more would take a third of an echo's time.
"""

from __future__ import annotations

import os

import trio

__all__ = ["ByteIO", "SocketIO", "choose_io"]


class SocketIO(trio.abc.AsyncResource):
    """The methods of a stream that a link needs, for a stream that is a socket.

    Every call asks for the descriptor: if the socket was closed meanwhile, an OSError is raised
    and no other file is touched.

    Args:
        stream: the open stream, which only this object uses.
    """

    __slots__ = ("_empty", "_many", "_socket", "_stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._empty = True  # the last read left nothing in the socket
        self._many = False  # the last read filled its buffer

    async def receive_some(self, max_bytes: int) -> bytes:
        """Read the next bytes, b"" at the end of the stream. Always a checkpoint.

        Args:
            max_bytes: size of the read; four times as much while the peer fills that size, so that
                large messages are rarely split.
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
        """Write all bytes; a scheduling point only if the socket buffer is full."""
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
        """Write without waiting; return the number of bytes written."""
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def aclose(self) -> None:
        await self._stream.aclose()


ByteIO = trio.abc.Stream | SocketIO
"""The interface through which a link reads and writes bytes."""


def choose_io(stream: trio.abc.Stream) -> ByteIO:
    """Return the fastest object to read and write ``stream`` with."""
    # A subclass may override anything; and on Windows a socket is not a file.
    if os.name == "posix" and stream.__class__ is trio.SocketStream:
        return SocketIO(stream)
    return stream
