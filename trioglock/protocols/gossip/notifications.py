"""The queue before the callbacks: they may be slow, the heartbeat may not."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Mapping

import trio

from .state import Notify

__all__ = ["Notifications"]


class Notifications:
    """Holds what the callbacks have not been told yet; if it is full, the oldest is dropped.

    Args:
        callbacks: by flag, the object to call; others are not told.
        limit: the most that may wait.
    """

    def __init__(self, callbacks: Mapping[str, object], limit: int) -> None:
        self.dropped: int = 0
        """How many were never told."""
        self._callbacks = callbacks
        self._limit = limit
        self._waiting: deque[Notify] = deque()
        self._work = trio.lowlevel.ParkingLot()

    def put(self, notify: Notify) -> None:
        """Something happened."""
        if notify.flag not in self._callbacks:
            return
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(notify)
        self._work.unpark()

    async def run(self) -> None:
        """Call the callbacks, one at a time, for ever; raises what they raise."""
        while True:
            while not self._waiting:
                await self._work.park()
            notify = self._waiting.popleft()
            callback = getattr(self._callbacks[notify.flag], notify.callback)
            done = callback(*notify.arguments)
            if inspect.isawaitable(done):
                await done
            else:
                await trio.lowlevel.checkpoint()
