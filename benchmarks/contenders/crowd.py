"""Many connections of one process, on trio."""

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
    from .contender import Wire

__all__ = ["crowd", "idle"]

Open = Callable[[Job], "AbstractAsyncContextManager[Wire]"]

# Connections that are being opened at the same time.
AT_ONCE = 50


async def crowd(open_wire: Open, job: Job) -> float:
    """Echo over ``connections`` at the same time, ``count`` messages in all; seconds."""
    rounds = max(1, job.count // job.connections)
    go, over = trio.Event(), trio.Event()
    finished = 0

    async def member(wire: Wire) -> None:
        nonlocal finished
        send, receive, message = wire.send, wire.receive, job.message
        await go.wait()
        for _ in range(rounds):
            await send(message)
            await receive()
        finished += 1
        if finished == job.connections:
            over.set()

    async with trio.open_nursery() as nursery:
        await _open_all(nursery, open_wire, job, member)
        began = time.perf_counter()
        go.set()
        await over.wait()
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    # Every connection has sent as many, which need not be ``count`` in all.
    return took * job.count / (rounds * job.connections)


async def idle(open_wire: Open, job: Job) -> dict[str, float]:
    """Hold ``connections`` open; what opening and keeping them costs."""

    async def member(wire: Wire) -> None:
        await trio.sleep_forever()

    # What is loaded and allocated once and for all is not the price of a connection.
    async with open_wire(job):
        pass
    gc.collect()
    process = psutil.Process()
    if job.traced:
        tracemalloc.start()
    resident = process.memory_info().rss
    async with trio.open_nursery() as nursery:
        began = time.perf_counter()
        await _open_all(nursery, open_wire, job, member)
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
    return {
        "resident": resident / job.connections,
        "traced": traced / job.connections,
        "connect": took / job.connections,
        "busy": busy / watched,
    }


async def _open_all(
    nursery: trio.Nursery, open_wire: Open, job: Job, member: Callable[[Wire], object]
) -> None:
    limiter = trio.Semaphore(AT_ONCE)
    everyone = trio.Event()
    waiting = job.connections

    async def hold() -> None:
        nonlocal waiting
        await limiter.acquire()
        async with open_wire(job) as wire:
            limiter.release()
            waiting -= 1
            if not waiting:
                everyone.set()
            await member(wire)  # type: ignore[misc]

    for _ in range(job.connections):
        nursery.start_soon(hold)
    await everyone.wait()
