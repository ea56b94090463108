"""The queue in front of a slow subscriber: bounded, with a policy for when it is full."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, TypeAlias, get_args

from ..errors import InvalidOption
from ..options import check_whole
from .message import Event, Message

__all__ = ["MessageQueue", "SubscriberOverflow"]

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
    """Events for one subscriber, oldest first.

    Args:
        limit: maximum number of events.
        overflow: what happens beyond that.

    Raises:
        InvalidOption: ``limit`` is not a positive integer, or ``overflow`` is unknown.
    """

    __slots__ = ("_count", "_events", "dropped", "limit", "overflow")

    def __init__(self, limit: int, overflow: SubscriberOverflow) -> None:
        check_whole("max_queue", limit, least=1, none=False)
        if overflow not in get_args(SubscriberOverflow):
            allowed = ", ".join(map(repr, get_args(SubscriberOverflow)))
            raise InvalidOption(f"overflow must be one of {allowed}, not {overflow!r}")
        self.limit: int = limit
        self.overflow: SubscriberOverflow = overflow
        self.dropped: int = 0
        """Number of events dropped because the queue was full."""
        self._count = 0
        # By channel with "keep_latest", else by number.
        self._events: OrderedDict[str | int | None, Event] = OrderedDict()

    def __len__(self) -> int:
        return len(self._events)

    def push(self, event: Event) -> bool:
        """Add an event; return False if the subscriber must be closed instead."""
        key: str | int | None
        if self.overflow == "keep_latest":
            key = event.channel if isinstance(event, Message) else None
        else:
            key = self._count = self._count + 1
        if key in self._events:
            self.dropped += 1
        elif len(self._events) >= self.limit:
            if self.overflow == "close":
                return False
            self.dropped += 1
            if self.overflow == "drop_newest":
                return True
            self._events.popitem(last=False)
        self._events[key] = event
        return True

    def pop(self) -> Event:
        """Remove and return the oldest event.

        Raises:
            KeyError: the queue is empty.
        """
        return self._events.popitem(last=False)[1]

    def clear(self) -> None:
        """Discard all events without counting them as dropped."""
        self._events.clear()
