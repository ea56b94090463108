"""Reads and writes a socket with no more passes through the scheduler than necessary.

Every call of ``trio.SocketStream`` runs the scheduler, whether or not the call has to wait. A
connection already runs it once per batch; more runs would take a third of an echo's time.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import TypeAlias

import trio

__all__ = ["ByteIO", "NonblockingIO", "SocketIO", "choose_io", "open_fd"]


class NonblockingIO(trio.abc.AsyncResource):
    """Reads and writes the bytes of a link on a file descriptor, with or without waiting.

    Once the descriptor is closed, every method except :meth:`aclose` raises an OSError and never
    touches another file that has been given the same number.
    """

    __slots__ = ()

    pending: bool = False
    """Whether received bytes are held in this object, so that the descriptor need not become
    readable before :meth:`read_now` returns them."""

    @abstractmethod
    def fileno(self) -> int:
        """Return the descriptor, -1 if it is closed."""

    @abstractmethod
    def read_now(self, max_bytes: int) -> bytes | None:
        """Read without waiting.

        Args:
            max_bytes: size of the read; after a read of that size, an implementation may read
                more, so that large messages are rarely split.

        Returns:
            The next bytes; b"" at the end of the stream; None if there is nothing to read now.

        Raises:
            OSError: the stream broke.
        """

    @abstractmethod
    def send_now(self, data: bytes | memoryview) -> int:
        """Write without waiting; return the number of bytes written.

        Raises:
            OSError: the stream broke.
        """

    @abstractmethod
    async def receive_some(self, max_bytes: int) -> bytes:
        """Read the next bytes, b"" at the end of the stream. Always a checkpoint.

        Args:
            max_bytes: as in :meth:`read_now`.

        Raises:
            OSError, trio.ClosedResourceError: the stream broke.
        """

    @abstractmethod
    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all bytes; a checkpoint only if the socket buffer is full.

        Raises:
            OSError, trio.ClosedResourceError: the stream broke.
        """


class SocketIO(NonblockingIO):
    """A plain socket.

    Args:
        stream: the open stream, which only this object uses.
    """

    __slots__ = ("_empty", "_many", "_socket", "_stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self._empty = True  # the last read left nothing in the socket
        self._many = False  # the last read filled its buffer

    def fileno(self) -> int:
        return self._socket.fileno()

    def read_now(self, max_bytes: int) -> bytes | None:
        size = 4 * max_bytes if self._many else max_bytes
        try:
            data = os.read(self._socket.fileno(), size)
        except BlockingIOError:
            self._empty = True
            return None
        self._empty = len(data) < size
        self._many = len(data) >= max_bytes
        return data

    async def receive_some(self, max_bytes: int) -> bytes:
        while True:
            if self._empty:
                await trio.lowlevel.wait_readable(open_fd(self._socket))
            else:
                await trio.lowlevel.checkpoint()
            data = self.read_now(max_bytes)
            if data is not None:
                return data

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self.send_now(data)
        if sent == len(data):
            return
        with memoryview(data) as view:
            while sent < len(view):
                await trio.lowlevel.wait_writable(open_fd(self._socket))
                with view[sent:] as rest:
                    sent += self.send_now(rest)

    def send_now(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def aclose(self) -> None:
        await self._stream.aclose()


def open_fd(sock: trio.socket.SocketType) -> int:
    """Return the descriptor of a socket.

    If it is closed, trio's wait functions fail with misleading errors.

    Raises:
        trio.ClosedResourceError: the socket is closed.
    """
    fd = sock.fileno()
    if fd == -1:
        raise trio.ClosedResourceError("the socket was closed")
    return fd


ByteIO: TypeAlias = trio.abc.Stream | NonblockingIO
"""A trio stream, or an object of this package that reads and writes a socket without waiting."""


def choose_io(stream: trio.abc.Stream) -> ByteIO:
    """Return the fastest object to read and write ``stream`` with."""
    if isinstance(stream, NonblockingIO):
        return stream
    # A subclass may override methods, and on Windows a socket is not a file.
    if os.name == "posix" and stream.__class__ is trio.SocketStream:
        return SocketIO(stream)
    return stream
