"""The two directions of a connection through :class:`FaultProxy`, and in-memory sockets."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import trio
import trio.testing

__all__ = ["CHUNK_SIZE", "MemorySocket", "Pipe", "PipeFaults", "Transform", "memory_socket_pair"]

CHUNK_SIZE = 2**16

BUFFER_SIZE = 2**16
"""Number of buffered bytes at which a pipe stops reading."""

WINDOW_SIZE = 2**16
"""Bytes that one end of a memory socket may send before the other end receives them."""

WRITES_PER_SECOND = 10
"""The number of writes per second of a throttled pipe, so that it makes steady progress."""

Transform: TypeAlias = Callable[[bytes], bytes]
"""Returns the replacement for a chunk of bytes."""

End: TypeAlias = Literal["eof", "reset"]


@dataclass(slots=True, kw_only=True)
class PipeFaults:
    """The faults of one direction, which a test may change at any time."""

    delay: float = 0.0
    rate: float | None = None
    """Bytes per second."""
    max_write: int | None = None
    transform: Transform | None = None
    stalled: bool = False
    remaining: int | None = None
    """Bytes that may still be forwarded before the connection is closed."""
    flips: dict[int, int] = field(default_factory=dict)
    """Masks of bits to flip, by the position of the byte."""
    passed: int = 0
    """Bytes written so far."""
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def copy(self) -> PipeFaults:
        """Return the same faults for a new connection."""
        return replace(self, flips=dict(self.flips), changed=trio.lowlevel.ParkingLot())

    def reset(self) -> None:
        """Remove all faults."""
        self.delay, self.stalled = 0.0, False
        self.rate = self.max_write = self.transform = self.remaining = None
        self.flips.clear()
        self.changed.unpark_all()

    def limit_write(self, size: int) -> int:
        """Return how many of ``size`` bytes to write next."""
        by_rate = None if self.rate is None else max(1, int(self.rate / WRITES_PER_SECOND))
        limits = (size, self.max_write, by_rate, self.remaining)
        return min(limit for limit in limits if limit is not None)

    def apply(self, data: bytes) -> bytes:
        """Count the bytes written next, and return them with their bits flipped."""
        flipped = bytearray(data)
        for position in [at for at in self.flips if at < self.passed + len(data)]:
            flipped[position - self.passed] ^= self.flips.pop(position)
        self.passed += len(data)
        if self.remaining is not None:
            self.remaining -= len(data)
        return bytes(flipped)


class Pipe:
    """Forwards the bytes of one direction, in one task that reads and one that writes.

    A pipe calls ``disconnect`` when the limit of bytes is reached, and ``reset`` after the last
    byte if the source broke.
    """

    def __init__(
        self,
        faults: PipeFaults,
        source: trio.abc.Stream,
        destination: trio.abc.Stream,
        disconnect: Callable[[], None],
        reset: Callable[[], None],
    ) -> None:
        self.waiting: int = 0
        """Bytes read and not yet written."""
        self._faults = faults
        self._source = source
        self._destination = destination
        self._disconnect = disconnect
        self._reset = reset
        self._queue: deque[tuple[float, bytes | End]] = deque()
        self._space = trio.lowlevel.ParkingLot()
        self._write_scope = trio.CancelScope()
        self._closed = False
        self._last_write = -math.inf

    def close(self) -> None:
        """End the destination's stream and discard all further bytes from the source."""
        self._closed = True
        self._queue.clear()
        self.waiting = 0
        self._space.unpark_all()
        self._write_scope.cancel()

    async def read(self) -> None:
        """Read until the source ends or breaks."""
        end: End = "eof"
        try:
            while data := await self._source.receive_some(CHUNK_SIZE):
                if not self._closed:
                    self.waiting += len(data)
                    self._append(bytes(data))
                while self.waiting >= BUFFER_SIZE:
                    await self._space.park()
        except trio.BrokenResourceError:
            end = "reset"
        except trio.ClosedResourceError:
            pass  # the other direction closed a stream that does not support half-closing
        self._append(end)

    def _append(self, item: bytes | End) -> None:
        self._queue.append((trio.current_time(), item))
        self._faults.changed.unpark_all()

    async def write(self) -> None:
        """Write until the end of the source has been forwarded."""
        try:
            with self._write_scope:
                if await self._write_all() == "reset":
                    self._reset()
                    return
            await self._write_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The other direction may still have bytes to forward.
            self.close()

    async def _write_all(self) -> End:
        while True:
            while not self._queue:
                await self._faults.changed.park()
            arrived, item = self._queue[0]
            await self._wait_until_due(arrived)
            self._queue.popleft()
            if isinstance(item, str):
                return item
            await self._write_chunk(arrived, item)

    async def _write_chunk(self, arrived: float, chunk: bytes) -> None:
        faults = self._faults
        unsettled = len(chunk)
        data = chunk if faults.transform is None else faults.transform(chunk)
        while data:
            size = faults.limit_write(len(data))
            await self._wait_until_due(arrived, size)
            await self._destination.send_all(faults.apply(data[:size]))
            data = data[size:]
            self._last_write = trio.current_time()
            unsettled -= self._settle(min(size, unsettled))
            if faults.remaining == 0:
                self._disconnect()
            # Let the receiver read each write separately.
            await trio.lowlevel.checkpoint()
        self._settle(unsettled)

    def _settle(self, size: int) -> int:
        self.waiting -= size
        if self.waiting < BUFFER_SIZE:
            self._space.unpark_all()
        return size

    async def _wait_until_due(self, arrived: float, size: int = 0) -> None:
        """Wait until ``size`` bytes may be written; the faults may change in the meantime."""
        while trio.current_time() < (due := self._due(arrived, size)):
            with trio.move_on_at(due):
                await self._faults.changed.park()

    def _due(self, arrived: float, size: int) -> float:
        faults = self._faults
        if faults.stalled:
            return math.inf
        start = max(arrived + faults.delay, self._last_write)
        return start if faults.rate is None else start + size / faults.rate

    async def _write_eof(self) -> None:
        if isinstance(self._destination, trio.abc.HalfCloseableStream):
            await self._destination.send_eof()
        else:
            await self._destination.aclose()


