"""The queue of a slow subscriber: bounded, with a policy for when it is full."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import replace
from sys import getsizeof
from typing import Literal, TypeAlias, get_args

from ..options import check_choice, check_whole
from .history import Position, id_before, parse_id
from .message import Event, Gap, Message

__all__ = ["MessageQueue", "SubscriberOverflow", "make_queue"]

SubscriberOverflow: TypeAlias = Literal[
    "resume", "drop_oldest", "drop_newest", "keep_latest", "close"
]
"""What happens when the queue of a subscriber is full.

* ``"resume"``: the subscriber reads the next messages from the history once its queue is empty.
  Messages without a history are dropped as with ``"drop_oldest"``.
* ``"drop_oldest"``: the oldest message in the queue is dropped.
* ``"drop_newest"``: the new message is dropped.
* ``"keep_latest"``: the queue holds only the newest message of each channel. Without a history, a
  message takes the position of the one it replaces, so a busy channel never delays the others.
* ``"close"``: the subscriber is closed: a connection closes with code 1013, and a subscription
  raises :exc:`SlowConsumer`.

Dropped messages are counted, and a :class:`Gap` takes their position if the subscriber receives
gaps.
"""


class MessageQueue:
    """Events for one subscriber, oldest first; see :func:`make_queue`.

    Gaps are not limited: they do not count as messages, and two in a row become one.
    """

    __slots__ = (
        "_bytes",
        "_events",
        "_messages",
        "dropped",
        "gaps",
        "limit",
        "max_bytes",
        "overflow",
    )

    def __init__(
        self, limit: int, overflow: SubscriberOverflow, *, max_bytes: int, gaps: bool = False
    ) -> None:
        self.limit: int = limit
        self.max_bytes: int = max_bytes
        self.overflow: SubscriberOverflow = overflow
        self.gaps: bool = gaps
        """Whether a gap takes the place of dropped messages."""
        self.dropped: int = 0
        """Number of messages dropped because the queue was full."""
        self._events: deque[Event] = deque()
        self._messages = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def bytes(self) -> int:
        """Total size of the messages."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether the queue holds ``limit`` messages, or ``max_bytes`` bytes."""
        return self._messages >= self.limit or self._bytes >= self.max_bytes

    @property
    def half_full(self) -> bool:
        """Whether the queue is at least half full."""
        return 2 * len(self) >= self.limit or 2 * self._bytes >= self.max_bytes

    def push(self, event: Event) -> bool:
        """Add an event; return False if the subscriber must be closed instead."""
        events = self._events
        if isinstance(event, Gap):
            if events and isinstance(events[-1], Gap):
                event = _join(events.pop(), event)
            events.append(event)
            return True
        while self.full:
            if self.overflow == "close":
                return False
            self._count_drop()
            if self.overflow == "drop_newest":
                if self.gaps:
                    self.push(_join(event))
                return True
            self._drop_oldest()
        events.append(event)
        self._count(event)
        return True

    def _count(self, event: Event, number: int = 1) -> None:
        """Count a message that was added, or removed if ``number`` is -1."""
        if isinstance(event, Message):
            self._messages += number
            self._bytes += number * getsizeof(event.data)

    def _count_drop(self) -> None:  # an assignment would declare ``dropped`` again in a subclass
        self.dropped += 1

    def _drop_oldest(self) -> None:
        events = self._events
        dropped = events.popleft()
        if isinstance(dropped, Gap):
            gap, dropped = dropped, events.popleft()
            self._count(dropped, -1)
            dropped = _join(gap, dropped)
        else:
            self._count(dropped, -1)
        if self.gaps:
            events.appendleft(_join(dropped, events.popleft() if self._follows_gap() else None))

    def _follows_gap(self) -> bool:
        return bool(self._events) and isinstance(self._events[0], Gap)

    def pop(self) -> Event:
        """Remove and return the oldest event; there must be one."""
        event = self._events.popleft()
        self._count(event, -1)
        return event

    def discard(self, until: Position | None) -> None:
        """Remove messages with ids up to a position, or with any id for None; keep gaps."""
        events = list(self._events)
        self.clear()
        for event in events:
            if (
                isinstance(event, Gap)
                or event.id is None
                or (until is not None and parse_id(event.id) > until)
            ):
                self.push(event)

    def clear(self) -> None:
        """Discard all events without counting them as dropped."""
        self._events.clear()
        self._messages = self._bytes = 0


