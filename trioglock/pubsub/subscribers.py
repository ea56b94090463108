"""The registry: who listens to what, and the loop that hands a message to all of them."""

from __future__ import annotations

import fnmatch
import re

from .message import EVERYONE, Gap, Message
from .subscriber import Subscriber

__all__ = ["Registry", "is_pattern", "matches"]

_WILDCARDS = frozenset("*?[")


def is_pattern(channel: str) -> bool:
    """Whether a name has wildcards: a name without is looked up, not matched."""
    return not _WILDCARDS.isdisjoint(channel)


def matches(pattern: str, channel: str) -> bool:
    """Whether a message on a channel is for those who listen to a pattern, or a channel.

    Patterns are Redis's: ``*`` for anything, ``?`` for one character, ``[ae]`` for one of these; a
    slash is a character like any other.
    """
    return channel in (EVERYONE, pattern) or fnmatch.fnmatchcase(channel, pattern)


class Registry:
    """Subscribers by channel, and by pattern."""

    def __init__(self) -> None:
        # Dicts for their order: first come, first served.
        self._all: dict[Subscriber, None] = {}
        self._only_gaps: dict[Subscriber, None] = {}
        self._channels: dict[str, dict[Subscriber, None]] = {}
        self._patterns: dict[Subscriber, re.Pattern[str]] = {}

    def __len__(self) -> int:
        return len(self._all) + len(self._only_gaps)

    @property
    def channels(self) -> int:
        """How many channels have a subscriber, patterns aside."""
        return len(self._channels)

    def add(self, subscriber: Subscriber, pattern: str | None, *, literal: bool = False) -> None:
        """Enter a subscriber.

        Args:
            subscriber: the new one.
            pattern: of the channels it listens to; None for gaps alone.
            literal: the pattern is the name of a channel, whatever characters it has.
        """
        if pattern is None:
            self._only_gaps[subscriber] = None
            return
        self._all[subscriber] = None
        if literal or not is_pattern(pattern):
            self._channels.setdefault(pattern, {})[subscriber] = None
        else:
            self._patterns[subscriber] = re.compile(fnmatch.translate(pattern))

    def remove(self, subscriber: Subscriber, pattern: str | None) -> None:
        """Take a subscriber out, if it is still in."""
        self._all.pop(subscriber, None)
        self._only_gaps.pop(subscriber, None)
        self._patterns.pop(subscriber, None)
        if pattern is not None and (here := self._channels.get(pattern)) is not None:
            here.pop(subscriber, None)
            if not here:
                del self._channels[pattern]

    def deliver(self, message: Message) -> int:
        """Hand a message to all whom it concerns; how many they were."""
        channel = message.channel
        if channel == EVERYONE:
            concerned = list(self._all)
        else:
            concerned = list(self._channels.get(channel, ()))
            if self._patterns:
                # A copy: garbage collection may remove a subscription at any moment.
                patterns = list(self._patterns.items())
                concerned += [one for one, pattern in patterns if pattern.match(channel)]
        for subscriber in concerned:
            subscriber.put(message)
        return len(concerned)

    def tell(self, gap: Gap) -> None:
        """Tell everyone of a gap."""
        for subscriber in (*self._all, *self._only_gaps):
            subscriber.put(gap)

    def end(self) -> None:
        """Tell everyone that nothing more will come, and forget them."""
        for subscriber in (*self._all, *self._only_gaps):
            subscriber.end()
        self._all.clear()
        self._only_gaps.clear()
        self._channels.clear()
        self._patterns.clear()
