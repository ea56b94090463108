"""The send queue: frames that wait to be written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from ..frames import Close, Data, Frame, Ping, Pong, PreparedMessage
from ._sync import Waiters
from .outgoing import QueuedFrame, QueuedMessage, checked_frame, plain, size_of, urgent_size

__all__ = ["SendQueue"]

# Maximum size of one write in bytes, unless a single frame is larger.
BATCH = 2**16

# Maximum number of queued pongs; older ones may be skipped (RFC 6455, section 5.5.3).
MAX_PONGS = 128


class SendQueue:
    """A queue bounded in bytes, which the writer empties in batches.

    Pings and pongs are sent before data. Only pongs are sent after the Close frame. The queue
    outlives its links: data that was not sent over one link is sent over the next.

    Args:
        limit: the high-water mark in bytes of payload. Senders wait while the queue is above it.
            Replies from hooks are always accepted, and pause the reader task instead.
    """

    __slots__ = (
        "_batch",
        "_close",
        "_close_first",
        "_data",
        "_data_held",
        "_data_lost",
        "_done",
        "_dropped",
        "_first",
        "_flushes",
        "_limit",
        "_lost",
        "_pongs",
        "_put_now",
        "_queued",
        "_space_waiters",
        "_urgent",
        "_urgent_batch",
        "_wake",
        "_write_now",
        "_writing",
        "batches",
        "close_taken",
        "closed",
        "corked",
        "idle",
        "immediate_allowed",
        "in_doubt",
        "in_doubt_count",
        "link_lost",
        "size",
        "urgent_written_at",
        "writing",
        "written",
    )

    def __init__(self, limit: int) -> None:
        self.size: int = 0
        """The size of the queued and currently written payloads in bytes."""
        self.closed: bool = False
        """Whether sends are refused: the connection is closing or closed."""
        self.writing: bool = False
        """Whether a batch is being written."""
        self.batches: int = 0
        """The number of batches written."""
        self.written: int = 0
        """The number of data frames passed to the operating system."""
        self.in_doubt_count: int = 0
        """The number of data frames that were being written when a link broke."""
        self.in_doubt: tuple[Data, ...] = ()
        """The messages that were being written when the latest link broke."""
        self.urgent_written_at: float | None = None
        """When the frames tracked by :meth:`track_urgent` were written (trio's clock), or None."""
        self._urgent_batch = math.inf
        self.link_lost: bool = False
        """Whether the link is broken or has ended."""
        self.idle: bool = False
        """Whether the writer is idle and must be woken."""
        self.corked: bool = False
        """Whether frames are collected until :meth:`uncork`, although the writer is idle."""
        self.immediate_allowed: bool = False
        """Whether the next frame may be written immediately."""
        self._wake: Callable[[], None] = _no_writer
        # Writes a frame immediately; _write_now is None while queued data must go first.
        self._write_now: Callable[[QueuedMessage], bool] | None = None
        self._put_now: Callable[[QueuedMessage], bool] | None = None
        self._limit = limit
        self._first: list[QueuedMessage] = []
        self._data: list[QueuedMessage] = []
        self._urgent: list[QueuedFrame] = []
        self._pongs: list[Pong] = []
        self._close: Close | None = None
        self._close_first = False
        self.close_taken: bool = False
        """Whether the writer has taken the Close frame."""
        self._data_held = False
        self._writing = 0  # size of the batch being written, in bytes
        self._batch: list[QueuedMessage] = []  # its data frames
        self._queued = 0  # data frames ever queued
        self._dropped = 0  # data frames dropped without being sent
        self._done = 0  # data frames ever written or in doubt
        self._lost = (0, 0)  # data frames in doubt: after the first number, up to the second
        self._data_lost = False
        self._space_waiters = Waiters()
        self._flushes = Waiters()

    def __len__(self) -> int:
        return len(self._data)

    @property
    def full(self) -> bool:
        """Whether senders must wait."""
        return self.size >= self._limit

    # Queueing.

    def put(self, frame: Frame) -> None:
        """Queue a frame other than Close.

        Raises:
            InvalidFrame: ``frame`` is not text, bytes-like or a control frame.
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
        if self.idle and self.immediate_allowed and self._write_now is not None:
            self._write_through(frame, size)  # type: ignore[arg-type]
            return
        self.size += size
        self._data.append(frame)  # type: ignore[arg-type]
        if self.idle:
            self._wake()

    def put_prepared(self, frame: PreparedMessage, corked: list[SendQueue]) -> bool:
        """Queue a message of a fan-out unless the queue is full or closed; return True if queued.

        Args:
            frame: the message.
            corked: if the writer is idle, the queue is corked and added to this list. The caller
                must uncork it.
        """
        if self.closed or (self.size >= self._limit and not self._make_space()):
            return False
        if self.idle:
            self.corked, self.idle = True, False
            corked.append(self)
        self._queued += 1
        self.size += frame.size
        self._data.append(frame)
        return True

    def _make_space(self) -> bool:
        """Write the frames collected since :meth:`cork`; return whether there is space now.

        A queue that is full only because its frames are held back is not slow.
        """
        if self.corked:
            self.uncork()
        return self.size < self._limit

    def _write_through(self, frame: QueuedMessage, size: int) -> None:
        """Write a frame immediately. Call it only if the queue is empty."""
        assert self._write_now is not None
        self.immediate_allowed = False
        if self._write_now(frame):
            self.written += 1
            self._count_batch()
        else:
            self.writing = True
            self._batch, self._writing = [frame], size
            self.size += size
            self._wake()

    def put_urgent(self, frame: QueuedFrame) -> None:
        """Queue a frame that is sent before data."""
        self.size += urgent_size(frame)
        self._urgent.append(frame)
        if self.idle:
            self._wake()

    def pong(self, frame: Pong) -> None:
        """Queue a pong."""
        self._pongs.append(frame)
        del self._pongs[:-MAX_PONGS]
        if self.idle:
            self._wake()

    def put_first(self, frames: Sequence[QueuedFrame]) -> None:
        """Queue replies from ``handle_connect`` before all data, for the current link only."""
        for frame in frames:
            if isinstance(frame, QueuedMessage):
                self.size += size_of(frame)
                self._first.append(frame)
            else:
                self.put_urgent(frame)
        # They do not count as queued, so a flush still waits for the data after them.
        self._done = self._taken()

    def discard(self) -> tuple[Data, ...]:
        """Remove and return the queued data that is not being written.

        Flushes waiting for it fail.
        """
        taken = tuple(map(plain, self._data))
        self.size -= sum(map(size_of, self._data))
        self._data.clear()
        self._lose()
        if self.size < self._limit:
            self._space_waiters.unpark_all()
        return taken

    async def wait_space(self) -> None:
        """Wait for space. The caller must then check again."""
        await self._space_waiters.park()

    def flush_marks(self) -> tuple[int, int]:
        """Return the marks that make :meth:`wait_flushed` wait for everything queued now."""
        # put_first() moves _done back; frames already in doubt must not count again.
        return max(self._done, self._lost[1]), self._queued

    async def wait_flushed(self, marks: tuple[int, int]) -> bool:
        """Wait until the marked frames are written; return False if they were lost."""
        begin, mark = marks
        while self._done < mark:
            if self._data_lost:
                return False
            await self._flushes.park()
        after, up_to = self._lost
        return not (up_to > begin and after < mark)

    # Closing.

    @property
    def close_pending(self) -> bool:
        """Whether a Close frame is queued."""
        return self._close is not None

    async def wait_close_written(self) -> None:
        """Wait until the queued Close frame has been written or its link has ended."""
        while self._close is not None or self.writing:
            await self._flushes.park()

    def close(self, frame: Close, *, first: bool = False, last: bool = True) -> None:
        """Queue the Close frame.

        Args:
            frame: the Close frame.
            first: send it before the queued data, which waits for another link or is dropped.
            last: refuse further sends: the connection ends with this link.
        """
        self.closed = self.closed or last
        self._close = frame
        self._close_first = first
        self._write_now = None
        if self.idle:
            self._wake()
        self.release_senders()

    def release_senders(self) -> None:
        """Wake all tasks that wait for space: the connection is closing."""
        self._space_waiters.unpark_all()

    def stop_accepting(self) -> None:
        """Refuse further sends; queued data stays."""
        self.closed = True
        self._space_waiters.unpark_all()

    def resume_accepting(self) -> None:
        """Accept sends again: another link is expected."""
        self.closed = False

    def drop_data(self) -> tuple[Data, ...]:
        """Remove and return all data that is not being written; it will not be sent."""
        dropped = tuple(map(plain, (*self._first, *self._data)))
        self._dropped += len(self._data)
        self._first.clear()
        self._data.clear()
        self._urgent.clear()
        self.size = self._writing
        self._data_lost = True
        self._space_waiters.unpark_all()
        self._flushes.unpark_all()
        return dropped

    def end(self) -> None:
        """Refuse further sends and wake all waiters: the connection has ended."""
        self.closed = self._data_lost = True
        self._space_waiters.unpark_all()
        self._flushes.unpark_all()

    # The writer's side.

    def attach(
        self, wake: Callable[[], None], write_now: Callable[[QueuedMessage], bool] | None
    ) -> None:
        """Connect a new link; data is held back until :meth:`release`.

        Control frames and replies for the previous link are dropped.

        Args:
            wake: called when a frame is queued while :attr:`idle`.
            write_now: writes as much of a frame as possible without waiting and returns whether
                all of it was written; None if the link does not support this.
        """
        self._wake = wake
        self._put_now = write_now
        self.allow_immediate()
        self.idle = True
        self._data_held = True
        self.link_lost = False
        self.close_taken = False
        self.in_doubt = ()
        self._pongs.clear()
        self.size -= sum(map(urgent_size, self._urgent)) + sum(map(size_of, self._first))
        self._urgent.clear()
        self._first.clear()
        self._lose()
        self._close = None
        if self.size < self._limit:
            self._space_waiters.unpark_all()

    def release(self) -> None:
        """Allow data to be sent."""
        self._data_held = False
        if self._close is None and not self.close_taken:
            self._write_now = self._put_now
        if self.idle and self.has_work:
            self._wake()

    def detach(self) -> None:
        """Disconnect the link; data that was being written is in doubt."""
        self._close = None
        self._wake = _no_writer
        self._write_now = self._put_now = None
        self.idle = self.corked = False
        self.link_lost = True
        self._space_waiters.unpark_all()
        self._flushes.unpark_all()
        if self.writing:
            self.in_doubt = tuple(map(plain, self._batch))
            self.in_doubt_count += len(self._batch)
            before = self._done
            self._finish_batch()
            self._lose(since=before)

    def _lose(self, *, since: int | None = None) -> None:
        """Mark as in doubt the frames that were taken from the queue but not written."""
        before = self._done if since is None else since
        self._done = self._taken()
        if self._done > before:
            after, up_to = self._lost
            self._lost = (after if up_to == before else before, self._done)
            self._flushes.unpark_all()

    def take(self) -> list[QueuedFrame]:
        """Take the next batch, control frames first; empty if nothing may be written."""
        batch: list[QueuedFrame] = []
        if self._pongs or self._urgent:
            self._take_urgent(batch)
        if self._close is None or not self._close_first:
            self._take_data(batch)
        if self._close is not None and (self._close_first or not (self._data or self._first)):
            batch.append(self._close)
            self._close = None
            self.close_taken = True
        self.writing = bool(batch)
        return batch

    def _take_data(self, batch: list[QueuedFrame]) -> None:
        if self._data_held or self.close_taken:
            return
        if self._first:
            self._batch, self._first = self._first, []
            self._writing += sum(map(size_of, self._batch))
        elif self.size <= BATCH:
            self._batch, self._data = self._data, []
            self._writing = self.size
        else:
            self._take_some()
        batch.extend(self._batch)

    def _take_some(self) -> None:
        """Take data up to the maximum size of one write, but at least one frame."""
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

    def _take_urgent(self, batch: list[QueuedFrame]) -> None:
        batch.extend(self._pongs)
        self._pongs.clear()
        if self.close_taken:
            # Only pongs are sent after the Close frame.
            return
        batch.extend(self._urgent)
        self._writing = sum(map(urgent_size, self._urgent))
        self._urgent.clear()

    def batch_written(self) -> None:
        """Record that the batch was passed to the operating system."""
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
        if self._space_waiters and self.size < self._limit:
            self._space_waiters.unpark_all()

    def _count_batch(self) -> None:
        self.batches += 1
        if self.batches >= self._urgent_batch:
            self._urgent_batch = math.inf
            self.urgent_written_at = trio.current_time()
        self._done = self._taken()

    def _taken(self) -> int:
        return self._queued - self._dropped - len(self._data) - len(self._first)

    def track_urgent(self) -> None:
        """Record in :attr:`urgent_written_at` when the control frames queued now are written."""
        self.urgent_written_at = None
        self._urgent_batch = self.batches + (2 if self.writing else 1)

    @property
    def has_work(self) -> bool:
        """Whether any frame is queued."""
        return bool(
            self._data or self._first or self._pongs or self._urgent or self._close is not None
        )

    def cork(self) -> None:
        """Collect the frames queued from now on, to send them in one write.

        A second call changes nothing: the first :meth:`uncork` writes what both have collected.
        """
        if self.idle:
            self.corked, self.idle = True, False

    def uncork(self) -> None:
        """Write the collected frames, and allow the next one to be written immediately."""
        if self.corked:
            self.corked, self.idle = False, True
            data = self._data
            if len(data) == 1 and self._write_now is not None and not (self._urgent or self._pongs or self._first):
                frame = data.pop()
                size = frame.size if frame.__class__ is PreparedMessage else size_of(frame)
                self.size -= size
                self._write_through(frame, size)
            elif self.has_work:
                self.immediate_allowed = self._put_now is not None
                self._wake()
        self.immediate_allowed = self._put_now is not None

    def allow_immediate(self) -> None:
        """Let the next frame be written immediately, if the link supports it."""
        self.immediate_allowed = self._put_now is not None


def _no_writer() -> None:
    """Do nothing: there is no link."""