class LatestQueue(MessageQueue):
    """The queue for ``"keep_latest"``. All gaps of the broker count as one channel.

    If messages have ids, a newer message goes to the end, so the ids that a subscriber receives
    always increase, and it can resume after each of them.
    """

    __slots__ = ("_first_gap", "_latest", "_replaced")

    def __init__(
        self, limit: int, overflow: SubscriberOverflow, *, max_bytes: int, gaps: bool = False
    ) -> None:
        super().__init__(limit, overflow, max_bytes=max_bytes, gaps=gaps)
        self._latest: OrderedDict[str | None, Event] = OrderedDict()
        self._replaced: dict[str | None, Gap] = {}  # gaps before the messages of these channels
        self._first_gap: Gap | None = None

    def __len__(self) -> int:
        return len(self._latest) + len(self._replaced) + (self._first_gap is not None)

    @property
    def full(self) -> bool:
        return False  # a new message always has a position

    def push(self, event: Event) -> bool:
        channel = event.channel if isinstance(event, Message) else None
        replaced = self._latest.get(channel)
        if isinstance(replaced, Message):
            self._count_drop()
            if event.id is not None:
                self._latest.move_to_end(channel)
                self._first_gap = self._gap(replaced, self._first_gap)
            elif (gap := self._gap(replaced)) is not None:
                self._replaced[channel] = gap
        elif replaced is not None:
            event = _join(replaced, event)
        elif len(self._latest) >= self.limit:
            self._drop_oldest_but(channel)
        if replaced is not None:
            self._count(replaced, -1)
        self._latest[channel] = event
        self._count(event)
        while self._bytes > self.max_bytes and len(self._latest) > 1:
            self._drop_oldest_but(channel)
        return True

    def _drop_oldest_but(self, kept: str | None) -> None:
        self._count_drop()
        oldest = next(channel for channel in self._latest if channel != kept)
        dropped = self._latest.pop(oldest)
        self._count(dropped, -1)
        self._replaced.pop(oldest, None)
        self._first_gap = self._gap(dropped, self._first_gap)

    def _gap(self, *dropped: Event | None) -> Gap | None:
        return _join(*dropped) if self.gaps else None

    def pop(self) -> Event:
        channel = next(iter(self._latest))
        if (gap := self._first_gap) is not None:
            self._first_gap = None
            # The gap precedes all waiting messages, some of which may lie between dropped ones.
            following = self._latest[channel].id
            return gap if following is None else replace(gap, id=id_before(following))
        if (replaced := self._replaced.pop(channel, None)) is not None:
            return replaced
        event = self._latest.popitem(last=False)[1]
        self._count(event, -1)
        return event

    def discard(self, until: Position | None) -> None:
        for channel, event in list(self._latest.items()):
            if isinstance(event, Gap) or event.id is None:
                continue
            if until is None or parse_id(event.id) <= until:
                del self._latest[channel]
                self._count(event, -1)
                self._replaced.pop(channel, None)

    def clear(self) -> None:
        super().clear()
        self._latest.clear()
        self._replaced.clear()
        self._first_gap = None


def _join(*events: Event | None) -> Gap:
    """Return one gap in place of dropped messages and gaps."""
    found = [event for event in events if event is not None]
    ids = [event.id for event in found if event.id is not None]
    seconds = max([event.seconds for event in found if isinstance(event, Gap)], default=0.0)
    channels = {event.channel for event in found}
    channel = channels.pop() if len(channels) == 1 else None
    return Gap(seconds, max(ids, key=parse_id, default=None), channel or None)


def make_queue(
    limit: int, overflow: SubscriberOverflow, *, max_bytes: int, gaps: bool = False
) -> MessageQueue:
    """Return an empty queue; raise InvalidOption if an argument is invalid."""
    check_whole("max_queue", limit, least=1, none=False)
    check_whole("max_queue_bytes", max_bytes, least=1, none=False)
    check_choice("overflow", overflow, get_args(SubscriberOverflow))
    kind = LatestQueue if overflow == "keep_latest" else MessageQueue
    return kind(limit, overflow, max_bytes=max_bytes, gaps=gaps)
