"""The outbox: frames that wait for the writer task."""

from __future__ import annotations

from collections import deque

import trio

from ..errors import InvalidFrame
from ..frames import Close, Data, Frame, Ping, Pong

__all__ = ["Outbox", "checked_frame"]

# One write carries about this many bytes at the most, unless a single frame is larger.
BATCH = 2**16

# Pongs that the peer is too slow to read; RFC 6455, section 5.5.3, lets older ones go.
MAX_URGENT = 128

OutFrame = Data | Ping | Pong | Close


class Outbox:
    """A queue bounded in bytes: many fillers, and the writer task that empties it in batches.

    Pings and pongs overtake data; the Close frame is the last to leave.

    Args:
        limit: the high-water mark in bytes of payload. A sender waits while so much is queued;
            what hooks reply is always taken, and holds the reader task back instead.
    """

    def __init__(self, limit: int) -> None:
        self.size: int = 0
        """Bytes of payload that are queued or being written."""
        self.closed: bool = False
        """Nothing more is taken: a Close frame is queued, or the connection has ended."""
        self.writing: bool = False
        """Whether a batch is with the writer task."""
        self.batches: int = 0
        """Batches that were written."""
        self._limit = limit
        self._data: deque[Data] = deque()
        self._urgent: deque[Ping | Pong] = deque(maxlen=MAX_URGENT)
        self._close: Close | None = None
        self._writing = 0  # bytes of payload with the writer task
        self._queued = 0  # data frames ever queued
        self.written: int = 0
        """Data frames ever written."""
        self._cut = False
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._flushes = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._data)

    @property
    def full(self) -> bool:
        """Whether a sender has to wait."""
        return self.size >= self._limit

    def put(self, frame: Frame) -> None:
        """Queue one frame.

        Raises:
            InvalidFrame: it is neither text, nor bytes-like, nor a control frame.
        """
        kind = frame.__class__
        if kind is str or kind is bytes:
            self.size += _size(frame)  # type: ignore[arg-type]
            self._data.append(frame)  # type: ignore[arg-type]
            self._queued += 1
        elif kind is Ping or kind is Pong:
            self._urgent.append(frame)  # type: ignore[arg-type]
        elif kind is Close:
            self.close(frame)  # type: ignore[arg-type]
            return
        else:
            self.put(checked_frame(frame))
            return
        if self._work:
            self._work.unpark()

    def close(self, frame: Close) -> None:
        """Queue the Close frame behind the data and take nothing more."""
        self.closed = True
        self._close = frame
        self._work.unpark_all()
        self._room.unpark_all()

    def drop_data(self) -> tuple[Data, ...]:
        """Take away all data that is not being written; it will never be sent."""
        dropped = tuple(self._data)
        self._data.clear()
        self.size = self._writing
        self._cut = True
        self._room.unpark_all()
        self._flushes.unpark_all()
        return dropped

    def open_gates(self) -> None:
        """Let whoever waits for room look again: the connection is closing."""
        self._room.unpark_all()

    def end(self) -> None:
        """Wake every waiter: the connection has ended."""
        self.closed = self._cut = True
        self._room.unpark_all()
        self._flushes.unpark_all()

    # The writer task's side.

    def take(self) -> list[OutFrame]:
        """The next batch, pings and pongs first; empty if nothing waits."""
        batch: list[OutFrame] = []
        if self._urgent:
            batch.extend(self._urgent)
            self._urgent.clear()
        data = self._data
        if self.size <= BATCH:
            self._writing = self.size
            batch.extend(data)
            data.clear()
        else:
            size = 0
            while data and (not size or size + _size(data[0]) <= BATCH):
                size += _size(data[0])
                batch.append(data.popleft())
            self._writing = size
        if self._close is not None and not data:
            batch.append(self._close)
            self._close = None
        self.writing = bool(batch)
        return batch

    def wrote(self) -> None:
        """Tell that the batch is with the operating system."""
        self.size -= self._writing
        self._writing = 0
        self.writing = False
        self.batches += 1
        self.written = self._queued - len(self._data)
        if self._flushes:
            self._flushes.unpark_all()
        if self._room and self.size < self._limit:
            self._room.unpark_all()

    async def wait_work(self) -> None:
        """Wait until there may be something to take."""
        await self._work.park()

    # The senders' side.

    async def wait_room(self) -> None:
        """Wait until there may be room; then look again."""
        await self._room.park()

    async def wait_flushed(self) -> bool:
        """Wait until what is queued now is written; False if it never will be."""
        mark = self._queued
        while self.written < mark:
            if self._cut:
                return False
            await self._flushes.park()
        return True


def checked_frame(frame: Frame) -> OutFrame:
    """What to queue for something to be sent; the content of a mutable buffer is copied.

    Raises:
        InvalidFrame: it is neither text, nor bytes-like, nor a control frame.
    """
    if isinstance(frame, str):
        frame = str(frame)
        _size(frame)
        return frame
    if isinstance(frame, Ping | Pong | Close):
        return frame
    if isinstance(frame, bytes | bytearray | memoryview):
        # A copy: the buffer may change before the writer task gets to it.
        return bytes(frame)
    raise InvalidFrame(
        "a frame is str, bytes-like, Ping, Pong or Close, "
        f"not {type(frame).__name__}: {frame!r:.100}"
    )


def _size(frame: Data) -> int:
    """Bytes of payload that count against the limit.

    Raises:
        InvalidFrame: text with lone surrogates has no UTF-8.
    """
    if isinstance(frame, str):
        if frame.isascii():
            return len(frame)
        try:
            return len(frame.encode())
        except UnicodeEncodeError as error:
            raise InvalidFrame(f"text that is not valid Unicode: {error}") from None
    return len(frame)
