"""Background tasks: the nursery in which everything of one connection runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

__all__ = ["Background"]


class Background:
    """Starts tasks that end with the connection.

    Args:
        crashed: told what a user's task raises.
        closed_error: makes the error for callers that come too late.
    """

    def __init__(
        self, crashed: Callable[[BaseException], None], closed_error: Callable[[], Exception]
    ) -> None:
        self.nursery: trio.Nursery | None = None
        """Open from before the first attempt until ``terminate``."""
        self._crashed = crashed
        self._closed_error = closed_error

    def spawn(self, fn: Callable[[], Awaitable[None]]) -> None:
        """Start a task of our own, which never raises."""
        assert self.nursery is not None
        self.nursery.start_soon(fn)

    def start_soon(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a user's task; its failure ends the connection."""
        if self.nursery is None:
            raise self._closed_error()
        self.nursery.start_soon(self._guard, fn, args)

    async def _guard(self, fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            await fn(*args)
        except Exception as error:
            self._crashed(error)
