"""Waiters: tasks that wait for something in a connection to change, or to happen at last.

A connection has many such places, and mostly nobody waits: they cost nothing until somebody does.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import trio

__all__ = ["Latch", "Waiters"]


class Waiters:
    """A parking lot that is built when the first task parks."""

    __slots__ = ("_lot",)

    def __init__(self) -> None:
        self._lot: trio.lowlevel.ParkingLot | None = None

    def __bool__(self) -> bool:
        return bool(self._lot)

    def park(self) -> Coroutine[Any, Any, None]:
        """Wait to be woken; then look again."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        return self._lot.park()

    def unpark(self, count: int = 1) -> None:
        """Wake the first ``count``."""
        if self._lot:
            self._lot.unpark(count=count)

    def unpark_all(self) -> None:
        """Wake all."""
        if self._lot:
            self._lot.unpark_all()


class Latch:
    """Something that happens once, as ``trio.Event``."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        self._waiters = Waiters()

    def set(self) -> None:
        """It has happened."""
        self.is_set = True
        self._waiters.unpark_all()

    async def wait(self) -> None:
        """Wait until it has."""
        if self.is_set:
            await trio.lowlevel.checkpoint()
        else:
            await self._waiters.park()
