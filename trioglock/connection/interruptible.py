"""Interruptible: a coroutine that another task can cancel, at no cost while it does not block.

A ``trio.CancelScope`` around every call of an async hook would take longer than the hook. Here one
is entered only while the coroutine waits for something, inside of whatever scopes the coroutine
has opened itself, and left before the coroutine goes on.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

import trio

__all__ = ["Interruptible"]


class Interruptible:
    """Goes on with a coroutine that has begun, and waits.

    Args:
        coroutine: run by ``send(None)`` so far, in the task that awaits this.
        wish: what that returned, for trio.
    """

    __slots__ = ("_asked", "_coroutine", "_wait", "_wish", "was_cancelled")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], wish: Any) -> None:
        self.was_cancelled: bool = False
        """Whether :meth:`interrupt` has taken effect."""
        self._coroutine = coroutine
        self._wish = wish
        self._asked = False
        self._wait: trio.CancelScope | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, wish = self._coroutine, self._wish
        try:
            while True:
                try:
                    # What it does to clean up is left alone.
                    answer = (yield wish) if self._asked else (yield from self._waiting(wish))
                except BaseException as error:
                    wish = coroutine.throw(error)
                else:
                    wish = coroutine.send(answer)
        except StopIteration as done:
            return done.value

    def _waiting(self, wish: Any) -> Generator[Any, Any, Any]:
        cancelled: BaseException | None = None
        with trio.CancelScope() as self._wait:
            try:
                return (yield wish)
            except trio.Cancelled as error:
                cancelled = error
                raise
        # The scope has swallowed it: it was ours.
        assert cancelled is not None
        self.was_cancelled = True
        raise cancelled

    def interrupt(self) -> None:
        """Raise ``trio.Cancelled`` where the coroutine waits, once."""
        self._asked = True
        if self._wait is not None:
            self._wait.cancel()
