"""The receive queue: delivered messages that wait for whoever iterates the connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..options import Overflow
from ..telemetry import EventEmitter
from ._sync import Waiters

__all__ = ["ReceiveQueue"]


# Of connections that have not delivered anything: a deque is never small.
_EMPTY: deque[Any] = deque(maxlen=0)


class ReceiveQueue:
    """A bounded queue with many readers and one, never waiting, filler.

    Args:
        limit: with ``overflow="wait"`` the high-water mark: the reader task takes no more from
            the network while so many messages wait. What one read brought is always taken, so
            the queue may pass the mark by the messages of one chunk. With the other policies the
            most messages that are kept. None for no limit.
        overflow: what happens at the limit, see :class:`trioglock.options.FlowOptions`.
        overflowed: told that the policy ``"close"`` has had to drop.
        emitter: told what is dropped.
    """

    __slots__ = (
        "_closing_limit",
        "_emitter",
        "_limit",
        "_low",
        "_overflow",
        "_overflowed",
        "_readers",
        "_room",
        "dropped",
        "ended",
        "held",
        "items",
    )

    def __init__(
        self,
        limit: int | None,
        overflow: Overflow,
        overflowed: Callable[[], None],
        emitter: EventEmitter,
    ) -> None:
        self.items: deque[Any] = _EMPTY
        """What waits, oldest first; filled by way of :meth:`filling` only."""
        self.held: bool = False
        """Whether the reader task waits for room."""
        self.dropped: int = 0
        self.ended: bool = False
        self._limit = limit
        self._low = 0 if limit is None else limit // 4
        self._overflow: Overflow = overflow
        self._overflowed = overflowed
        self._emitter = emitter
        self._closing_limit: int | None = None
        self._readers = Waiters()
        self._room = Waiters()

    @property
    def full(self) -> bool:
        """Whether the reader task should stop reading."""
        return (
            self._limit is not None and len(self.items) >= self._limit and self._overflow == "wait"
        )

    def filling(self) -> deque[Any]:
        """:attr:`items`, to be added to; :meth:`settle` must follow."""
        if self.items is _EMPTY:
            self.items = deque()
        return self.items

    def add(self, item: Any) -> None:
        """Deliver one message."""
        self.filling().append(item)
        self.settle()

    def extend(self, items: Iterable[Any]) -> None:
        """Deliver several at once."""
        self.filling().extend(items)
        self.settle()

    def settle(self) -> None:
        """Wake readers for what has been added to :attr:`items`, and keep the limit."""
        items = self.items
        if self._readers:
            self._readers.unpark(count=len(items))
        limit = self._closing_limit if self._overflow == "wait" else self._limit
        if limit is not None and len(items) > limit:
            self._drop(len(items) - limit)

    def _drop(self, count: int) -> None:
        take = self.items.popleft if self._overflow == "drop_oldest" else self.items.pop
        self.give_up([take() for _ in range(count)])
        if self._overflow == "close":
            self._overflowed()

    def give_up(self, messages: Sequence[object]) -> None:
        """Count messages that nobody will receive."""
        self.dropped += len(messages)
        self._emitter.messages_dropped(messages)

    async def wait(self) -> None:
        """Wait until something is delivered, or the end; then look again."""
        await self._readers.park()

    def taken(self) -> None:
        """Tell, while :attr:`held`, that messages were taken: there may be room again."""
        if self._room and len(self.items) <= self._low:
            self._room.unpark_all()

    async def wait_room(self) -> None:
        """Wait until the receive queue has drained to a quarter of its limit."""
        self.held = True
        try:
            await self._room.park()
        finally:
            self.held = False

    def open_gates(self) -> None:
        """Let the reader task go on whatever is queued: the connection is closing.

        What has arrived stays; what a peer still sends beyond the limit is dropped.
        """
        if self._limit is not None:
            self._closing_limit = max(self._limit, len(self.items))
        self._room.unpark_all()

    def close_gates(self) -> None:
        """A new link: a full receive queue holds the reader task back again."""
        self._closing_limit = None

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self._readers.unpark_all()
        self._room.unpark_all()
