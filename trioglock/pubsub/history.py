"""The history: the latest messages of each channel, for subscribers that resume."""

from __future__ import annotations

import logging
import re
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from sys import getsizeof
from typing import NamedTuple, TypeAlias

import trio

from ..errors import InvalidOption
from ..frames import Data
from ..options import check_seconds, check_whole
from .message import EVERYONE, INCOMING, TOPIC_PREFIX, Event, Message
from .patterns import ChannelFilter

__all__ = [
    "EVERYTHING",
    "HISTORY_BYTES",
    "PAGE_BYTES",
    "FindRetention",
    "MemoryHistory",
    "MessageHistory",
    "MissedMessages",
    "PageSize",
    "Position",
    "Retention",
    "check_history",
    "format_id",
    "id_after",
    "id_before",
    "join_retentions",
    "parse_id",
    "size_of",
]

MAX_PAGE = 256
"""Maximum number of messages that are read at a time."""

PAGE_BYTES = 2**18
"""Intended size of the messages that are read at a time."""

HISTORY_BYTES = 2**28
"""Default limit in bytes for all messages of topics, and separately of other channels."""

EVERYTHING = "0"
"""Used in place of an id by a reader that wants all messages that are kept.

Such a reader has not received any messages yet, so it has missed none. The id ``0-0`` is different:
a hub without messages may have sent it to a client.
"""

ENTRY_SIZE = 320
LOG_SIZE = 1500
"""Approximate size of a log entry without its data, and of a log without entries."""

_logger = logging.getLogger("trioglock.pubsub")

MAX_NUMBER = 2**64 - 1
"""The greatest number in an id of Redis Streams."""

_is_id = re.compile(r"[0-9]{1,20}(-[0-9]{0,20})?").fullmatch

Position: TypeAlias = tuple[int, int]
"""A parsed id. Ids increase like those of Redis Streams: ``"<milliseconds>-<number>"``."""


class Retention(NamedTuple):
    """How long the messages of a channel are kept.

    Args:
        limit: maximum number of messages.
        seconds: maximum age of a message; None for no limit.
    """

    limit: int
    seconds: float | None


FindRetention: TypeAlias = Callable[[str], Retention | None]
"""Returns the retention of a channel, or None if its messages are not kept."""


def join_retentions(default: Retention | None, topics: FindRetention | None) -> FindRetention:
    """Return the retention of all channels of a hub as one function.

    Args:
        default: the retention of channels that clients subscribe to by their path.
        topics: returns the retention of the channel of a topic; None if topics have no history.
    """

    def find(channel: str) -> Retention | None:
        if channel.startswith(TOPIC_PREFIX):
            return None if topics is None else topics(channel)
        return None if channel == INCOMING else default

    return find


@dataclass(frozen=True, slots=True)
class MissedMessages:
    """The known messages after a given one, oldest first.

    Args:
        messages: the messages.
        complete: whether no message is missing between the given one and ``messages``.
        last: the position at which reading ended; the next messages follow it.
        more: whether there are more messages after ``last``.
        incomplete: the channels whose messages are missing, if only some channels are affected.
    """

    messages: tuple[Message, ...]
    complete: bool
    last: str
    more: bool = False
    incomplete: tuple[str, ...] = ()

    @property
    def start(self) -> str:
        """The position before the first of the messages, for a gap."""
        if not self.messages:
            return self.last
        assert self.messages[0].id is not None
        return id_before(self.messages[0].id)


def size_of(events: Iterable[Event]) -> int:
    """Return the total size of messages."""
    return sum(len(event.data) for event in events if isinstance(event, Message))


