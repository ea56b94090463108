"""The queue of a slow subscriber: bounded, with a policy for when it is full."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Literal, TypeAlias, get_args

from ..options import check_choice, check_whole
from .message import Event, Message

__all__ = ["MessageQueue", "SubscriberOverflow", "make_queue"]

SubscriberOverflow: TypeAlias = Literal["drop_oldest", "drop_newest", "keep_latest", "close"]
"""What happens when the queue of a subscriber is full.

* ``"drop_oldest"``: the oldest message in the queue is dropped.
* ``"drop_newest"``: the new message is dropped.
* ``"keep_latest"``: the queue holds only the newest message of each channel. A newer one takes the
  position of the one it replaces, so a busy channel never delays the others.
* ``"close"``: the subscriber is closed: a connection with code 1013, a subscription raises
  :exc:`SlowConsumer`.

Dropped messages are counted.
"""


class MessageQueue:
    """Events for one subscriber, oldest first; see :func:`make_queue`."""

    __slots__ = ("_events", "dropped", "limit", "overflow")

    def __init__(self, limit: int, overflow: SubscriberOverflow) -> None:
        self.limit: int = limit
        self.overflow: SubscriberOverflow = overflow
        self.dropped: int = 0
        """Number of events dropped because the queue was full."""
        self._events: deque[Event] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def push(self, event: Event) -> bool:
        """Add an event; return False if the subscriber must be closed instead."""
        if len(self._events) >= self.limit:
            if self.overflow == "close":
                return False
            self._count_drop()
            if self.overflow == "drop_newest":
                return True
            self._events.popleft()
        self._events.append(event)
        return True

    def _count_drop(self) -> None:  # an assignment in a subclass would declare ``dropped`` again
        self.dropped += 1

    def pop(self) -> Event:
        """Remove and return the oldest event; there must be one."""
        return self._events.popleft()

    def clear(self) -> None:
        """Discard all events without counting them as dropped."""
        self._events.clear()


class LatestQueue(MessageQueue):
    """The queue for ``"keep_latest"``. All gaps count as one channel."""

    __slots__ = ("_latest",)

    def __init__(self, limit: int, overflow: SubscriberOverflow) -> None:
        super().__init__(limit, overflow)
        self._latest: OrderedDict[str | None, Event] = OrderedDict()

    def __len__(self) -> int:
        return len(self._latest)

    def push(self, event: Event) -> bool:
        channel = event.channel if isinstance(event, Message) else None
        if channel in self._latest:
            self._count_drop()
        elif len(self._latest) >= self.limit:
            self._count_drop()
            self._latest.popitem(last=False)
        self._latest[channel] = event
        return True

    def pop(self) -> Event:
        return self._latest.popitem(last=False)[1]

    def clear(self) -> None:
        self._latest.clear()


def make_queue(limit: int, overflow: SubscriberOverflow) -> MessageQueue:
    """Return an empty queue; raise InvalidOption if an argument is invalid."""
    check_whole("max_queue", limit, least=1, none=False)
    check_choice("overflow", overflow, get_args(SubscriberOverflow))
    return (LatestQueue if overflow == "keep_latest" else MessageQueue)(limit, overflow)
