"""Subscriptions: async iterators over messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

import trio

from ..errors import SlowConsumer
from .broker import BrokerSession
from .message import Event, Gap
from .patterns import ChannelFilter
from .queue import MessageQueue
from .queued_subscriber import QueuedSubscriber
from .subscribers import Counters

__all__ = ["LoopSubscriber", "Subscription"]

EventT = TypeVar("EventT")


class LoopSubscriber(QueuedSubscriber):
    """The state of a subscription.

    The hub refers to this object instead of the subscription, so that an abandoned subscription
    can be garbage collected.
    """

    def __init__(
        self,
        channels: ChannelFilter,
        queue: MessageQueue,
        counters: Counters,
        session: BrokerSession,
    ) -> None:
        super().__init__(channels, queue, counters, session.history)
        self.session: BrokerSession = session
        self.ended: bool = False
        self.too_slow: bool = False
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def put(self, event: Event) -> None:
        if self.ended or (event.__class__ is Gap and not self.queue.gaps):
            return
        if self.resuming and not self.admits(event):
            self.counters.nearly_full += self.is_behind
            return
        if not self.enqueue(event):
            self.too_slow = True
            self.end()
            return
        if self.changed:
            self.changed.unpark()
        if self.queue.half_full:
            self.counters.nearly_full += 1

    async def _wait_subscribed(self) -> None:
        if not self.session.is_subscribed(self.channels):
            await self.session.wait_subscribed(self.channels)

    def end(self) -> None:
        self.ended = True
        self.changed.unpark_all()


class Subscription(Generic[EventT]):
    """An async iterator over messages, returned by :meth:`Hub.subscribe`.

    A new subscription immediately receives the messages that this process publishes, and once
    :meth:`ready` has returned, also those of other processes. It ends with :meth:`close`, or when
    it is garbage collected. As a context manager, it is closed at the end of the block::

        with hub.subscribe("news/*") as news:
            await news.ready()
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
        """Number of messages and gaps ready to be read; more may follow from the history."""
        return len(self._subscriber)

    async def ready(self) -> None:
        """Wait until the broker has confirmed the subscription.

        After that, every message that any process publishes is received.

        Raises:
            BrokerUnavailable: the broker did not confirm the subscription in time.
            BrokerError: the broker returned an error.
        """
        await self._subscriber.session.wait_subscribed(self._subscriber.channels)

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
            if subscriber.is_behind and not subscriber.is_reading:
                await subscriber.read_history()
                subscriber.changed.unpark_all()
                continue
            if subscriber.too_slow:
                raise SlowConsumer(
                    "the subscription was closed: a message arrived while its queue was full, with "
                    f"max_queue={subscriber.queue.limit} messages or "
                    f"max_queue_bytes={subscriber.queue.max_bytes} bytes"
                )
            if subscriber.ended and not subscriber.is_behind:
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
        # Do nothing else here: garbage collection may happen outside of a trio run.
        self._remove()