class MemorySocket(trio.abc.HalfCloseableStream):
    """One end of an in-memory connection. Like a TCP socket, it has a window and can be reset."""

    def __init__(
        self,
        inner: trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream],
    ) -> None:
        self.other: MemorySocket = self
        self._inner = inner
        self._unread = 0
        self._is_reset = self._closed = self._sending = False
        self._space = trio.lowlevel.ParkingLot()

    def reset_peer(self) -> None:
        """Reset the connection: received bytes stay readable, and all other calls raise."""
        for end in (self, self.other):
            end._is_reset = True  # noqa: SLF001 - the other end of the same pair
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._inner.send_stream.close()
        self._inner.receive_stream.close()
        self._space.unpark_all()
        self._unread = 0
        self.other._space.unpark_all()  # noqa: SLF001 - as above

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._one_sender(), memoryview(data) as view:
            for start in range(0, len(view) or 1, WINDOW_SIZE):
                part = view[start : start + WINDOW_SIZE]
                await self._wait_space()
                self._check_reset()
                await self._inner.send_all(part)
                self.other._unread += len(part)  # noqa: SLF001 - as above

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._inner.receive_some(max_bytes)
        if not data:
            self._check_reset()
        self._unread -= len(data)
        if self._unread < WINDOW_SIZE:
            self.other._space.unpark_all()  # noqa: SLF001 - as above
        return data

    async def _wait_space(self) -> None:
        while self.other._unread >= WINDOW_SIZE and not self._closed:  # noqa: SLF001 - as above
            await self._space.park()

    @contextmanager
    def _one_sender(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is using this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    def _check_reset(self) -> None:
        if self._is_reset:
            raise trio.BrokenResourceError("connection reset by the proxy")

    async def wait_send_all_might_not_block(self) -> None:
        with self._one_sender():
            await self._wait_space()
            await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        with self._one_sender():
            await self._inner.send_eof()

    async def aclose(self) -> None:
        self._close()
        await trio.lowlevel.checkpoint()


def memory_socket_pair() -> tuple[MemorySocket, MemorySocket]:
    """Return two connected sockets."""
    near, far = map(MemorySocket, trio.testing.memory_stream_pair())
    near.other, far.other = far, near
    return near, far
