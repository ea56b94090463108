"""The listeners of a hub at work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from .listeners import Listener, PlainListener, call_async
from .statistics import Counters
from .subscribers import Registry
from .subscription import Subscription

__all__ = ["Listening"]


class Listening:
    """Plain listeners are subscribers; each async one has a subscription, and a task.

    Args:
        registry: of the hub.
        counters: of the hub.
        subscribe: makes the subscription of an async listener.
    """

    def __init__(
        self,
        registry: Registry,
        counters: Counters,
        subscribe: Callable[[Listener], Subscription[Any]],
    ) -> None:
        self._registry = registry
        self._counters = counters
        self._subscribe = subscribe
        self._listeners: list[Listener] = []
        self._nursery: trio.Nursery | None = None

    def add(self, listener: Listener) -> None:
        """Let another one listen, from now on, or from when the hub opens."""
        self._listeners.append(listener)
        if self._nursery is not None:
            self._start(listener, self._nursery)

    def open(self, nursery: trio.Nursery) -> None:
        """The hub has opened; the nursery ends with it."""
        self._nursery = nursery
        for listener in self._listeners:
            self._start(listener, nursery)

    def close(self) -> None:
        """The hub closes."""
        self._nursery = None

    def _start(self, listener: Listener, nursery: trio.Nursery) -> None:
        if listener.is_async:
            nursery.start_soon(self._call, listener, self._subscribe(listener))
        else:
            self._registry.add(PlainListener(listener, self._failed), listener.pattern)

    async def _call(self, listener: Listener, events: Subscription[Any]) -> None:
        async for event in events:
            if not await call_async(listener.function, event):
                self._failed()

    def _failed(self) -> None:
        self._counters.failures += 1
