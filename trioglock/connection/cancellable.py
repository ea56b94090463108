"""A coroutine that another task can cancel, at no cost while it does not block.

A ``trio.CancelScope`` around every call of an async hook would take longer than the hook. Instead,
a scope is entered only while the coroutine is suspended, inside any scopes that the coroutine has
opened, and left before the coroutine resumes. A nursery waits for its children regardless of such
an inner scope, so the nurseries of the coroutine are cancelled separately.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

import trio

__all__ = ["Cancellable"]


class Cancellable:
    """Continues a coroutine that was started with ``send(None)`` and is suspended.

    Args:
        coroutine: the coroutine, started in the task that awaits this object.
        request: the value it yielded for trio.
        nurseries: the number of nurseries that the task had open before the start.
    """

    __slots__ = (
        "_cancelled",
        "_coroutine",
        "_nurseries",
        "_request",
        "_task",
        "_wait",
        "interrupted",
    )

    def __init__(self, coroutine: Coroutine[Any, Any, Any], request: Any, nurseries: int) -> None:
        self.interrupted: bool = False
        """Whether :meth:`interrupt` was called."""
        self._coroutine = coroutine
        self._request = request
        self._task = trio.lowlevel.current_task()
        self._nurseries = nurseries
        self._cancelled = False  # whether the coroutine has received Cancelled
        self._wait = trio.CancelScope()

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, request = self._coroutine, self._request
        try:
            while True:
                try:
                    # The coroutine's cleanup is not interrupted.
                    result = (
                        (yield request) if self._cancelled else (yield from self._waiting(request))
                    )
                except BaseException as error:
                    request = coroutine.throw(error)
                else:
                    request = coroutine.send(result)
        except StopIteration as done:
            return done.value

    def _waiting(self, request: Any) -> Generator[Any, Any, Any]:
        with trio.CancelScope() as self._wait:
            if self.interrupted:
                self._wait.cancel()
            result = yield request
        # trio sends an outcome, which the coroutine unwraps.
        cancelled = isinstance(getattr(result, "error", None), trio.Cancelled)
        self._cancelled = self.interrupted and cancelled
        return result

    def interrupt(self) -> None:
        """Raise ``trio.Cancelled`` once where the coroutine is suspended, even inside a shield."""
        self.interrupted = True
        self._wait.cancel()
        for nursery in self._task.child_nurseries[self._nurseries :]:
            nursery.cancel_scope.cancel()
