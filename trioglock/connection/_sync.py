"""Wait lists and one-shot events, which allocate nothing until the first task waits."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import trio

__all__ = ["Latch", "Waiters", "ignore"]


def ignore(*_: object) -> None:
    """Do nothing. Replaces a callback once the connection has ended, to break reference cycles."""


class Waiters:
    """A ``trio.lowlevel.ParkingLot``, created when the first task parks."""

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot: trio.lowlevel.ParkingLot | None = None

    def __bool__(self) -> bool:
        return bool(self._lot)

    def park(self) -> Coroutine[Any, Any, None]:
        """Wait for a wake-up; the caller then checks its condition again."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        return self._lot.park()

    def unpark(self, count: int = 1) -> int:
        """Wake the first ``count`` tasks; return how many were waiting."""
        return len(self._lot.unpark(count=count)) if self._lot else 0

    def unpark_all(self) -> int:
        """Wake all tasks; return how many were waiting."""
        return len(self._lot.unpark_all()) if self._lot else 0


class Latch:
    """An event that is set once, like ``trio.Event``."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        self._waiters = Waiters()

    def set(self) -> None:
        """Set the event and wake all tasks."""
        self.is_set = True
        self._waiters.unpark_all()

    async def wait(self) -> None:
        """Wait until the event is set."""
        if self.is_set:
            await trio.lowlevel.checkpoint()
        else:
            await self._waiters.park()
