"""Subscribers: their interface, their registry, and subscriptions to iterate over."""

from __future__ import annotations

import fnmatch
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import trio

from ..errors import SlowConsumer
from .history import MissedMessages, parse_id
from .message import EVERYONE, Event, Gap, Message
from .queue import MessageQueue

__all__ = [
    "Counters",
    "LoopSubscriber",
    "QueuedSubscriber",
    "Subscriber",
    "SubscriberRegistry",
    "Subscription",
    "matches",
]

EventT = TypeVar("EventT")

_WILDCARDS = frozenset("*?[")


@dataclass(slots=True)
class Counters:
    """The counters of a hub, which its subscribers increment; see :class:`HubStatistics`."""

    received: int = 0
    delivered: int = 0
    dropped: int = 0
    disconnected: int = 0
    gaps: int = 0
    failures: int = 0
    nearly_full: int = 0
    """Number of times that a message left the queue of a subscription at least half full."""


class Subscriber(ABC):
    """Receives events from a hub. Its methods neither block nor raise."""

    @abstractmethod
    def put(self, event: Event) -> None:
        """Take an event, or apply the overflow policy."""

    @abstractmethod
    def end(self) -> None:
        """Called when the hub closes; no more events follow."""


class QueuedSubscriber(Subscriber):
    """A subscriber with a queue for the events that it cannot take immediately."""

    def __init__(self, queue: MessageQueue, counters: Counters) -> None:
        self.counters: Counters = counters
        self.queue: MessageQueue = queue
        self._missed: list[Event] = []  # newest first; delivered before the queue
        self.skip_until: tuple[int, int] | None = None
        """See :class:`MissedMessages`; None once a newer message has arrived."""

    def __len__(self) -> int:
        return len(self._missed) + len(self.queue)

    def catch_up(self, missed: MissedMessages, wants: Callable[[str], bool], *, gaps: bool) -> None:
        """Deliver the missed messages, filtered by channel with ``wants``, before new ones.

        With ``gaps``, a gap precedes them if messages may be missing.
        """
        self._missed = [one for one in reversed(missed.messages) if wants(one.channel)]
        if gaps and not missed.complete:
            self._missed.append(Gap(0.0))
        self.skip_until = missed.skip_until

    def is_duplicate(self, event: Event) -> bool:
        """Whether the subscriber has already received this event from another hub."""
        message_id = event.id if isinstance(event, Message) else None
        if self.skip_until and message_id is not None and parse_id(message_id) <= self.skip_until:
            return True
        self.skip_until = None
        return False

    def enqueue(self, event: Event) -> bool:
        """Add an event to the queue; return False if the subscriber must be closed instead."""
        before = self.queue.dropped
        accepted = self.queue.push(event)
        self.counters.dropped += self.queue.dropped - before
        return accepted

    def pop(self) -> Event:
        """Remove and return the oldest event; there must be one."""
        return self._missed.pop() if self._missed else self.queue.pop()

    def clear(self) -> None:
        """Discard all events."""
        self._missed.clear()
        self.queue.clear()


class LoopSubscriber(QueuedSubscriber):
    """The state of a subscription.

    The hub refers to this object and not to the subscription, so that an abandoned subscription
    is garbage collected.
    """

    def __init__(self, queue: MessageQueue, counters: Counters, *, gaps: bool) -> None:
        super().__init__(queue, counters)
        self.ended: bool = False
        self.too_slow: bool = False
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self._gaps = gaps

    def put(self, event: Event) -> None:
        if self.ended or (event.__class__ is Gap and not self._gaps):
            return
        if self.skip_until is not None and self.is_duplicate(event):
            return
        if not self.enqueue(event):
            self.too_slow = True
            self.end()
            return
        if self.changed:
            self.changed.unpark()
        if 2 * len(self.queue) >= self.queue.limit:
            self.counters.nearly_full += 1

    def end(self) -> None:
        self.ended = True
        self.changed.unpark_all()


