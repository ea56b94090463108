"""A pump: carries the bytes of one direction from one stream to another, as its way says."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Literal

import trio

from .way import Way

__all__ = ["Pump"]

CHUNK = 2**16

# Bytes that may wait in a pump before it stops reading.
BUFFER = 2**16

End = Literal["end", "reset"]


class Pump:
    """One direction of one connection, with a task that reads and one that writes.

    Args:
        way: its faults, looked at anew for every piece.
        source: read until it ends.
        destination: written to; its end is only ever half a close.
        cut: called once the way's number of bytes has passed.
        reset: called when the source broke, in the order of the stream.
    """

    def __init__(
        self,
        way: Way,
        source: trio.abc.Stream,
        destination: trio.abc.Stream,
        cut: Callable[[], None],
        reset: Callable[[], None],
    ) -> None:
        self.waiting: int = 0
        """Bytes that have been read and have not left."""
        self._way = way
        self._source = source
        self._destination = destination
        self._cut = cut
        self._reset = reset
        self._queue: deque[tuple[float, bytes | End]] = deque()
        self._room = trio.lowlevel.ParkingLot()
        self._writing = trio.CancelScope()
        self._ended = False
        self._free_at = -math.inf

    def end(self) -> None:
        """Let the destination's stream end now; whatever the source still says is lost."""
        self._ended = True
        self._queue.clear()
        self.waiting = 0
        self._room.unpark_all()
        self._writing.cancel()

    # The reading task.

    async def read(self) -> None:
        """Read until the source ends or breaks."""
        end: End = "end"
        try:
            while data := await self._source.receive_some(CHUNK):
                if not self._ended:
                    self.waiting += len(data)
                    self._append(bytes(data))
                while self.waiting >= BUFFER:
                    await self._room.park()
        except trio.BrokenResourceError:
            end = "reset"
        except trio.ClosedResourceError:
            pass  # the other direction has ended a stream that cannot be ended by half
        self._append(end)

    def _append(self, item: bytes | End) -> None:
        self._queue.append((trio.current_time(), item))
        self._way.notify()

    # The writing task.

    async def write(self) -> None:
        """Write until the end has been handed on."""
        try:
            with self._writing:
                if await self._write_all() == "reset":
                    self._reset()
                    return
            await self._write_end()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The other direction may still have something to say.
            self.end()

    async def _write_all(self) -> End:
        while True:
            while not self._queue:
                await self._way.changed.park()
            arrived, item = self._queue[0]
            await self._wait_turn(arrived)
            self._queue.popleft()
            if isinstance(item, str):
                return item
            await self._write_chunk(arrived, item)

    async def _write_chunk(self, arrived: float, chunk: bytes) -> None:
        way = self._way
        owed = len(chunk)
        data = chunk if way.change is None else way.change(chunk)
        while data:
            size = way.next_size(len(data))
            await self._wait_turn(arrived, size)
            await self._destination.send_all(way.take(data[:size]))
            data = data[size:]
            self._free_at = trio.current_time()
            owed -= self._settle(min(size, owed))
            if way.left == 0:
                self._cut()
            # Whoever reads gets each piece by itself.
            await trio.lowlevel.checkpoint()
        self._settle(owed)

    def _settle(self, size: int) -> int:
        self.waiting -= size
        if self.waiting < BUFFER:
            self._room.unpark_all()
        return size

    async def _wait_turn(self, arrived: float, size: int = 0) -> None:
        """Wait until ``size`` bytes that arrived then may leave; faults may change meanwhile."""
        while trio.current_time() < (due := self._due(arrived, size)):
            with trio.move_on_at(due):
                await self._way.changed.park()

    def _due(self, arrived: float, size: int) -> float:
        way = self._way
        if way.stalled:
            return math.inf
        begin = max(arrived + way.delay, self._free_at)
        return begin if way.rate is None else begin + size / way.rate

    async def _write_end(self) -> None:
        if isinstance(self._destination, trio.abc.HalfCloseableStream):
            await self._destination.send_eof()
        else:
            await self._destination.aclose()
