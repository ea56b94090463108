"""Wait lists and one-shot events, which allocate nothing until the first task waits."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

import trio

__all__ = ["NO_WAITERS", "Latch", "Waiters", "ignore"]


def ignore(*_: object) -> None:
    """Do nothing. Replaces a callback once the connection has ended, to break reference cycles."""


# A dict finds its first key slowly after many have been removed; an OrderedDict takes more memory.
_MAX_SMALL = 8


class Waiters:
    """Waiting tasks, first come, first served.

    A ``trio.lowlevel.ParkingLot`` does more, but it would account for a third of the time of a task
    switch in an echo, and takes three times the memory.
    """

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[trio.lowlevel.Task, None] | None = None

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def own(self) -> Waiters:
        """Return the wait list to park in; the caller stores it in place of this object."""
        return self

    @trio.lowlevel.enable_ki_protection
    async def park(self) -> None:
        """Wait for a wake-up; the caller then checks its condition again."""
        await trio.lowlevel.wait_task_rescheduled(self.add())

    def add(self) -> _Abort:
        """Add the current task; return the argument for ``wait_task_rescheduled``.

        This takes less memory than :meth:`park`. The caller must be protected from
        KeyboardInterrupt.
        """
        if self._tasks is None:
            self._tasks = {}
        elif len(self._tasks) == _MAX_SMALL:
            self._tasks = OrderedDict(self._tasks)
        task = trio.lowlevel.current_task()
        self._tasks[task] = None
        return _Abort(self, task)

    def remove(self, task: trio.lowlevel.Task) -> None:
        """Remove a task that is cancelled."""
        assert self._tasks is not None
        del self._tasks[task]

    def unpark(self, count: int = 1) -> int:
        """Wake the first ``count`` tasks; return how many were waiting."""
        tasks = self._tasks
        if not tasks:
            return 0
        woken = (next(iter(tasks)),) if count == 1 else tuple(islice(tasks, count))
        for task in woken:
            del tasks[task]
            trio.lowlevel.reschedule(task)
        return len(woken)

    def unpark_all(self) -> int:
        """Wake all tasks; return how many were waiting."""
        return self.unpark(len(self._tasks)) if self._tasks else 0


class _Abort:
    """Removes a task from a wait list when it is cancelled. This is smaller than a closure."""

    __slots__ = ("_task", "_waiters")

    def __init__(self, waiters: Waiters, task: trio.lowlevel.Task) -> None:
        self._waiters = waiters
        self._task = task

    def __call__(self, _: object, /) -> trio.lowlevel.Abort:
        self._waiters.remove(self._task)
        return trio.lowlevel.Abort.SUCCEEDED


class _NoWaiters(Waiters):
    """A placeholder for wait lists that no task has needed yet; most are never needed."""

    __slots__ = ()

    def own(self) -> Waiters:
        return Waiters()


NO_WAITERS: Waiters = _NoWaiters()


class Latch(Waiters):
    """An event that is set once, like ``trio.Event``."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        super().__init__()
        self.is_set: bool = False

    def set(self) -> None:
        """Set the event and wake all tasks."""
        self.is_set = True
        self.unpark_all()
        self._tasks = None  # no longer needed

    async def wait(self) -> None:
        """Wait until the event is set."""
        if self.is_set:
            await trio.lowlevel.checkpoint()
        else:
            await self.park()
