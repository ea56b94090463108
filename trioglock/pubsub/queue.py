"""Backlogs: what waits for one subscriber, bounded, and what happens at the bound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Literal, TypeAlias, get_args

from ..errors import InvalidOption
from ..options import check_whole
from .message import Gap, Message

__all__ = ["Backlog", "Event", "SubscriberOverflow", "new_backlog"]

Event: TypeAlias = Message | Gap
"""What a subscriber may be told."""

SubscriberOverflow: TypeAlias = Literal["drop_oldest", "drop_newest", "keep_latest", "close"]
"""What happens to a subscriber who is slower than its messages.

* ``"drop_oldest"``: the oldest message that waits is lost, and counted.
* ``"keep_latest"``: only the newest message of each channel waits, the others are lost and counted.
* ``"close"``: the subscriber is; a browser is closed with 1013, an iteration raises.
"""


class Backlog(ABC):
    """Events that wait for one subscriber, oldest first."""

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.dropped: int = 0
        """Messages that the subscriber will never see."""

    def _lose(self) -> None:
        self.dropped += 1

    @abstractmethod
    def push(self, event: Event) -> bool:
        """Add an event; False if the subscriber is to be disconnected instead."""

    @abstractmethod
    def pop(self) -> Event:
        """Take the oldest; there must be one."""

    @abstractmethod
    def clear(self) -> None:
        """Forget everything; that does not count as dropped."""

    @abstractmethod
    def __len__(self) -> int: ...


class Queue(Backlog):
    """Keeps the order and, as far as there is room, everything."""

    def __init__(
        self, limit: int, overflow: Literal["drop_oldest", "drop_newest", "close"]
    ) -> None:
        super().__init__(limit)
        self._overflow = overflow
        self._events: deque[Event] = deque()

    def push(self, event: Event) -> bool:
        """See :meth:`Backlog.push`."""
        if len(self._events) >= self.limit:
            if self._overflow == "close":
                return False
            self._lose()
            if self._overflow == "drop_newest":
                return True
            self._events.popleft()
        self._events.append(event)
        return True

    def pop(self) -> Event:
        """See :meth:`Backlog.pop`."""
        return self._events.popleft()

    def clear(self) -> None:
        """See :meth:`Backlog.clear`."""
        self._events.clear()

    def __len__(self) -> int:
        return len(self._events)


class Latest(Backlog):
    """Keeps one event of each channel: the newest, at the place of the first that waited.

    So a channel that never rests cannot keep the others from their turn.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._events: dict[str | None, Event] = {}

    def push(self, event: Event) -> bool:
        """See :meth:`Backlog.push`."""
        key = event.channel if isinstance(event, Message) else None
        if key in self._events:
            self._lose()
        elif len(self._events) >= self.limit:
            del self._events[next(iter(self._events))]
            self._lose()
        self._events[key] = event
        return True

    def pop(self) -> Event:
        """See :meth:`Backlog.pop`."""
        return self._events.pop(next(iter(self._events)))

    def clear(self) -> None:
        """See :meth:`Backlog.clear`."""
        self._events.clear()

    def __len__(self) -> int:
        return len(self._events)


def new_backlog(limit: int, overflow: SubscriberOverflow) -> Backlog:
    """An empty one.

    Raises:
        InvalidOption: the limit is not a whole number from 1 on, or there is no such overflow.
    """
    check_whole("max_queue", limit, least=1, none=False)
    if overflow not in get_args(SubscriberOverflow):
        allowed = ", ".join(map(repr, get_args(SubscriberOverflow)))
        raise InvalidOption(f"overflow is one of {allowed}, not {overflow!r}")
    return Latest(limit) if overflow == "keep_latest" else Queue(limit, overflow)
