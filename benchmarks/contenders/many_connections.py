"""Jobs with many connections in one process, on trio."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import trio

from ..job import Job

if TYPE_CHECKING:
    from .contender import ClientConnection

__all__ = ["echo_over_many", "hold_idle"]

Open = Callable[[Job], "AbstractAsyncContextManager[ClientConnection]"]

# The number of connections that are opened at the same time.
CONCURRENT_CONNECTS = 50


async def echo_over_many(open_connection: Open, job: Job) -> float:
    """Echo over all connections at the same time; return the seconds for ``count`` messages."""
    rounds = max(1, job.count // job.connections)
    start, done = trio.Event(), trio.Event()
    finished = 0

    async def use(connection: ClientConnection) -> None:
        nonlocal finished
        send, receive, message = connection.send, connection.receive, job.message
        await start.wait()
        for _ in range(rounds):
            await send(message)
            await receive()
        finished += 1
        if finished == job.connections:
            done.set()

    async with trio.open_nursery() as nursery:
        await _open_all(nursery, open_connection, job, use)
        began = time.perf_counter()
        start.set()
        await done.wait()
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    # All connections send the same number of messages, so their total may differ from ``count``.
    return took * job.count / (rounds * job.connections)


async def hold_idle(open_connection: Open, job: Job) -> dict[str, float]:
    """Open connections and keep them open.

    Returns:
        The seconds to open all of them, the bytes that they take, and the share of a core that
        is busy while they are idle.
    """

    async def use(connection: ClientConnection) -> None:
        await trio.sleep_forever()

    # Do not measure what is imported and allocated only once.
    async with open_connection(job):
        pass
    gc.collect()
    process = psutil.Process()
    if job.traced:
        tracemalloc.start()
    resident = process.memory_info().rss
    async with trio.open_nursery() as nursery:
        began = time.perf_counter()
        await _open_all(nursery, open_connection, job, use)
        took = time.perf_counter() - began
        await trio.sleep(0.1)
        gc.collect()
        traced = tracemalloc.get_traced_memory()[0]
        resident = process.memory_info().rss - resident
        busy, began = time.process_time(), time.perf_counter()
        await trio.sleep(job.window)
        busy, watched = time.process_time() - busy, time.perf_counter() - began
        nursery.cancel_scope.cancel()
    tracemalloc.stop()
    busy_share = busy / watched if job.window else 0
    return {"seconds": took, "resident": resident, "traced": traced, "busy": busy_share}


async def _open_all(
    nursery: trio.Nursery,
    open_connection: Open,
    job: Job,
    use: Callable[[ClientConnection], object],
) -> None:
    limiter = trio.Semaphore(CONCURRENT_CONNECTS)
    all_open = trio.Event()
    waiting = job.connections

    async def hold() -> None:
        nonlocal waiting
        await limiter.acquire()
        async with open_connection(job) as connection:
            limiter.release()
            waiting -= 1
            if not waiting:
                all_open.set()
            await use(connection)  # type: ignore[misc]

    for _ in range(job.connections):
        nursery.start_soon(hold)
    await all_open.wait()