class PageSize:
    """The number of messages to read at a time, so that they have about ``PAGE_BYTES`` bytes.

    Args:
        count: the number to begin with.
    """

    __slots__ = ("count",)

    def __init__(self, count: int = 16) -> None:
        self.count: int = count

    def adapt(self, messages: Iterable[Message]) -> None:
        """Choose the next count from the size of the messages just read."""
        size = size_of(messages)
        if size > PAGE_BYTES:
            self.count = max(1, self.count * PAGE_BYTES // size)
        elif 2 * size <= PAGE_BYTES:
            self.count = min(2 * self.count, MAX_PAGE)


class MessageHistory(ABC):
    """The latest messages of each channel of a hub."""

    last: str = "0-0"
    """The hub has received all messages for its subscribers up to this id. A subscriber that has
    missed none can resume after this id, even if it has not received any message."""

    def last_of(self, channel: str) -> str:  # noqa: ARG002 - the default
        """Return an id: the hub has received all messages of a channel up to this id.

        Args:
            channel: a channel with a subscriber in this process. With ``sharded=True``, each
                channel has its own ids; otherwise this is :attr:`last`.
        """
        return self.last

    def advance(self, message_id: str) -> None:
        """Set :attr:`last`; called by the broker.

        Args:
            message_id: the id.
        """
        self.last = message_id

    @abstractmethod
    async def after(self, message_id: str, channels: ChannelFilter, count: int) -> MissedMessages:
        """Return the first messages that were published after a given message.

        Args:
            message_id: the id of that message, which need not be on one of the channels.
            channels: the channels.
            count: maximum number of messages.

        Raises:
            InvalidOption: ``message_id`` is not the id of a message.
            BrokerUnavailable: the broker did not answer in time.
            BrokerError: the broker returned an error.
        """

    @abstractmethod
    async def latest(self, channels: ChannelFilter, count: int) -> list[Message]:
        """Return the newest messages, oldest first.

        Args:
            channels: the channels.
            count: maximum number of messages.

        Raises:
            BrokerUnavailable: the broker did not answer in time.
            BrokerError: the broker returned an error.
        """


class ChannelLog:
    """The messages of one channel, each with its number and the time of its publication.

    Args:
        retention: which messages are kept.
        trimmed: number of the newest message that is no longer kept, or of a later message.
        max_bytes: total size in memory beyond which the oldest messages are removed.
    """

    __slots__ = ("_limit", "_max_bytes", "entries", "seconds", "size", "trimmed")

    def __init__(self, retention: Retention, trimmed: int, max_bytes: int) -> None:
        self.entries: deque[tuple[int, float, Message]] = deque()
        self.seconds: float | None = retention.seconds
        self.trimmed: int = trimmed
        self.size: int = LOG_SIZE
        """The approximate size in memory, in bytes."""
        self._limit = retention.limit
        self._max_bytes = max_bytes

    def add(self, number: int, now: float, message: Message) -> None:
        self.entries.append((number, now, message))
        self.size += _memory_of(message)
        while len(self.entries) > 1 and (
            len(self.entries) > self._limit or self.size > self._max_bytes
        ):
            self._remove_oldest()

    def _remove_oldest(self) -> None:
        self.trimmed, _, message = self.entries.popleft()
        self.size -= _memory_of(message)

    def expire(self, now: float) -> None:
        """Remove messages that are too old."""
        if self.seconds is None:
            return
        deadline = now - self.seconds
        while self.entries and self.entries[0][1] < deadline:
            self._remove_oldest()

    def after(self, number: int, count: int) -> list[tuple[int, float, Message]]:
        """Return the first entries after a number."""
        start = bisect_right(self.entries, number, key=itemgetter(0))
        end = min(start + count, len(self.entries))
        # An iterator would begin with the oldest entry.
        return [self.entries[index] for index in range(start, end)]


class ChannelLogs:
    """The logs of one kind of channels, such as topics.

    Args:
        max_bytes: total size in memory beyond which the channels that have been idle longest are
            discarded. One channel may use half of it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.by_channel: dict[str, ChannelLog] = {}
        self.forgotten: int = 0
        """The number of the newest message in the logs that were removed."""
        self._max_bytes = max_bytes
        self._size = 0
        # Logs with the same retention time, grouped. In each group, the log that has been idle
        # longest comes first.
        self._by_seconds: dict[float | None, OrderedDict[str, ChannelLog]] = {}
        self._has_warned = False

    def add(self, number: int, now: float, message: Message, retention: Retention) -> None:
        """Add a message, and discard channels if necessary."""
        channel = message.channel
        log = self.by_channel.get(channel)
        if log is None:
            log = ChannelLog(retention, self.forgotten, self._max_bytes // 2)
            self.by_channel[channel] = log
            self._by_seconds.setdefault(log.seconds, OrderedDict())[channel] = log
            self._size += log.size
        self._by_seconds[log.seconds].move_to_end(channel)
        before = log.size
        log.add(number, now, message)
        self._size += log.size - before
        while self._size > self._max_bytes and len(self.by_channel) > 1:
            self._forget_quietest()

    def expire(self, now: float) -> None:
        """Remove messages that are too old, and logs without messages."""
        for logs in self._by_seconds.values():
            while logs:
                log = next(iter(logs.values()))
                self.expire_log(log, now)
                if log.entries:
                    break
                self._forget_first(logs, log.trimmed)

    def expire_log(self, log: ChannelLog, now: float) -> None:
        """Remove the messages of one log that are too old."""
        before = log.size
        log.expire(now)
        self._size += log.size - before

    def _forget_quietest(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "the history has reached %d KiB: the channels that have been idle longest are "
                "discarded",
                self._max_bytes >> 10,
            )
        number, logs = min(
            (
                (next(iter(logs.values())).entries[-1][0], logs)
                for logs in self._by_seconds.values()
                if logs
            ),
            key=itemgetter(0),
        )
        self._forget_first(logs, number)

    def _forget_first(self, logs: OrderedDict[str, ChannelLog], newest: int) -> None:
        channel, log = logs.popitem(last=False)
        del self.by_channel[channel]
        self._size -= log.size
        self.forgotten = max(self.forgotten, newest)


class MemoryHistory(MessageHistory):
    """A history in this process.

    Args:
        max_bytes: as in :class:`ChannelLogs`, for each kind of channels.
    """

    def __init__(self, max_bytes: int = HISTORY_BYTES) -> None:
        # The ids of a process never overlap with those of an earlier process.
        self._started = time.time_ns() // 1_000_000
        self._count = 0
        # Each trio.run() has its own clock. These times continue from one run to the next.
        self._clock: trio.abc.Clock | None = None
        self._clock_offset = self._newest = 0.0
        self._topics = ChannelLogs(max_bytes)
        self._everyone = ChannelLogs(max_bytes)  # most subscribers also need this channel
        self._others = ChannelLogs(max_bytes)
        self._kinds = (self._topics, self._everyone, self._others)
        self.advance(self._id(0))

    def _id(self, number: int) -> str:
        return format_id((self._started, number))

    def _now(self) -> float:
        clock = trio.lowlevel.current_clock()
        if clock is not self._clock:
            self._clock = clock
            self._clock_offset = max(time.monotonic(), self._newest) - clock.current_time()
        return clock.current_time() + self._clock_offset

    def _kind_of(self, channel: str) -> ChannelLogs:
        if channel == EVERYONE:
            return self._everyone
        return self._topics if channel.startswith(TOPIC_PREFIX) else self._others

    def add(self, channel: str, data: Data, retention: Retention) -> Message:
        """Append a message and return it with its id."""
        self._count += 1
        message_id = self._id(self._count)
        message = Message(channel, data, message_id)
        self.advance(message_id)
        self._newest = self._now()
        self._kind_of(channel).add(self._count, self._newest, message, retention)
        for kind in self._kinds:
            kind.expire(self._newest)
        return message

    def _wanted(self, channels: ChannelFilter) -> tuple[list[ChannelLog], int]:
        """Return the logs of channels, and the highest number a discarded message may have."""
        now = self._now()
        for kind in self._kinds:
            kind.expire(now)
        if channels.channel is None:
            names = [name for kind in self._kinds for name in kind.by_channel if channels(name)]
            forgotten = max(self._everyone.forgotten, self._others.forgotten)
        else:
            names, forgotten = list(channels.names()), 0
        found = list[ChannelLog]()
        for name in names:
            kind = self._kind_of(name)
            log = kind.by_channel.get(name)
            if log is None:
                forgotten = max(forgotten, kind.forgotten)
            else:
                kind.expire_log(log, now)
                found.append(log)
        return found, forgotten

    async def after(self, message_id: str, channels: ChannelFilter, count: int) -> MissedMessages:
        position = parse_id(message_id)
        # No checkpoint after reading: the subscriber would miss messages published in the meantime.
        await trio.lowlevel.checkpoint_if_cancelled()
        if position > (self._started, self._count):
            return MissedMessages((), complete=False, last=self.last)
        started, number = position
        logs, forgotten = self._wanted(channels)
        complete = started == self._started and number >= forgotten
        number = number if started == self._started else 0
        complete = complete and all(number >= log.trimmed for log in logs)
        found = sorted(
            (entry for log in logs for entry in log.after(number, count + 1)), key=itemgetter(0)
        )
        messages = tuple(message for _, _, message in found[:count])
        if len(found) <= count:
            return MissedMessages(messages, complete, self.last)
        return MissedMessages(messages, complete, self._id(found[count - 1][0]), more=True)

    async def latest(self, channels: ChannelFilter, count: int) -> list[Message]:
        await trio.lowlevel.checkpoint_if_cancelled()
        logs, _ = self._wanted(channels)
        newest = (entry for log in logs for entry in islice(reversed(log.entries), count))
        return [message for _, _, message in sorted(newest, key=itemgetter(0))[-count:]]


def _memory_of(message: Message) -> int:
    return getsizeof(message.data) + ENTRY_SIZE


def check_history(history: int | None, seconds: float | None) -> None:
    """Raise InvalidOption if an argument of a broker is invalid."""
    check_whole("history", history, least=1)
    check_seconds("history_seconds", seconds)


def parse_id(text: str) -> Position:
    """Return the two numbers of a message id; the second one defaults to 0.

    Raises:
        InvalidOption: ``text`` is not the id of a message.
    """
    if not _is_id(text):
        raise InvalidOption(f"{text!r:.60} is not the id of a message")
    milliseconds, _, number = text.partition("-")
    # Redis rejects greater numbers.
    return min(int(milliseconds), MAX_NUMBER), min(int(number or 0), MAX_NUMBER)


def format_id(position: Position) -> str:
    """Return the id of a position."""
    return f"{position[0]}-{position[1]}"


def id_after(position: Position) -> str:
    """Return the smallest id that is greater than a position."""
    milliseconds, number = position
    if number < MAX_NUMBER:
        return format_id((milliseconds, number + 1))
    return format_id((milliseconds + 1, 0))


def id_before(message_id: str) -> str:
    """Return the greatest id that is smaller than ``message_id``."""
    milliseconds, number = parse_id(message_id)
    if number:
        return format_id((milliseconds, number - 1))
    return format_id((milliseconds - 1, MAX_NUMBER)) if milliseconds else "0-0"
