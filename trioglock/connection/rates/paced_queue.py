"""The send queue of a connection with a ``send_rate``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio

from ..._timer import Entry, current_timer
from ...frames import Close, Fragment, Ping, Pong
from .._sync import ignore
from ..send_queue import QueuedFrame, QueuedMessage, SendQueue, size_of
from .pacing import Pacer

__all__ = ["PacedSendQueue"]


class PacedSendQueue(SendQueue):
    """A send queue that gives messages to the writer only as fast as a :class:`Pacer` allows.

    A queued message owns the next free slot, so senders wait while no slot is left for them. They
    continue one at a time, because trio may run tasks that become runnable together in any order.
    Pings, pongs and Close frames need no slots.

    Args:
        limit: as in :class:`SendQueue`.
        pacer: the limiter.
    """

    __slots__ = (
        "_batch_ends",
        "_ended",
        "_entry",
        "_has_slot",
        "_pacer",
        "is_suspect",
        "on_slot",
        "on_written",
    )

    is_paced: bool = True

    def __init__(self, limit: int, pacer: Pacer) -> None:
        super().__init__(limit)
        self.is_suspect: bool = False
        """The timer gives peers no extra time here."""
        self.on_slot: Callable[[], None] = ignore
        """Called when a queued message may be written."""
        self.on_written: Callable[[], None] = ignore
        """Called when a batch has been written."""
        self._pacer = pacer
        self._batch_ends = 0  # the messages that are complete when the batch is written
        self._has_slot = False  # whether the sender that was woken has a slot
        self._entry: Entry | None = None  # while something waits for a slot
        self._ended = False

    # Slots.

    def _free(self) -> int:
        """Return the number of slots that no queued message owns."""
        message = self.message
        return (
            self._pacer.free(trio.current_time())
            - len(self._data)
            - sum(map(_begins, self._first))
            - sum(map(_begins, self._urgent))
            - (message is not None and not message.started)
        )

    @property
    def full(self) -> bool:
        """Whether a sender has to wait. A free slot belongs to senders that already wait."""
        return bool(self.size >= self._limit or self._senders or self._awake or self._free() <= 0)

    @property
    def threshold(self) -> int:
        return 0 if self.full else self._limit

    @threshold.setter
    def threshold(self, value: int) -> None:
        """Do nothing: the threshold depends on the time."""

    @property
    def data_waits(self) -> bool:
        return bool(self._data or self._first) and self._pacer.free(trio.current_time()) <= 0

    @property
    def urgent_held(self) -> bool:
        return any(map(_begins, self._urgent))

    def is_exempt(self, frame: object) -> bool:
        return isinstance(frame, Ping | Pong | Close) and self.size < self._limit

    # Senders.

    async def wait_turn(self) -> None:
        while not self.closed:
            self._start_timer(waits=True)
            await self._senders.park()
            self._awake -= 1
            if self._has_slot:
                self._has_slot = False
                return

    def _wake_senders(self) -> None:
        """Wake the reader, and the first sender if there is a slot for its message."""
        if self.size < self._limit:
            self._space_waiters.unpark_all()
            if self._senders and not self._awake and self._free() > 0:
                self._has_slot = True
                self._awake += self._senders.unpark()
        self._start_timer()

    def release_senders(self) -> None:
        if self.closed:
            super().release_senders()
        else:
            # Another link follows: the senders keep their order.
            self._space_waiters.unpark_all()
            self.wake_message()

    # The writer's side.

    def take(self) -> list[QueuedFrame]:
        self._batch_ends = 0
        batch = super().take()
        if self._urgent and self._urgent_batch < math.inf:
            # The heartbeat's message is not part of this batch.
            self._urgent_batch = self.batches + (2 if batch else 1)
        self._start_timer()
        return batch

    def _take_urgent(self, batch: list[QueuedFrame]) -> None:
        urgent, self._urgent = self._urgent, ()
        free = self._pacer.free(trio.current_time())
        held: list[QueuedFrame] = []
        now: list[QueuedFrame] = []
        for frame in urgent:
            # A message cannot be sent between the fragments of another message.
            if _begins(frame) and (free <= 0 or self.message is not None):
                held.append(frame)
            else:
                free -= _begins(frame)
                now.append(frame)
        self._urgent = now
        super()._take_urgent(batch)
        if not self.close_taken:
            self._take_slots(now)
        self._urgent = [*self._urgent, *held] or ()

    def _take_data(self, batch: list[QueuedFrame]) -> None:
        if self.close_taken or (self.data_held and not self._first):
            return
        free = self._pacer.free(trio.current_time())
        if self._first:
            self._take_first(free)
        else:
            message = self.message
            waiting = len(self._data) if message is None else message.ahead
            self._take_some(min(waiting, max(0, free)))
            if message is not None:
                message.ahead -= len(self._batch)
        self._take_slots(self._batch)
        batch.extend(self._batch)

    def _take_first(self, free: int) -> None:
        count = 0
        for frame in self._first:
            free -= _begins(frame)
            if free < 0:
                break
            count += 1
        frames = list(self._first)
        self._batch, self._first = frames[:count], frames[count:] or ()
        self._first_written = bool(self._batch)
        self._writing += sum(map(size_of, self._batch))

    def _take_slots(self, frames: list[Any] | tuple[()]) -> None:
        self._pacer.take(sum(map(_begins, frames)))
        self._batch_ends += sum(map(_ends, frames))

    def end_link(self) -> None:
        super().end_link()
        self._pacer.interrupted(trio.current_time())
        self._start_timer()

    def _finish_batch(self) -> None:
        ended, self._batch_ends = self._batch_ends, 0
        self._pacer.written(ended, trio.current_time())
        super()._finish_batch()
        self.on_written()

    def end(self) -> None:
        super().end()
        self._ended = True
        self.on_slot = self.on_written = ignore
        self._stop_timer()

    # The timer.

    def _start_timer(self, *, waits: bool = False) -> None:
        if self._entry is None and (due := self._next_slot(waits=waits)) < math.inf:
            self._entry = current_timer().add(self, due)

    def _stop_timer(self) -> None:
        if self._entry is not None:
            entry, self._entry = self._entry, None
            current_timer().remove(entry)

    def _next_slot(self, *, waits: bool = False) -> float:
        """Return when to continue; infinity if nothing waits, or if a write must end first.

        Args:
            waits: a sender is about to wait.
        """
        waits = bool(waits or self._senders or self._data or self._first or self.urgent_held)
        if self._ended or not waits:
            return math.inf
        now = trio.current_time()
        due = self._pacer.next_free(now) if self._pacer.free(now) <= 0 else None
        return math.inf if due is None else due

    def check(self, now: float, due: float) -> float:  # noqa: ARG002 - called by the timer
        """Continue with the messages and senders that have waited for a slot."""
        if self.has_work:
            self.on_slot()
        self._wake_senders()
        next_slot = self._next_slot()
        if next_slot == math.inf:
            self._stop_timer()
        return next_slot


def _begins(frame: object) -> bool:
    """Whether a frame needs a slot: the first frame of a message."""
    if isinstance(frame, Fragment):
        return frame.first
    return isinstance(frame, QueuedMessage)


def _ends(frame: object) -> bool:
    """Whether a message is complete with this frame."""
    if isinstance(frame, Fragment):
        return frame.final
    return isinstance(frame, QueuedMessage)
