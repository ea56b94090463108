"""A subscriber with a queue, which reads from the history when the queue was too short."""

from __future__ import annotations

from dataclasses import replace

from ..errors import BrokerError, BrokerUnavailable
from .history import (
    EVERYTHING,
    MessageHistory,
    MissedMessages,
    PageSize,
    Position,
    format_id,
    id_before,
    parse_id,
)
from .message import Event, Gap, Message
from .patterns import ChannelFilter
from .queue import MessageQueue
from .subscribers import Counters, Subscriber

__all__ = ["QueuedSubscriber"]


class QueuedSubscriber(Subscriber):
    """A subscriber with a queue for the events that it cannot take immediately.

    It is *behind* after :meth:`resume_after`, and after its queue was full with
    ``overflow="resume"``. While it is behind, it ignores new messages; when the events in the queue
    have been taken, :meth:`read_history` reads the next messages, until there are no more.

    Args:
        channels: the channels.
        queue: an empty queue.
        counters: the counters of the hub.
        history: the history of the hub, if there is one.
    """

    def __init__(
        self,
        channels: ChannelFilter,
        queue: MessageQueue,
        counters: Counters,
        history: MessageHistory | None,
    ) -> None:
        self.channels: ChannelFilter = channels
        self.counters: Counters = counters
        self.queue: MessageQueue = queue
        self.resuming: bool = False
        """Whether new events have to pass :meth:`admits`."""
        self._history = history
        self._replay: list[Event] = []  # newest first; delivered before the queue
        self._behind: str | None = None  # id of the message after which it reads
        self._wants_everything = False  # until the history has been read once
        self._page = PageSize()
        self._is_reading = False
        self._overrun = False  # the queue was full while it was reading
        self._skip_until: Position | None = None  # read from the history before the hub received it

    def __len__(self) -> int:
        return len(self._replay) + len(self.queue)

    @property
    def queued_bytes(self) -> int:
        return self.queue.bytes

    @property
    def is_behind(self) -> bool:
        """Whether the next messages have to be read from the history."""
        return self._behind is not None

    @property
    def is_reading(self) -> bool:
        """Whether :meth:`read_history` is running."""
        return self._is_reading

    def resume_after(self, message_id: str) -> None:
        """Begin with the messages after the one with this id.

        Args:
            message_id: the id; ``EVERYTHING`` for all messages that are kept, without a gap before
                them.

        Raises:
            InvalidOption: ``message_id`` is not the id of a message.
        """
        self._behind = format_id(parse_id(message_id))
        self._wants_everything = message_id == EVERYTHING
        self.resuming = True

    def admits(self, event: Event) -> bool:
        """Whether to take an event while resuming, because it will not be read from the history."""
        if isinstance(event, Gap):
            self._skip_until = None
            return True
        if event.id is None:
            return True
        if self._behind is not None:
            self._overrun = self._overrun or self.queue.full
            return self._is_reading and not self._overrun
        if self._skip_until is not None and parse_id(event.id) <= self._skip_until:
            return False
        self.resuming = False
        return True

    def enqueue(self, event: Event) -> bool:
        """Add an event to the queue; return False if the subscriber must be closed instead."""
        queue = self.queue
        if self._behind is not None and isinstance(event, Gap):
            # A subscriber that resumed after this id would skip messages that have not been read
            # yet.
            event = replace(event, id=None)
        can_resume = queue.overflow == "resume" and self._history is not None
        if can_resume and queue.full and isinstance(event, Message) and event.id is not None:
            self._behind = id_before(event.id)
            self.resuming = True
            return True
        before = queue.dropped
        accepted = queue.push(event)
        self.counters.dropped += queue.dropped - before
        return accepted

    def pop(self) -> Event:
        """Remove and return the oldest event; there must be one."""
        return self._replay.pop() if self._replay else self.queue.pop()

    async def read_history(self, *, required: bool = False) -> None:
        """Read the next messages, until events may be available or the subscriber is not behind.

        If the history cannot be read, a gap is added, and new messages follow.

        Args:
            required: raise an exception instead of adding a gap.

        Raises:
            BrokerUnavailable, BrokerError: only if ``required`` is true.
        """
        assert self._history is not None
        assert self._behind is not None
        history, finished = self._history, False
        self._is_reading, self._overrun = True, False
        try:
            await self._wait_subscribed()
            missed = await history.after(self._behind, self.channels, self._page.count)
            if self._wants_everything:
                missed = replace(missed, complete=True)
            finished = True
        except (BrokerUnavailable, BrokerError):
            if required:
                raise
            missed = MissedMessages((), complete=False, last=self._behind)
            finished = True
        finally:
            self._is_reading = False
            if not finished:  # cancelled or raised
                self.queue.discard(None)
        self._wants_everything = False
        self._page.adapt(missed.messages)
        self._replay = list(reversed(missed.messages))
        if self.queue.gaps and not missed.complete:
            self._replay.append(Gap(0.0, missed.start))
        last = parse_id(missed.last)
        if missed.more or self._overrun:
            self._behind = missed.last
            self.queue.discard(None)
        else:
            self._behind, self._skip_until = None, last
            self.queue.discard(last)

    async def _wait_subscribed(self) -> None:
        """Wait until the messages that follow those in the history are received."""

    def clear(self) -> None:
        """Discard all events."""
        self._behind = None
        self._replay.clear()
        self.queue.clear()
