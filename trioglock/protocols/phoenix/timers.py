"""Deadlines by key, for a state machine that has no clock of its own."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Timers"]

KeyT = TypeVar("KeyT", bound=Hashable)

SPARE = 64


class Timers(Generic[KeyT]):
    """A heap in which what was cancelled stays until it is outnumbered.

    Most deadlines never come: the reply is there first. So to cancel one is a look into a dict,
    and the heap is built anew when more than half of it is dead.
    """

    def __init__(self) -> None:
        self._due: dict[KeyT, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, KeyT]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: KeyT, when: float) -> None:
        """Let ``key`` expire at ``when``, in seconds of any clock; never, if that is infinite."""
        self.cancel(key)
        if when == math.inf:
            return
        entry = (when, next(self._order))
        self._due[key] = entry
        heapq.heappush(self._heap, (*entry, key))
        if len(self._heap) > 2 * len(self._due) + SPARE:
            self._heap = [(*due, key) for key, due in self._due.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: KeyT) -> None:
        """Forget ``key``, if it is there."""
        self._due.pop(key, None)

    @property
    def next(self) -> float:
        """When the first key expires; infinity if there is none."""
        heap = self._heap
        while heap:
            when, order, key = heap[0]
            if self._due.get(key) == (when, order):
                return when
            heapq.heappop(heap)
        return math.inf

    def expired(self, now: float) -> KeyT | None:
        """Take away one key whose time has come, the earliest first; None if there is none."""
        if self.next > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        return key
