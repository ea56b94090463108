"""The send queue: frames that are waiting to be written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import trio

from .._redact import shorten
from .._text import as_text
from ..errors import InvalidFrame
from ..frames import Close, Data, Fragment, Frame, Ping, Pong, PreparedMessage
from ._sync import NO_WAITERS, Waiters

if TYPE_CHECKING:
    from .fragments.sender import OutgoingMessage

__all__ = ["Barrier", "QueuedFrame", "QueuedMessage", "SendQueue", "checked_frame", "size_of"]

T = TypeVar("T")

QueuedMessage = Data | PreparedMessage | Fragment
QueuedFrame = QueuedMessage | Ping | Pong | Close

# Maximum size of one write in bytes, unless a single frame is larger.
BATCH = 2**16

# Maximum number of queued fragments, which may be empty.
MAX_FRAGMENTS = 1024

# Maximum number of queued pongs; older ones may be skipped (RFC 6455, section 5.5.3).
MAX_PONGS = 128


class Barrier:
    """A position in the send queue, reached when all data before it has been written.

    Args:
        position: the number of data frames before it.
    """

    __slots__ = ("position", "written")

    def __init__(self, position: int) -> None:
        self.position: int = position
        self.written: bool | None = None
        """Whether the data before it was written; False if some was lost, None if undecided."""


class SendQueue:
    """A queue bounded in bytes, which the writer empties in batches.

    Pings and pongs are sent before data. Only pongs are sent after the Close frame. The queue
    outlives its links: data that was not sent over one link is sent over the next.

    Args:
        limit: the high-water mark in bytes of payload. Senders wait while the queue is above it.
            Replies from hooks are always accepted, and pause the reader task instead.
    """

    __slots__ = (
        "_awake",
        "_barriers",
        "_batch",
        "_close",
        "_close_first",
        "_data",
        "_data_lost",
        "_done",
        "_first",
        "_first_written",
        "_limit",
        "_message_waiters",
        "_messages",
        "_pongs",
        "_progress_waiters",
        "_queued",
        "_release_waiters",
        "_senders",
        "_space_waiters",
        "_urgent",
        "_urgent_batch",
        "_writing",
        "awaits_login",
        "batches",
        "close_taken",
        "closed",
        "closing",
        "data_held",
        "in_doubt",
        "in_doubt_count",
        "link_lost",
        "message",
        "size",
        "threshold",
        "urgent_written_at",
        "writing",
        "written",
    )

    def __init__(self, limit: int) -> None:
        self.size: int = 0
        """The size, in bytes, of the payloads that are queued or being written."""
        self.threshold: int = limit
        """The size at which a sender waits: the limit, or 0 while earlier senders are waiting."""
        self.closed: bool = False
        """Whether sends are refused: the connection is closing or closed."""
        self.closing: bool = False
        """Whether a Close frame was queued for the current link."""
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
        self.data_held: bool = False
        """Whether data waits for ``handle_connect``, or until the peer accepts subscriptions."""
        self.awaits_login: bool = False
        """Whether only replies may be sent, until the peer accepts subscriptions."""
        self.link_lost: bool = False
        """Whether the link is broken or has ended."""
        self.close_taken: bool = False
        """Whether the writer has taken the Close frame."""
        self.message: OutgoingMessage | None = None
        """The message that is being sent in fragments; later data waits until it ends."""
        self._urgent_batch = math.inf
        self._limit = limit
        # These are rarely used: as empty tuples, they take no memory and are cheap to test.
        # Replies from handle_connect, then the fragments of the message.
        self._first: list[QueuedMessage] | tuple[()] = ()
        self._data: list[QueuedMessage] = []
        self._urgent: list[QueuedFrame] | tuple[()] = ()
        self._pongs: list[Pong] | tuple[()] = ()
        self._barriers: list[Barrier] | tuple[()] = ()
        self._close: Close | None = None
        self._close_first = False
        self._writing = 0  # size of the batch being written, in bytes
        self._batch: list[QueuedMessage] | tuple[()] = ()  # its data frames
        self._first_written = False  # whether they are replies from handle_connect
        self._queued = 0  # data frames ever queued, except those that were dropped
        self._done = 0  # data frames ever written or in doubt
        self._data_lost = False  # data was dropped because the connection is ending
        self._senders = Waiters()
        self._awake = 0  # senders that have been woken but have not run yet
        self._space_waiters = Waiters()
        self._progress_waiters = Waiters()
        self._message_waiters = self._release_waiters = NO_WAITERS
        self._messages: list[OutgoingMessage] | tuple[()] = ()  # including those not begun

    def __len__(self) -> int:
        return len(self._data)

    is_paced: bool = False
    """Whether data may be sent only at a limited rate."""

    @property
    def data_waits(self) -> bool:
        """Whether data waits because of the rate."""
        return False

    @property
    def urgent_held(self) -> bool:
        """Whether the message of a heartbeat waits because of the rate."""
        return False

    @property
    def full(self) -> bool:
        """Whether a sender has to wait."""
        return self.size >= self._limit

    @property
    def is_large(self) -> bool:
        """Whether the limit in bytes is reached."""
        return self.size >= self._limit

    def is_exempt(self, frame: object) -> bool:  # noqa: ARG002 - for paced queues
        """Whether a frame may skip the wait even if the queue is full."""
        return False

    @property
    def has_work(self) -> bool:
        """Whether any frame is queued."""
        return bool(
            self._data or self._first or self._pongs or self._urgent or self._close is not None
        )

    @property
    def close_pending(self) -> bool:
        """Whether a Close frame is queued."""
        return self._close is not None

    # Queueing. The writer calls these methods and then writes, or wakes its task.

    def put(self, frame: QueuedMessage, size: int) -> None:
        """Queue a data frame of ``size`` bytes."""
        self._queued += 1
        self.size += size
        self._data.append(frame)

    def put_urgent(self, frame: QueuedFrame) -> None:
        """Queue a frame that is sent before data."""
        self.size += _urgent_size(frame)
        self._urgent = _appended(self._urgent, frame)

    def put_pong(self, frame: Pong) -> None:
        """Queue a pong."""
        self._pongs = _appended(self._pongs, frame)
        del self._pongs[:-MAX_PONGS]

    def put_first(self, frame: QueuedMessage) -> None:
        """Queue a reply before all data, even if data is held, for the current link only."""
        self.size += size_of(frame)
        self._first = _appended(self._first, frame)

    def put_front(self, frames: Sequence[QueuedMessage]) -> None:
        """Queue data frames before all others."""
        self._data[:0] = frames
        self.size += sum(map(size_of, frames))
        self._queued += len(frames)
        for barrier in self._barriers:
            barrier.position += len(frames)
        if self.message is not None:
            self.message.ahead += len(frames)

    def queued_ids(self) -> set[int]:
        """Return the ``id()`` of each data frame that is queued and not being written."""
        return set(map(id, self._data))

    def newest(self, count: int) -> list[QueuedMessage]:
        """Return the data frames that were queued last, for :meth:`remove`."""
        return self._data[-count:]

    def remove(self, frames: Sequence[QueuedMessage]) -> None:
        """Remove data frames, by identity, as if they had not been queued."""
        if not frames:
            return
        removed = set(map(id, frames))
        position = self._queued - len(self._data)
        kept: list[QueuedMessage] = []
        for frame in self._data:
            if id(frame) not in removed:
                kept.append(frame)
                position += 1
                continue
            self.size -= size_of(frame)
            self._queued -= 1
            for barrier in self._barriers:
                barrier.position -= barrier.position > position
            if self.message is not None:
                self.message.ahead -= len(kept) < self.message.ahead
        self._data = kept
        self._pass_barriers()

    def put_close(self, frame: Close, *, first: bool) -> None:
        """Queue the Close frame; if ``first``, before the data, which this link does not send."""
        self._close = frame
        self._close_first = first
        self.closing = True
        message = self.message
        if message is not None and message.started and (first or not message.is_complete):
            # Data behind the message cannot be sent over this link, because the message has no end.
            self._close_first = True
            self._interrupt_message()
        self.release_senders()

    def put_writing(self, frame: QueuedMessage, size: int) -> None:
        """Record that a data frame is being written; the queue was empty."""
        self._queued += 1
        self.size += size
        self.writing = True
        self._batch, self._writing = [frame], size

    def put_written(self) -> None:
        """Record that a data frame was written, before those that are queued."""
        self._queued += 1
        self._done += 1
        self.written += 1
        self.batches += 1
        if self.batches >= self._urgent_batch:
            self._urgent_written()

    def add_message(self, message: OutgoingMessage) -> None:
        """Interrupt ``message`` if the connection ends before :meth:`remove_message`."""
        self._messages = _appended(self._messages, message)

    def remove_message(self, message: OutgoingMessage) -> None:
        """Undo :meth:`add_message`."""
        self._messages = [other for other in self._messages if other is not message] or ()

    def hold_data(self, message: OutgoingMessage) -> None:
        """Hold back the data that is queued from now on, until ``message`` ends."""
        self.message = message
        message.ahead = len(self._data)

    @property
    def accepts_fragment(self) -> bool:
        """Whether the earlier data has been taken and there is space for a fragment."""
        message = self.message
        return not (
            message is None
            or message.ahead
            or message.size >= self._limit
            or len(self._first) >= MAX_FRAGMENTS
            or self.data_held
            or self.closing
            or self.link_lost
        )

    def put_fragment(self, fragment: Fragment) -> None:
        """Queue a fragment of the message, before the data that is held back."""
        message = self.message
        assert message is not None
        message.started = True
        message.is_complete = fragment.final
        message.size += fragment.size
        self.put_first(fragment)

    def end_message(self) -> None:
        """Stop holding back data."""
        message, self.message = self.message, None
        if message is not None:
            message.on_end()
            self._message_waiters.unpark_all()

    def _interrupt_message(self) -> None:
        """Drop the rest of the message: the link ends."""
        message = self.message
        assert message is not None
        kept = [frame for frame in self._first if frame.__class__ is not Fragment]
        self.size -= sum(map(size_of, self._first)) - sum(map(size_of, kept))
        self._first = kept or ()
        message.interrupt()
        self.end_message()

    def discard(self) -> tuple[Data, ...]:
        """Remove and return the queued data that is not being written.

        Any flush that is waiting for this data fails.
        """
        taken = tuple(map(_plain, self._data))
        self.size -= sum(map(size_of, self._data))
        self._forget_data()
        self._wake_senders()
        return taken

    def drop_data(self) -> tuple[Data, ...]:
        """Remove and return all data that is not being written; it will not be sent."""
        if self.message is not None:
            self._interrupt_message()
        dropped = tuple(map(_plain, (*self._first, *self._data)))
        self._data_lost = self._data_lost or bool(self._data)
        self._first = ()
        self._urgent = ()
        self._forget_data()
        self.size = self._writing
        self.release_senders()
        return dropped

    def _forget_data(self) -> None:
        self._queued -= len(self._data)
        self._data.clear()
        if self.message is not None:
            self.message.ahead = 0
        self._fail_barriers(self._queued)

    # Waiting.

    @trio.lowlevel.enable_ki_protection
    async def wait_turn(self) -> None:
        """Wait for space, behind earlier senders. The caller then checks :attr:`closed`.

        It calls :meth:`end_turn` once it has queued its data or has decided not to queue any.
        """
        # Tens of thousands of tasks may wait here, so every object counts.
        try:
            while not self.closed:
                self.threshold = 0
                await trio.lowlevel.wait_task_rescheduled(self._senders.add())
                self._awake -= 1
                if self.size < self._limit:
                    return
        finally:
            if not (self._senders or self._awake):
                self.threshold = self._limit

    def end_turn(self) -> None:
        """Wake further senders if there is still space."""
        if self._senders and not self._awake:
            self._wake_senders()

    def _wake_senders(self) -> None:
        """Wake the reader, and as many senders as there is probably space for."""
        space = self._limit - self.size
        if space <= 0:
            return
        self._space_waiters.unpark_all()
        if self._senders:
            # The messages of a connection are often of similar size.
            count = len(self._batch) * space // self._writing if self._writing else 1
            count = max(1, count) - self._awake
            if count > 0:
                self._awake += self._senders.unpark(count)

    async def wait_space(self) -> None:
        """Wait for space without a turn. The caller must then check again."""
        await self._space_waiters.park()

    def release_senders(self) -> None:
        """Wake all tasks that are waiting for space or a link: the connection is closing."""
        self._release_waiters.unpark_all()
        self._awake += self._senders.unpark_all()
        self._space_waiters.unpark_all()
        self.wake_message()

    def wake_message(self) -> None:
        """Wake the senders of messages in fragments, which then check the new state."""
        if self.message is not None:
            self._progress_waiters.unpark_all()
            self._message_waiters.unpark_all()

    async def wait_message_end(self) -> None:
        """Wait until the message ends or the connection closes. The caller must then check."""
        self._message_waiters = self._message_waiters.own()
        await self._message_waiters.park()

    async def wait_progress(self) -> None:
        """Wait until data has been written. The caller must then check its condition."""
        await self._progress_waiters.park()

    def barrier(self) -> Barrier:
        """Return a barrier after all data that is queued now."""
        barrier = Barrier(self._queued)
        if self._data_lost:
            barrier.written = False
        elif self._done >= self._queued:
            barrier.written = True
        else:
            self._barriers = _appended(self._barriers, barrier)
        return barrier

    async def wait_written(self, barrier: Barrier) -> bool:
        """Wait until the data before a barrier is written; return False if some was lost."""
        while barrier.written is None:
            await self._progress_waiters.park()
        return barrier.written

    async def wait_close_written(self) -> None:
        """Wait until the queued Close frame has been written or its link has ended."""
        while self._close is not None or self.writing:
            await self._progress_waiters.park()

    def _fail_barriers(self, position: int) -> None:
        """Fail the barriers after ``position``."""
        for barrier in self._barriers:
            if barrier.position > position:
                barrier.written = False
        self._remove_barriers()

    def _pass_barriers(self) -> None:
        """Release the tasks whose data has been written."""
        for barrier in self._barriers:
            if barrier.position <= self._done:
                barrier.written = True
        self._remove_barriers()

    def _remove_barriers(self) -> None:
        if self._barriers:
            self._barriers = [
                barrier for barrier in self._barriers if barrier.written is None
            ] or ()
        self._progress_waiters.unpark_all()

    # Data that is held.

    @property
    def holds_data(self) -> bool:
        """Whether queued data waits for another link, or until the current one accepts data."""
        return self.data_held or self.link_lost or self.closing

    def release(self) -> None:
        """Stop holding data: the current link accepts it."""
        self.data_held = self.awaits_login = False
        self._release_waiters.unpark_all()

    async def wait_release(self) -> None:
        """Wait until a link accepts data, or sends are refused."""
        self._release_waiters = self._release_waiters.own()
        while self.holds_data and not self.closed:
            await self._release_waiters.park()

    # The end.

    def stop_accepting(self) -> None:
        """Refuse further sends; queued data is kept."""
        self.closed = True
        self.release_senders()

    def resume_accepting(self) -> None:
        """Accept sends again: another link is expected."""
        self.closed = False

    def end(self) -> None:
        """Refuse further sends and wake all waiters: the connection has ended."""
        self.stop_accepting()
        self._fail_barriers(self._done)
        for message in self._messages:
            message.interrupt()

    # The writer's side.

    def start_link(self) -> None:
        """Start a link. Control frames and replies for the previous link are dropped."""
        self.data_held = True
        self.awaits_login = False
        self.link_lost = self.closing = self.close_taken = False
        self.in_doubt = ()
        self._pongs = ()
        self.size -= sum(map(_urgent_size, self._urgent)) + sum(map(size_of, self._first))
        self._urgent = ()
        self._first = ()
        self._close = None
        self._wake_senders()

    def end_link(self) -> None:
        """End the link; data that was being written is in doubt."""
        self._close = None
        self.link_lost = True
        self._space_waiters.unpark_all()
        if self.message is not None and self.message.started:
            self._interrupt_message()
        if not self.writing:
            self._progress_waiters.unpark_all()
            return
        # The sender of a message in fragments is informed by an exception.
        whole = [frame for frame in self._batch if frame.__class__ is not Fragment]
        self.in_doubt = tuple(map(_plain, whole))
        self.in_doubt_count += len(whole)
        if self._batch and not self._first_written:
            # All later barriers also wait for the data frames of the batch.
            self._fail_barriers(self._done)
        self._finish_batch()

    def single(self) -> QueuedMessage | None:
        """Return the only frame if it is data; None if a task is waiting until it is written."""
        data = self._data
        if len(data) != 1 or self._pongs or self._urgent or self._first or self._barriers:
            return None
        return data[0] if self.size < self._limit else None

    def take_single(self) -> QueuedMessage:
        """Remove and return the frame of :meth:`single`, as if it had not been queued."""
        self.size = 0
        self._queued -= 1
        return self._data.pop()

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

    def _take_urgent(self, batch: list[QueuedFrame]) -> None:
        batch.extend(self._pongs)
        self._pongs = ()
        if self.close_taken:
            # Only pongs are sent after the Close frame.
            return
        batch.extend(self._urgent)
        self._writing = sum(map(_urgent_size, self._urgent))
        self._urgent = ()

    def _take_data(self, batch: list[QueuedFrame]) -> None:
        if self.close_taken or (self.data_held and not self._first):
            return
        self._first_written = bool(self._first)
        if self._first:
            self._batch, self._first = self._first, ()
            self._writing += sum(map(size_of, self._batch))
        elif self.message is not None:
            self._take_some(self.message.ahead)
            self.message.ahead -= len(self._batch)
        elif self.size <= BATCH:
            self._batch, self._data = self._data, []
            self._writing = self.size
        else:
            self._take_some(len(self._data))
        batch.extend(self._batch)

    def _take_some(self, most: int) -> None:
        """Take at most ``most`` frames, up to the maximum size of one write, but at least one."""
        size = count = 0
        for frame in islice(self._data, most):
            size += size_of(frame)
            if count and size > BATCH:
                size -= size_of(frame)
                break
            count += 1
        self._batch = self._data[:count]
        del self._data[:count]
        self._writing += size

    def batch_written(self) -> None:
        """Record that the batch was passed to the operating system."""
        self.written += len(self._batch)
        if self._first_written:
            # A message counts once, with its final fragment.
            self.written -= sum(
                isinstance(frame, Fragment) and not frame.final for frame in self._batch
            )
        self._finish_batch()

    def _finish_batch(self) -> None:
        if self._first_written:
            self._first_written = False
            if self.message is not None:
                self.message.size = sum(map(size_of, self._first))
                if self.message.is_complete and not self._first:
                    self.end_message()
        else:
            self._done += len(self._batch)
        self.size -= self._writing
        self.writing = False
        self.batches += 1
        if self.batches >= self._urgent_batch:
            self._urgent_written()
        self._pass_barriers()
        self._wake_senders()
        self._batch = ()
        self._writing = 0

    def _urgent_written(self) -> None:
        self._urgent_batch = math.inf
        self.urgent_written_at = trio.current_time()

    def track_urgent(self) -> None:
        """Record in :attr:`urgent_written_at` when the control frames queued now are written."""
        self.urgent_written_at = None
        self._urgent_batch = self.batches + (2 if self.writing else 1)


def checked_frame(frame: Frame) -> QueuedFrame:
    """Return the frame to queue; the content of a mutable buffer is copied.

    Raises:
        InvalidFrame: ``frame`` is not text, bytes-like or a control frame.
    """
    kind = frame.__class__
    if kind is bytes or (kind is str and frame.isascii()):  # type: ignore[union-attr]
        return frame  # type: ignore[return-value]
    if isinstance(frame, str):
        text = as_text(frame)
        size_of(text)
        return text
    if isinstance(frame, Ping | Pong | Close | PreparedMessage):
        return frame
    if isinstance(frame, bytes | bytearray | memoryview):
        # The buffer may change before it is written.
        return bytes(frame)
    if hasattr(frame, "__aiter__"):
        raise InvalidFrame(
            "an async iterable is sent in fragments, which takes time: use await send(), with the "
            "iterable alone"
        )
    raise InvalidFrame(
        "a frame must be str, bytes-like, PreparedMessage, Ping, Pong or Close, "
        f"not {type(frame).__name__}: {shorten(frame)}"
    )


def size_of(frame: QueuedMessage) -> int:
    """Return the size of the payload in bytes.

    Raises:
        InvalidFrame: the text contains lone surrogates, which UTF-8 cannot encode.
    """
    if isinstance(frame, str):
        if frame.isascii():
            return len(frame)
        try:
            return len(frame.encode())
        except UnicodeEncodeError as error:
            raise InvalidFrame(f"the text is not valid Unicode: {error}") from None
    return frame.size if isinstance(frame, PreparedMessage | Fragment) else len(frame)


def _appended(items: list[T] | tuple[()], item: T) -> list[T]:
    if not items:
        return [item]
    items.append(item)
    return items


def _urgent_size(frame: QueuedFrame) -> int:
    """Return the size of a frame that is sent before data, in bytes with its header."""
    return 2 + (size_of(frame) if isinstance(frame, QueuedMessage) else len(frame.to_payload()))


def _plain(frame: QueuedMessage) -> Data:
    """Return the plain message of a frame, which is not a fragment."""
    return frame.message if isinstance(frame, PreparedMessage) else frame  # type: ignore[return-value]
