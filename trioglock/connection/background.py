"""Background tasks that end with the connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from ._sync import ignore

__all__ = ["Background", "Task"]

Task = Callable[[], Awaitable[object]]


class Background:
    """Starts the tasks of a connection.

    An exception raised by one of them ends only this connection.

    The nursery of the user's tasks is opened when the first of them starts.

    Args:
        on_failure: called with an exception raised by a task, and whether the task is the user's.
            If not, the exception is an error in a transport or in the package.
        closed_error: creates the exception for a task started after the end.
    """

    __slots__ = ("_closed_error", "_done", "_inner", "_on_failure", "_scope", "_waiting", "nursery")

    def __init__(
        self,
        on_failure: Callable[[BaseException, bool], None],
        closed_error: Callable[[], Exception],
    ) -> None:
        self.nursery: trio.Nursery | None = None
        """The connection's nursery; None before the start and after the end."""
        self._on_failure = on_failure
        self._closed_error = closed_error
        self._waiting: list[Task] | None = None
        self._inner: trio.Nursery | None = None
        self._scope: trio.CancelScope | None = None
        self._done: trio.Event | None = None

    def spawn(self, task: Task) -> None:
        """Start a task of a link, which must end with the link."""
        assert self.nursery is not None
        self.nursery.start_soon(self._run_task, task)

    async def _run_task(self, task: Task) -> None:
        try:
            await task()
        except Exception as error:
            self._on_failure(error, False)

    def start(self, task: Task) -> None:
        """Start a task that :meth:`end` cancels."""
        if self.nursery is None:
            raise self._closed_error()
        if self._inner is not None:
            self._inner.start_soon(task)
            return
        if self._waiting is not None:
            self._waiting.append(task)
        elif self._scope is None:
            self._waiting = [task]
            self._scope, self._done = trio.CancelScope(), trio.Event()
            self.spawn(partial(self._run_nursery, self._scope, self._done))

    def start_soon(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a user's task; an exception that it raises ends the connection."""
        self.start(partial(self._run_or_fail, fn, args))

    async def _run_nursery(self, scope: trio.CancelScope, done: trio.Event) -> None:
        try:
            with scope:
                async with trio.open_nursery() as self._inner:
                    for task in self._waiting or ():
                        self._inner.start_soon(task)
                    self._waiting = None
                    await trio.sleep_forever()
        finally:
            self._inner = None  # it refers to this task
            done.set()

    async def _run_or_fail(
        self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]
    ) -> None:
        try:
            await fn(*args)
        except Exception as error:
            self._on_failure(error, True)

    def close(self) -> None:
        """Refuse new tasks."""
        self.nursery = None

    def release_session(self) -> None:
        """Drop the reference to the session, which has ended."""
        self._on_failure = ignore

    async def end(self) -> None:
        """Cancel the running tasks and wait until they have ended."""
        if self._scope is not None and self._done is not None:
            self._scope.cancel()
            await self._done.wait()
