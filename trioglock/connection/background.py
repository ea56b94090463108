"""Background tasks: what runs beside a connection, and ends with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

__all__ = ["Background", "Task"]

Task = Callable[[], Awaitable[object]]


class Background:
    """Starts tasks; those of the program live in a nursery that is opened with the first of them.

    Args:
        crashed: told what a task of the program raises.
        closed_error: makes the error for callers that come too late.
    """

    def __init__(
        self, crashed: Callable[[BaseException], None], closed_error: Callable[[], Exception]
    ) -> None:
        self.nursery: trio.Nursery | None = None
        """Around everything that belongs to the connection; set as long as tasks are taken."""
        self._crashed = crashed
        self._closed_error = closed_error
        self._waiting: list[Task] = []
        self._inner: trio.Nursery | None = None
        self._scope: trio.CancelScope | None = None
        self._done: trio.Event | None = None

    def spawn(self, task: Task) -> None:
        """Start a task of a link's, which never raises, and ends with the link by itself."""
        assert self.nursery is not None
        self.nursery.start_soon(task)

    def start(self, task: Task) -> None:
        """Start a task that :meth:`end` ends."""
        if self.nursery is None:
            raise self._closed_error()
        if self._inner is not None:
            self._inner.start_soon(task)
            return
        self._waiting.append(task)
        if self._scope is None:
            self._scope, self._done = trio.CancelScope(), trio.Event()
            self.nursery.start_soon(self._host, self._scope, self._done)

    def start_soon(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task of the program's; its failure ends the connection."""
        self.start(partial(self._guard, fn, args))

    async def _host(self, scope: trio.CancelScope, done: trio.Event) -> None:
        try:
            with scope:
                async with trio.open_nursery() as self._inner:
                    for task in self._waiting:
                        self._inner.start_soon(task)
                    self._waiting.clear()
                    await trio.sleep_forever()
        finally:
            done.set()

    async def _guard(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        except Exception as error:
            self._crashed(error)

    def close(self) -> None:
        """Take no further task, not even in this very step."""
        self.nursery = None

    async def end(self) -> None:
        """Cancel what still runs; returns once all of it has ended."""
        if self._scope is not None and self._done is not None:
            self._scope.cancel()
            await self._done.wait()
