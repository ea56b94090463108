"""Subscribers: those who are told events, and what they have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from .history import Missed, parse_id
from .message import Gap, Message
from .queue import Backlog, Event
from .statistics import Counters

__all__ = ["Subscriber", "Waiting"]


class Subscriber(ABC):
    """One who is told events. Neither method waits, and neither raises."""

    @abstractmethod
    def put(self, event: Event) -> None:
        """Take an event, or let the subscriber's policy decide."""

    @abstractmethod
    def end(self) -> None:
        """The hub has closed: nothing more will come."""


class Waiting(Subscriber):
    """A subscriber for whom events may have to wait.

    Args:
        backlog: what waits.
        counters: of the hub.
    """

    def __init__(self, backlog: Backlog, counters: Counters) -> None:
        self.counters: Counters = counters
        self.backlog: Backlog = backlog
        self.missed: deque[Event] = deque()
        """What the subscriber asked for from the history; it comes before the backlog."""
        self.seen: tuple[int, int] | None = None
        """Of :class:`Missed`, until something newer has come."""

    def __len__(self) -> int:
        return len(self.missed) + len(self.backlog)

    def catch_up(self, missed: Missed, concerns: Callable[[str], bool], *, gaps: bool) -> None:
        """Let what was missed come first.

        Args:
            missed: on any channel.
            concerns: whether a channel is one of the subscriber's.
            gaps: whether it is told that something may be missing.
        """
        if gaps and not missed.complete:
            self.missed.append(Gap(0.0))
        self.missed.extend(one for one in missed.messages if concerns(one.channel))
        self.seen = missed.seen

    def is_news(self, event: Event) -> bool:
        """Whether the subscriber cannot have seen this event at another hub."""
        number = event.id if isinstance(event, Message) else None
        if self.seen is not None and number is not None and parse_id(number) <= self.seen:
            return False
        self.seen = None
        return True

    def keep(self, event: Event) -> bool:
        """Let an event wait; False if the subscriber is to be disconnected."""
        dropped = self.backlog.dropped
        kept = self.backlog.push(event)
        self.counters.dropped += self.backlog.dropped - dropped
        return kept

    def take(self) -> Event:
        """The event that has waited longest; there must be one."""
        return self.missed.popleft() if self.missed else self.backlog.pop()

    def forget(self) -> None:
        """Nothing waits any more."""
        self.missed.clear()
        self.backlog.clear()
