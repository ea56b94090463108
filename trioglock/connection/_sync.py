"""Wait lists and one-shot events, which allocate nothing until the first task waits."""

from __future__ import annotations

from itertools import islice

import trio

__all__ = ["Latch", "Waiters", "ignore"]


def ignore(*_: object) -> None:
    """Do nothing. Replaces a callback once the connection has ended, to break reference cycles."""


class Waiters:
    """Waiting tasks, first come, first served.

    It does less than ``trio.lowlevel.ParkingLot``, which takes a third of an echo's task switch.
    """

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[trio.lowlevel.Task, None] | None = None

    def __bool__(self) -> bool:
        return bool(self._tasks)

    @trio.lowlevel.enable_ki_protection
    async def park(self) -> None:
        """Wait for a wake-up; the caller then checks its condition again."""
        if self._tasks is None:
            self._tasks = {}
        tasks, task = self._tasks, trio.lowlevel.current_task()
        tasks[task] = None

        def abort(_: object) -> trio.lowlevel.Abort:
            del tasks[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def unpark(self, count: int = 1) -> int:
        """Wake the first ``count`` tasks; return how many were waiting."""
        tasks = self._tasks
        if not tasks:
            return 0
        woken = list(islice(tasks, count))
        for task in woken:
            del tasks[task]
            trio.lowlevel.reschedule(task)
        return len(woken)

    def unpark_all(self) -> int:
        """Wake all tasks; return how many were waiting."""
        return self.unpark(len(self._tasks)) if self._tasks else 0


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
