"""Subscriptions: messages for a program that iterates."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar, cast

import trio

from ..errors import SlowConsumer
from .message import Gap
from .queue import Backlog, Event
from .statistics import Counters
from .subscriber import Waiting

__all__ = ["LoopSubscriber", "Subscription"]

EventT = TypeVar("EventT")


class LoopSubscriber(Waiting):
    """The part of a subscription that the hub knows.

    Args:
        backlog: what waits.
        counters: of the hub.
        gaps: whether gaps are wanted.
    """

    def __init__(self, backlog: Backlog, counters: Counters, *, gaps: bool) -> None:
        super().__init__(backlog, counters)
        self.ended: bool = False
        self.too_slow: bool = False
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self._gaps = gaps

    def put(self, event: Event) -> None:
        """See :meth:`Subscriber.put`."""
        if self.ended or (event.__class__ is Gap and not self._gaps):
            return
        if self.seen is not None and not self.is_news(event):
            return
        if not self.keep(event):
            self.too_slow = True
            self.end()
        elif self.changed:
            self.changed.unpark()

    def end(self) -> None:
        """See :meth:`Subscriber.end`."""
        self.ended = True
        self.changed.unpark_all()


class Subscription(Generic[EventT]):
    """Messages as an async iterator; what :meth:`Hub.subscribe` returns.

    It listens from the moment it is made to its :meth:`close`, or until nobody refers to it any
    more. It is a context manager too::

        with hub.subscribe("news/*") as news:
            async for message in news: ...

    The loop ends when the hub closes. A cancelled wait loses nothing.
    """

    def __init__(self, subscriber: LoopSubscriber, forget: Callable[[], None]) -> None:
        self._subscriber = subscriber
        self._forget = forget

    @property
    def dropped(self) -> int:
        """Messages that this subscriber was too slow for."""
        return self._subscriber.backlog.dropped

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._subscriber)

    def __aiter__(self) -> Subscription[EventT]:
        return self

    async def __anext__(self) -> EventT:
        """The next message.

        Raises:
            SlowConsumer: with the policy ``"close"``, once all that waited was taken.
        """
        subscriber = self._subscriber
        await trio.lowlevel.checkpoint_if_cancelled()
        while not len(subscriber):
            if subscriber.too_slow:
                limit = subscriber.backlog.limit
                raise SlowConsumer(f"{limit} messages waited for this one, and another came")
            if subscriber.ended:
                raise StopAsyncIteration
            await subscriber.changed.park()
        return cast("EventT", subscriber.take())

    def close(self) -> None:
        """Listen no more; a loop over the messages ends. May be repeated."""
        self._forget()
        self._subscriber.forget()
        self._subscriber.end()

    def __enter__(self) -> Subscription[EventT]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Only the registry: garbage may be collected outside of any trio run.
        self._forget()
