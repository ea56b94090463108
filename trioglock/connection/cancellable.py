"""Cancellable: a coroutine that another task can cancel, at no cost while it does not block.

A ``trio.CancelScope`` around every call of an async hook would take longer than the hook. Here one
is entered only while the coroutine waits for something, inside of whatever scopes the coroutine
has opened itself, and left before the coroutine goes on. A nursery waits for its children
whatever happens to such an inner scope: those of the coroutine are cancelled beside it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

import trio

__all__ = ["Cancellable"]


class Cancellable:
    """Goes on with a coroutine that has begun, and waits.

    Args:
        coroutine: run by ``send(None)`` so far, in the present task, which is to await this.
        wish: what that returned, for trio.
        nurseries: how many the task had open before.
    """

    __slots__ = ("_coroutine", "_nurseries", "_task", "_told", "_wait", "_wish", "interrupted")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], wish: Any, nurseries: int) -> None:
        self.interrupted: bool = False
        """Whether :meth:`interrupt` was called."""
        self._coroutine = coroutine
        self._wish = wish
        self._task = trio.lowlevel.current_task()
        self._nurseries = nurseries
        self._told = False  # that it is cancelled
        self._wait = trio.CancelScope()

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, wish = self._coroutine, self._wish
        try:
            while True:
                try:
                    # What it does to clean up is left alone.
                    answer = (yield wish) if self._told else (yield from self._waiting(wish))
                except BaseException as error:
                    wish = coroutine.throw(error)
                else:
                    wish = coroutine.send(answer)
        except StopIteration as done:
            return done.value

    def _waiting(self, wish: Any) -> Generator[Any, Any, Any]:
        with trio.CancelScope() as self._wait:
            if self.interrupted:
                self._wait.cancel()
            answer = yield wish
        # trio answers with an outcome, which the coroutine unwraps.
        cancelled = isinstance(getattr(answer, "error", None), trio.Cancelled)
        self._told = self.interrupted and cancelled
        return answer

    def interrupt(self) -> None:
        """Raise ``trio.Cancelled`` where the coroutine waits, once, shielded or not."""
        self.interrupted = True
        self._wait.cancel()
        for nursery in self._task.child_nurseries[self._nurseries :]:
            nursery.cancel_scope.cancel()
