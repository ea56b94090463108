"""The block: tasks around the body of an ``async with``, whose exception comes out as raised."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from ..groups import is_cancelled

__all__ = ["background"]


@asynccontextmanager
async def background(*tasks: Callable[[], Awaitable[object]]) -> AsyncIterator[trio.Nursery]:
    """Run tasks for the time of the block, and cancel them at its end.

    The body's exception comes out of it as it was raised. That of a task cancels the body and
    comes out in a group.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
            try:
                yield nursery
            except BaseException as error:  # noqa: BLE001 - raised below, past the nursery
                failure = error
            nursery.cancel_scope.cancel()
    except BaseException as leaked:
        crashed = not is_cancelled(leaked)
        if failure is None or is_cancelled(failure):
            raise
        if crashed:
            raise BaseExceptionGroup("the body and a task both failed", [failure, leaked]) from None
    if failure is not None:
        raise failure
