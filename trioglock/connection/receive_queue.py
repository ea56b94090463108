"""The receive queue: delivered messages that are waiting to be received."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from ..options import Overflow
from ..telemetry import EventEmitter
from ._sync import NO_WAITERS, ignore

__all__ = ["ReceiveQueue"]


# Shared by connections that have not delivered anything: an empty deque takes 600 bytes.
_EMPTY: deque[Any] = deque(maxlen=0)


class ReceiveQueue:
    """A bounded queue with many receivers. Adding never waits.

    Args:
        limit: the maximum number of messages, or None for no limit. With ``overflow="wait"`` it is
            a high-water mark at which the reader task stops reading; the messages of the last chunk
            may exceed it.
        overflow: the policy at the limit; see :class:`trioglock.options.FlowOptions`.
        on_overflow: called when the ``"close"`` policy has dropped a message.
        emitter: emits an event for each dropped message.
    """

    __slots__ = (
        "_closing_limit",
        "_discards",
        "_emitter",
        "_limit",
        "_low",
        "_on_overflow",
        "_overflow",
        "_readers",
        "_space_waiters",
        "dropped",
        "ended",
        "items",
        "pause_at",
        "reader_waiting",
    )

    def __init__(
        self,
        limit: int | None,
        overflow: Overflow,
        on_overflow: Callable[[], None],
        emitter: EventEmitter,
    ) -> None:
        self.items: deque[Any] = _EMPTY
        """The queued messages, oldest first. Use :meth:`open_items` to add to them."""
        self.reader_waiting: bool = False
        """Whether the reader task is waiting for space."""
        self.dropped: int = 0
        self.ended: bool = False
        self.pause_at: float = limit if limit is not None and overflow == "wait" else math.inf
        """The number of messages at which the reader pauses."""
        self._discards = False
        self._limit = limit
        self._low = 0 if limit is None else limit // 4
        self._overflow: Overflow = overflow
        self._on_overflow = on_overflow
        self._emitter = emitter
        self._closing_limit: int | None = None
        self._readers = self._space_waiters = NO_WAITERS

    @property
    def full(self) -> bool:
        """Whether the reader task must stop reading."""
        return len(self.items) >= self.pause_at

    def collect(self) -> bool:
        """If possible, add a message to :attr:`items`, which is empty; return whether it was added.

        With ``fragments=True``, the call joins the fragments of a message.
        """
        return False

    def discard_unread(self) -> None:
        """Discard messages from now on, unless a task is waiting for them."""
        self._discards = True
        self.pause_at = math.inf

    def open_items(self) -> deque[Any]:
        """Return :attr:`items` to add messages to; call :meth:`notify` afterwards."""
        if self.items is _EMPTY:
            self.items = deque()
        return self.items

    def add(self, item: Any) -> None:
        """Deliver one message."""
        self.open_items().append(item)
        self.notify()

    def extend(self, items: Iterable[Any]) -> None:
        """Deliver several messages."""
        self.open_items().extend(items)
        self.notify()

    def notify(self) -> None:
        """Wake receivers for the messages added to :attr:`items`, and enforce the limit."""
        items = self.items
        if not self._readers.unpark(len(items)) and self._discards:
            items.clear()
        limit = self._closing_limit if self._overflow == "wait" else self._limit
        if limit is not None and len(items) > limit:
            self._drop(len(items) - limit)

    def _drop(self, count: int) -> None:
        take = self.items.popleft if self._overflow == "drop_oldest" else self.items.pop
        self.drop([take() for _ in range(count)])
        if self._overflow == "close":
            self._on_overflow()

    def drop(self, messages: Sequence[object]) -> None:
        """Count messages as dropped and emit their events."""
        self.dropped += len(messages)
        self._emitter.messages_dropped(messages)

    def wait(self) -> Awaitable[None]:
        """Wait for a delivery or the end; the caller then checks again."""
        self._readers = self._readers.own()
        return self._readers.park()

    def notify_taken(self) -> None:
        """Wake the reader task, if it is waiting and enough messages have been taken."""
        if self._space_waiters and len(self.items) <= self._low:
            self._space_waiters.unpark_all()

    async def wait_space(self) -> None:
        """Wait until the queue has drained to a quarter of its limit."""
        self.reader_waiting = True
        try:
            self._space_waiters = self._space_waiters.own()
            await self._space_waiters.park()
        finally:
            self.reader_waiting = False

    def start_closing(self) -> None:
        """Let the reader task continue even though the queue is full: the connection is closing.

        Queued messages are kept; further messages beyond the limit are dropped.
        """
        if self._limit is not None:
            self._closing_limit = max(self._limit, len(self.items))
        self._space_waiters.unpark_all()

    def end_link(self, *, final: bool) -> None:
        """Called when the link has ended; ``final`` if no other link follows."""

    def start_link(self) -> None:
        """Let a full queue pause the reader task again, on a new link."""
        self._closing_limit = None

    def release_session(self) -> None:
        """Drop the reference to the session, which has ended."""
        self._on_overflow = ignore

    def end(self) -> None:
        """Wake all receivers: no more messages will be delivered."""
        self.ended = True
        self._readers.unpark_all()
        self._space_waiters.unpark_all()