class Subscription(Generic[EventT]):
    """An async iterator over messages, returned by :meth:`Hub.subscribe`.

    It receives messages from its creation until :meth:`close`, or until it is garbage collected.
    As a context manager it closes at the end of the block::

        with hub.subscribe("news/*") as news:
            async for message in news: ...

    The loop ends when the hub closes. Cancelling the iteration loses no message.
    """

    def __init__(self, subscriber: LoopSubscriber, remove: Callable[[], None]) -> None:
        self._subscriber = subscriber
        self._remove = remove

    @property
    def dropped(self) -> int:
        """Number of messages dropped because the queue was full."""
        return self._subscriber.queue.dropped

    def __len__(self) -> int:
        """Number of messages that are ready to be read."""
        return len(self._subscriber)

    def __aiter__(self) -> Subscription[EventT]:
        return self

    async def __anext__(self) -> EventT:
        """Wait for the next message.

        Raises:
            SlowConsumer: a message arrived while the queue was full, with ``overflow="close"``. The
                queued messages are returned first.
        """
        subscriber = self._subscriber
        await trio.lowlevel.checkpoint_if_cancelled()
        while not len(subscriber):
            if subscriber.too_slow:
                raise SlowConsumer(
                    "the subscription was closed: a message arrived while its queue held "
                    f"max_queue={subscriber.queue.limit} messages"
                )
            if subscriber.ended:
                raise StopAsyncIteration
            await subscriber.changed.park()
        return cast("EventT", subscriber.pop())

    def close(self) -> None:
        """Stop receiving messages and end a running loop. Calling it again does nothing."""
        self._remove()
        self._subscriber.clear()
        self._subscriber.end()

    def __enter__(self) -> Subscription[EventT]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Only remove: garbage collection may happen outside of a trio run.
        self._remove()


class SubscriberRegistry:
    """The subscribers of a hub, by channel and by pattern."""

    def __init__(self) -> None:
        # Dicts, because they keep the order in which subscribers were added.
        self._all: dict[Subscriber, None] = {}
        self._gaps_only: dict[Subscriber, None] = {}
        self._channels: dict[str, dict[Subscriber, None]] = {}
        self._patterns: dict[Subscriber, re.Pattern[str]] = {}

    def __len__(self) -> int:
        return len(self._all) + len(self._gaps_only)

    @property
    def channels(self) -> int:
        """Number of channels that have a subscriber, not counting patterns."""
        return len(self._channels)

    def add(self, subscriber: Subscriber, pattern: str | None, *, literal: bool = False) -> None:
        """Add a subscriber to the channels that match a pattern; with None, to gaps only.

        A ``literal`` pattern is the name of one channel, even if it contains wildcards.
        """
        if pattern is None:
            self._gaps_only[subscriber] = None
            return
        self._all[subscriber] = None
        if literal or _WILDCARDS.isdisjoint(pattern):
            self._channels.setdefault(pattern, {})[subscriber] = None
        else:
            self._patterns[subscriber] = re.compile(fnmatch.translate(pattern))

    def remove(self, subscriber: Subscriber, pattern: str | None) -> None:
        """Remove a subscriber, if it is present."""
        self._all.pop(subscriber, None)
        self._gaps_only.pop(subscriber, None)
        self._patterns.pop(subscriber, None)
        if pattern is not None and (members := self._channels.get(pattern)) is not None:
            members.pop(subscriber, None)
            if not members:
                del self._channels[pattern]

    def deliver(self, message: Message) -> int:
        """Deliver a message to its subscribers and return their number."""
        # Copies: garbage collection may remove a subscription at any time.
        channel = message.channel
        if channel == EVERYONE:
            subscribers = list(self._all)
        else:
            subscribers = list(self._channels.get(channel, ()))
            if self._patterns:
                patterns = list(self._patterns.items())
                subscribers += [one for one, pattern in patterns if pattern.match(channel)]
        for subscriber in subscribers:
            subscriber.put(message)
        return len(subscribers)

    def deliver_gap(self, gap: Gap) -> None:
        """Deliver a gap to every subscriber."""
        for subscriber in (*self._all, *self._gaps_only):
            subscriber.put(gap)

    def end(self) -> None:
        """End and remove all subscribers."""
        for subscriber in (*self._all, *self._gaps_only):
            subscriber.end()
        for table in (self._all, self._gaps_only, self._channels, self._patterns):
            table.clear()


def matches(pattern: str, channel: str) -> bool:
    """Whether a subscriber to ``pattern`` receives a message on ``channel``.

    Patterns follow Redis: ``*`` matches any number of characters, including slashes, ``?`` matches
    one character, and ``[ae]`` matches one of those listed.
    """
    return channel in (EVERYONE, pattern) or fnmatch.fnmatchcase(channel, pattern)
