"""A pair of streams in memory that can be reset, and that are full at some point, as TCP's are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio
import trio.testing

__all__ = ["MemorySocket", "memory_socket_pair"]

# Bytes that one end may send and the other has not received.
WINDOW = 2**16

Inner = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class MemorySocket(trio.abc.HalfCloseableStream):
    """One end; what trio's own memory streams lack is added around them."""

    def __init__(self, inner: Inner) -> None:
        self.other: MemorySocket = self
        self._inner = inner
        self._unread = 0
        self._reset = self._closed = self._sending = False
        self._room = trio.lowlevel.ParkingLot()

    def reset_peer(self) -> None:
        """End both ends at once: what has arrived stays readable, everything else breaks."""
        for end in (self, self.other):
            end._reset = True  # noqa: SLF001 - the other end of the same pair
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._inner.send_stream.close()
        self._inner.receive_stream.close()
        self._room.unpark_all()
        self._unread = 0
        self.other._room.unpark_all()  # noqa: SLF001 - as above

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See :class:`trio.abc.SendStream`; waits while the window is full."""
        with self._one_sender(), memoryview(data) as view:
            for start in range(0, len(view) or 1, WINDOW):
                part = view[start : start + WINDOW]
                await self._wait_room()
                self._check()
                await self._inner.send_all(part)
                self.other._unread += len(part)  # noqa: SLF001 - as above

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See :class:`trio.abc.ReceiveStream`."""
        data = await self._inner.receive_some(max_bytes)
        if not data:
            self._check()
        self._unread -= len(data)
        if self._unread < WINDOW:
            self.other._room.unpark_all()  # noqa: SLF001 - as above
        return data

    async def _wait_room(self) -> None:
        while self.other._unread >= WINDOW and not self._closed:  # noqa: SLF001 - as above
            await self._room.park()

    @contextmanager
    def _one_sender(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is using this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    def _check(self) -> None:
        if self._reset:
            raise trio.BrokenResourceError("connection reset by the proxy")

    async def wait_send_all_might_not_block(self) -> None:
        """See :class:`trio.abc.SendStream`."""
        with self._one_sender():
            await self._wait_room()
            await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """See :class:`trio.abc.HalfCloseableStream`."""
        with self._one_sender():
            await self._inner.send_eof()

    async def aclose(self) -> None:
        """See :class:`trio.abc.AsyncResource`."""
        self._close()
        await trio.lowlevel.checkpoint()


def memory_socket_pair() -> tuple[MemorySocket, MemorySocket]:
    """Two ends that are each other's peer."""
    near, far = map(MemorySocket, trio.testing.memory_stream_pair())
    near.other, far.other = far, near
    return near, far
