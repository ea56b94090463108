"""Subscribers: their interface and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from .message import EVERYONE, TOPIC_PREFIX, Event, Gap, Message
from .patterns import ChannelFilter, Matcher, compile_pattern

__all__ = ["Counters", "Subscriber", "SubscriberRegistry"]


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
    """Number of times that the queue of a subscription was at least half full after a message."""


class Subscriber(ABC):
    """Receives events from a hub. Its methods neither block nor raise."""

    @property
    def queued_bytes(self) -> int:
        """Size of the messages in its queue, as for ``max_queue_bytes``. The default is 0."""
        return 0

    @abstractmethod
    def put(self, event: Event) -> None:
        """Accept an event, or apply the overflow policy."""

    @abstractmethod
    def end(self) -> None:
        """Called when the hub closes; no more events follow."""


class SubscriberRegistry:
    """The subscribers of a hub, by channel and by pattern."""

    def __init__(self) -> None:
        # Dicts, because they preserve the order in which subscribers were added.
        self._all: dict[Subscriber, None] = {}
        self._gaps_only: dict[Subscriber, None] = {}
        self._channels: dict[str, dict[Subscriber, None]] = {}
        self._patterns: dict[str, dict[Subscriber, None]] = {}
        self._matchers: dict[str, Matcher] = {}  # of these patterns

    def __len__(self) -> int:
        return len(self._all) + len(self._gaps_only)

    @property
    def channels(self) -> int:
        """Number of channels that have a subscriber, not counting patterns."""
        return len(self._channels)

    @property
    def queued_bytes(self) -> int:
        """Total size of the messages in the queues of all subscribers."""
        # Copies, because another thread may call this.
        return sum(subscriber.queued_bytes for subscriber in (*self._all, *self._gaps_only))

    def filters(self) -> list[ChannelFilter]:
        """The channels and patterns that have subscribers."""
        # Copies: garbage collection may remove a subscription at any time.
        channels = [ChannelFilter(channel, literal=True) for channel in list(self._channels)]
        return [*channels, *map(ChannelFilter, list(self._patterns))]

    def _table(self, channels: ChannelFilter) -> dict[str, dict[Subscriber, None]]:
        return self._patterns if channels.channel is None else self._channels

    def add(self, subscriber: Subscriber, channels: ChannelFilter | None) -> bool:
        """Add a subscriber to channels; with None, to gaps only.

        Returns:
            Whether it is the first subscriber of this channel or pattern.
        """
        if channels is None:
            self._gaps_only[subscriber] = None
            return False
        self._all[subscriber] = None
        table = self._table(channels)
        members = table.get(channels.pattern)
        if members is not None:
            members[subscriber] = None
            return False
        table[channels.pattern] = {subscriber: None}
        if channels.channel is None:
            self._matchers[channels.pattern] = compile_pattern(channels.pattern)
        return True

    def remove(self, subscriber: Subscriber, channels: ChannelFilter | None) -> bool:
        """Remove a subscriber, if it is present, from its channel or pattern.

        Returns:
            Whether it was the last subscriber of this channel or pattern.
        """
        self._all.pop(subscriber, None)
        self._gaps_only.pop(subscriber, None)
        if channels is None:
            return False
        table = self._table(channels)
        members = table.get(channels.pattern)
        if members is None:
            return False
        members.pop(subscriber, None)
        if members:
            return False
        if channels.channel is None:
            self._matchers.pop(channels.pattern, None)
        return table.pop(channels.pattern, None) is not None

    def _find(self, channel: str) -> list[Subscriber]:
        # Copies: garbage collection may remove a subscription at any time.
        if channel == EVERYONE:
            return list(self._all)
        found = list(self._channels.get(channel, ()))
        if self._matchers:
            for pattern, matches in self._matchers.copy().items():
                if matches(channel):
                    found += list(self._patterns.get(pattern, ()))
        return found

    def deliver(self, message: Message) -> int:
        """Deliver a message to its subscribers and return their number."""
        subscribers = self._find(message.channel)
        for subscriber in subscribers:
            subscriber.put(message)
        return len(subscribers)

    def deliver_gap(self, gap: Gap) -> bool:
        """Deliver a gap to the subscribers that may have missed a message.

        A subscriber to gaps alone receives it if others do, or if it applies to all channels.

        Returns:
            Whether any subscriber may have missed a message.
        """
        found = list(self._all) if gap.channel is None else self._find(gap.channel)
        if gap.channel is None or found:
            found += list(self._gaps_only)
        for subscriber in found:
            subscriber.put(gap)
        return bool(found) or gap.channel is None

    def deliver_plain_gap(self, gap: Gap, has_history: Callable[[str], bool]) -> bool:
        """Deliver a gap on ``incoming``, which applies to all channels without a history."""
        topics = [channel for channel in list(self._channels) if channel.startswith(TOPIC_PREFIX)]
        if has_history(EVERYONE):
            for channel in topics:
                if not has_history(channel):
                    for subscriber in list(self._channels.get(channel, ())):
                        subscriber.put(gap)
            return self.deliver_gap(gap)
        complete = {
            subscriber
            for channel in topics
            if has_history(channel)
            for subscriber in list(self._channels.get(channel, ()))
        }
        gap = Gap(gap.seconds)
        for subscriber in (*self._all, *self._gaps_only):
            if subscriber not in complete:
                subscriber.put(gap)
        return True

    def end(self) -> None:
        """End and remove all subscribers."""
        for subscriber in (*self._all, *self._gaps_only):
            subscriber.end()
        for table in (self._all, self._gaps_only, self._channels, self._patterns, self._matchers):
            table.clear()
