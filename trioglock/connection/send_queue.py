"""The send queue: frames that wait for the writer task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from ..frames import Close, Data, Frame, Ping, Pong, PreparedMessage
from ._sync import Waiters
from .outgoing import Message, OutFrame, checked_frame, plain, size_of, urgent_size

__all__ = ["SendQueue"]

# One write carries about this many bytes at the most, unless a single frame is larger.
BATCH = 2**16

# Pongs for a peer that is too slow to read them; RFC 6455, section 5.5.3, lets older ones go.
MAX_PONGS = 128


class SendQueue:
    """A queue bounded in bytes: many fillers, and the writer task that empties it in batches.

    Pings and pongs overtake data; the Close frame is the last to leave, but for pongs. The queue
    outlives its links: what one link did not take, the next one gets.

    Args:
        limit: the high-water mark in bytes of payload. A sender waits while so much is queued;
            what hooks reply is always taken, and holds the reader task back instead.
    """

    __slots__ = (
        "_batch",
        "_close",
        "_close_first",
        "_corked",
        "_cut",
        "_data",
        "_done",
        "_dropped",
        "_flushes",
        "_greeting",
        "_held",
        "_limit",
        "_lost",
        "_pongs",
        "_put_now",
        "_queued",
        "_room",
        "_urgent",
        "_wake",
        "_watched",
        "_write_now",
        "_writing",
        "batches",
        "close_left",
        "closed",
        "doubtful",
        "eager",
        "gone",
        "idle",
        "in_doubt",
        "size",
        "watched_at",
        "writing",
        "written",
    )

    def __init__(self, limit: int) -> None:
        self.size: int = 0
        """Bytes of payload that are queued or being written."""
        self.closed: bool = False
        """Nothing more is taken: the connection is closing or has ended."""
        self.writing: bool = False
        """Whether a batch is with the writer task."""
        self.batches: int = 0
        """Batches that were written."""
        self.written: int = 0
        """Data frames ever handed to the operating system."""
        self.doubtful: int = 0
        """Data frames that were being written when a link broke: sent or not, nobody can tell."""
        self.in_doubt: tuple[Data, ...] = ()
        """Those of the present or latest link."""
        self.watched_at: float | None = None
        """When what was queued before :meth:`watch` had left, on trio's clock; None: it has not."""
        self._watched = math.inf
        self.gone: bool = False
        """Whether the link can carry nothing more; another one may."""
        self.idle: bool = False
        """Whether there is a writer, and it has nothing to do: whoever queues wakes it."""
        self.eager: bool = False
        """Whether what is queued next may leave on the spot."""
        self._wake: Callable[[], None] = _nobody
        # Of the link that is there; the first is None while nothing may overtake what waits.
        self._write_now: Callable[[Message], bool] | None = None
        self._put_now: Callable[[Message], bool] | None = None
        self._corked = False
        self._limit = limit
        self._greeting: list[Message] = []
        self._data: list[Message] = []
        self._urgent: list[OutFrame] = []
        self._pongs: list[Pong] = []
        self._close: Close | None = None
        self._close_first = False
        self.close_left: bool = False
        """Whether the Close frame has been taken to be written."""
        self._held = False
        self._writing = 0  # bytes of payload with the writer task
        self._batch: list[Message] = []  # and data frames
        self._queued = 0  # data frames ever queued
        self._dropped = 0  # and never sent
        self._done = 0  # data frames ever written or in doubt
        self._lost = (0, 0)  # the latest of them in doubt: after which, and up to which
        self._cut = False
        self._room = Waiters()
        self._flushes = Waiters()

    def __len__(self) -> int:
        return len(self._data)

    @property
    def full(self) -> bool:
        """Whether a sender has to wait."""
        return self.size >= self._limit

    # Filling it.

    def put(self, frame: Frame) -> None:
        """Queue one frame other than Close.

        Raises:
            InvalidFrame: it is neither text, nor bytes-like, nor a control frame.
        """
        kind = frame.__class__
        if kind is str or kind is bytes:
            plain = kind is bytes or frame.isascii()  # type: ignore[union-attr]
            size = len(frame) if plain else size_of(frame)  # type: ignore[arg-type]
        elif kind is PreparedMessage:
            size = frame.size  # type: ignore[union-attr]
        elif kind is Ping or kind is Pong:
            self.put_urgent(frame)  # type: ignore[arg-type]
            return
        else:
            self.put(checked_frame(frame))
            return
        self._queued += 1
        if self.idle and self.eager and self._write_now is not None:
            self._put_through(frame, size)  # type: ignore[arg-type]
            return
        self.size += size
        self._data.append(frame)  # type: ignore[arg-type]
        if self.idle:
            self._wake()

    def put_prepared(self, frame: PreparedMessage, *, immediate: bool) -> bool:
        """Queue one of many, unless there is no room; whether it was queued.

        Args:
            frame: the same for all.
            immediate: it may leave on the spot.
        """
        if self.closed or self.size >= self._limit:
            return False
        self._queued += 1
        if self.idle and self._write_now is not None and (immediate or self.eager):
            self._put_through(frame, frame.size)
            return True
        self.size += frame.size
        self._data.append(frame)
        if self.idle:
            self._wake()
        return True

    def _put_through(self, frame: Message, size: int) -> None:
        """Let a frame that finds nothing before it leave on the spot, without queueing."""
        assert self._write_now is not None
        self.eager = False
        if self._write_now(frame):
            self.written += 1
            self._count_batch()
        else:
            self.writing = True
            self._batch, self._writing = [frame], size
            self.size += size
            self._wake()

    def put_urgent(self, frame: OutFrame) -> None:
        """Queue a frame that overtakes data."""
        self.size += urgent_size(frame)
        self._urgent.append(frame)
        if self.idle:
            self._wake()

    def pong(self, frame: Pong) -> None:
        """Queue the answer to a ping."""
        self._pongs.append(frame)
        del self._pongs[:-MAX_PONGS]
        if self.idle:
            self._wake()

    def greet(self, frames: Sequence[OutFrame]) -> None:
        """Queue what ``handle_connect`` replies: ahead of what has waited, for this link only."""
        for frame in frames:
            if isinstance(frame, Message):
                self.size += size_of(frame)
                self._greeting.append(frame)
            else:
                self.put_urgent(frame)
        # They are not counted as queued, so that what a flush waits for is still behind them.
        self._done = self._taken()

    def discard(self) -> tuple[Data, ...]:
        """Take back what is queued and not being written; a flush of it fails."""
        taken = tuple(map(plain, self._data))
        self.size -= sum(map(size_of, self._data))
        self._data.clear()
        self._lose()
        if self.size < self._limit:
            self._room.unpark_all()
        return taken

    async def wait_room(self) -> None:
        """Wait until there may be room; then look again."""
        await self._room.park()

    def flush_marks(self) -> tuple[int, int]:
        """What :meth:`wait_flushed` is to wait for: all that is queued or being written now."""
        # What was in doubt before is not in doubt again, though put_first() moves the count back.
        return max(self._done, self._lost[1]), self._queued

    async def wait_flushed(self, marks: tuple[int, int]) -> bool:
        """Wait until it is written; False if it was lost or never will be."""
        begin, mark = marks
        while self._done < mark:
            if self._cut:
                return False
            await self._flushes.park()
        after, up_to = self._lost
        return not (up_to > begin and after < mark)

    # Ends.

    @property
    def close_waits(self) -> bool:
        """Whether a Close frame is queued that has not left."""
        return self._close is not None

    async def wait_close_written(self) -> None:
        """Wait until the Close frame that is queued has left, or its link is gone."""
        while self._close is not None or self.writing:
            await self._flushes.park()

    def close(self, frame: Close, *, first: bool = False, last: bool = True) -> None:
        """Queue the Close frame.

        Args:
            frame: to be sent.
            first: ahead of the data, which waits for another link or is lost.
            last: nothing more is taken: the connection ends with this link.
        """
        self.closed = self.closed or last
        self._close = frame
        self._close_first = first
        self._write_now = None
        if self.idle:
            self._wake()
        self.open_gates()

    def open_gates(self) -> None:
        """Let whoever waits for room look again: the connection is closing."""
        self._room.unpark_all()

    def refuse(self) -> None:
        """Take nothing more, for the time being; what is queued stays."""
        self.closed = True
        self._room.unpark_all()

    def reopen(self) -> None:
        """Take more again: there will be another link."""
        self.closed = False

    def drop_data(self) -> tuple[Data, ...]:
        """Take away all data that is not being written; it will never be sent."""
        dropped = tuple(map(plain, (*self._greeting, *self._data)))
        self._dropped += len(self._data)
        self._greeting.clear()
        self._data.clear()
        self._urgent.clear()
        self.size = self._writing
        self._cut = True
        self._room.unpark_all()
        self._flushes.unpark_all()
        return dropped

    def end(self) -> None:
        """Take nothing more and wake every waiter: the connection has ended."""
        self.closed = self._cut = True
        self._room.unpark_all()
        self._flushes.unpark_all()

    # The writer task's side.

    def attach(self, wake: Callable[[], None], write_now: Callable[[Message], bool] | None) -> None:
        """A new link: the data is held back until :meth:`release`, what was for the old is gone.

        Args:
            wake: called when something is queued while :attr:`idle`.
            write_now: writes one frame, or begins to, while :attr:`idle` and :attr:`eager`;
                whether all of it has left. None if the link cannot.
        """
        self._wake = wake
        self._put_now = write_now
        self.hurry()
        self.idle = True
        self._held = True
        self.gone = False
        self.close_left = False
        self.in_doubt = ()
        self._pongs.clear()
        self.size -= sum(map(urgent_size, self._urgent)) + sum(map(size_of, self._greeting))
        self._urgent.clear()
        self._greeting.clear()
        self._lose()
        self._close = None
        if self.size < self._limit:
            self._room.unpark_all()

    def release(self) -> None:
        """Let the data go."""
        self._held = False
        if self._close is None and not self.close_left:
            self._write_now = self._put_now
        if self.idle and self.has_work:
            self._wake()

    def detach(self) -> None:
        """The link is gone; the data that was being written is neither sent nor unsent."""
        self._close = None
        self._wake = _nobody
        self._write_now = self._put_now = None
        self.idle = self._corked = False
        self.gone = True
        self._room.unpark_all()
        self._flushes.unpark_all()
        if self.writing:
            self.in_doubt = tuple(map(plain, self._batch))
            self.doubtful += len(self._batch)
            before = self._done
            self._finish_batch()
            self._lose(since=before)

    def _lose(self, *, since: int | None = None) -> None:
        """What is not queued any more has not left for certain."""
        before = self._done if since is None else since
        self._done = self._taken()
        if self._done > before:
            after, up_to = self._lost
            self._lost = (after if up_to == before else before, self._done)
            self._flushes.unpark_all()

    def take(self) -> list[OutFrame]:
        """The next batch, pings and pongs first; empty if nothing may be written."""
        batch: list[OutFrame] = []
        if self._pongs or self._urgent:
            self._take_urgent(batch)
        if self._close is None or not self._close_first:
            self._take_data(batch)
        if self._close is not None and (self._close_first or not (self._data or self._greeting)):
            batch.append(self._close)
            self._close = None
            self.close_left = True
        self.writing = bool(batch)
        return batch

    def _take_data(self, batch: list[OutFrame]) -> None:
        if self._held or self.close_left:
            return
        if self._greeting:
            self._batch, self._greeting = self._greeting, []
            self._writing += sum(map(size_of, self._batch))
        elif self.size <= BATCH:
            self._batch, self._data = self._data, []
            self._writing = self.size
        else:
            self._take_some()
        batch.extend(self._batch)

    def _take_some(self) -> None:
        """As much data as one write should carry, but at least one frame."""
        size = count = 0
        for frame in self._data:
            size += size_of(frame)
            if count and size > BATCH:
                size -= size_of(frame)
                break
            count += 1
        self._batch = self._data[:count]
        del self._data[:count]
        self._writing += size

    def _take_urgent(self, batch: list[OutFrame]) -> None:
        batch.extend(self._pongs)
        self._pongs.clear()
        if self.close_left:
            # Of us, only pongs may follow our Close frame (RFC 6455, section 5.5).
            return
        batch.extend(self._urgent)
        self._writing = sum(map(urgent_size, self._urgent))
        self._urgent.clear()

    def wrote(self) -> None:
        """The batch is with the operating system."""
        self.written += len(self._batch)
        self._finish_batch()

    def _finish_batch(self) -> None:
        self._batch = []
        self.size -= self._writing
        self._writing = 0
        self.writing = False
        self._count_batch()
        if self._flushes:
            self._flushes.unpark_all()
        if self._room and self.size < self._limit:
            self._room.unpark_all()

    def _count_batch(self) -> None:
        self.batches += 1
        if self.batches >= self._watched:
            self._watched = math.inf
            self.watched_at = trio.current_time()
        self._done = self._taken()

    def _taken(self) -> int:
        return self._queued - self._dropped - len(self._data) - len(self._greeting)

    def watch(self) -> None:
        """Note when the pings and pongs that are queued now have left."""
        self.watched_at = None
        self._watched = self.batches + (2 if self.writing else 1)

    @property
    def has_work(self) -> bool:
        """Whether there may be something to take."""
        return bool(
            self._data or self._greeting or self._pongs or self._urgent or self._close is not None
        )

    def cork(self) -> None:
        """Keep back what is queued from now on, so that it leaves in one write."""
        self._corked, self.idle = self.idle, False

    def uncork(self) -> None:
        """Let it go; the peer has been heard, so that what comes next may leave on the spot."""
        self.hurry()
        if self._corked:
            self._corked, self.idle = False, True
            if self.has_work:
                self._wake()
                self.hurry()

    def hurry(self) -> None:
        """What is queued next may leave on the spot, if the link can do that."""
        self.eager = self._put_now is not None


def _nobody() -> None:
    """There is no link, and no writer."""
