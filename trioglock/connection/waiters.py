"""Waiters: tasks that wait for something in a connection to change."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import trio

__all__ = ["Waiters"]


class Waiters:
    """A parking lot that costs nothing before somebody parks: a connection has many, mostly empty."""

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
