"""Servers in a thread with its own trio, for tests that block."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

import trio

__all__ = ["open_in_thread"]

ValueT = TypeVar("ValueT")

SECONDS = 300
"""Time limit for opening and for closing."""


@contextmanager
def open_in_thread(
    open_context: Callable[[], AbstractAsyncContextManager[ValueT]],
) -> Iterator[ValueT]:
    """Open an async context manager in a thread with its own trio; yield its value.

    Args:
        open_context: creates the context manager.
    """
    ready = concurrent.futures.Future[tuple[ValueT, Callable[[], None]]]()

    async def main() -> None:
        async with open_context() as value:
            stop, token = trio.Event(), trio.lowlevel.current_trio_token()
            ready.set_result((value, lambda: token.run_sync_soon(stop.set)))
            await stop.wait()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        finished = pool.submit(trio.run, main)
        futures: list[concurrent.futures.Future[Any]] = [ready, finished]
        concurrent.futures.wait(futures, SECONDS, concurrent.futures.FIRST_COMPLETED)
        if finished.done():
            finished.result()
        value, stop = ready.result(0)
        try:
            yield value
        finally:
            stop()
            finished.result(SECONDS)
