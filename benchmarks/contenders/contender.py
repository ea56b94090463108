"""A contender: a client that can do the jobs, and the loops that all of them run.

The loops call the library's own bound methods, so that nothing of ours stands between.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from ..job import Job
from .crowd import crowd, idle

__all__ = ["Contender", "TrioContender", "Wire"]


class Wire:
    """An open connection: how to send one message, and how to receive one."""

    __slots__ = ("receive", "send")

    def __init__(
        self, send: Callable[[Any], Awaitable[Any]], receive: Callable[[], Awaitable[Any]]
    ) -> None:
        self.send = send
        self.receive = receive


class Contender(ABC):
    """One client. A method ``<work>_<way>`` does a job in a way of its own."""

    @abstractmethod
    def run(self, job: Job) -> Any:
        """Do a job in a fresh event loop; seconds, or what idle connections cost."""

    @abstractmethod
    def open(self, job: Job) -> AbstractAsyncContextManager[Wire]:
        """A connection to the job's server."""

    async def measure(self, job: Job) -> Any:
        """Do a job, in its way."""
        name = f"{job.work}_{job.way}" if job.way else job.work
        return await getattr(self, name)(job)

    async def receive(self, job: Job) -> float:
        """Receive one message after the other."""
        async with self.open(job) as wire:
            receive = wire.receive
            began = time.perf_counter()
            await wire.send("go")
            for _ in range(job.count):
                await receive()
            return time.perf_counter() - began

    async def burst(self, job: Job) -> float:
        """Ask for a batch and receive it, again and again."""
        async with self.open(job) as wire:
            send, receive = wire.send, wire.receive
            began = time.perf_counter()
            for _ in range(job.count // job.batch):
                await send("go")
                for _ in range(job.batch):
                    await receive()
            return time.perf_counter() - began

    async def send(self, job: Job) -> float:
        """Send one message after the other; it is over when the server confirms."""
        async with self.open(job) as wire:
            send = wire.send
            began = time.perf_counter()
            for message in job.messages():
                await send(message)
            await wire.receive()
            return time.perf_counter() - began

    async def echo(self, job: Job) -> float:
        """Send a message, wait for it to come back, and so on."""
        async with self.open(job) as wire:
            send, receive = wire.send, wire.receive
            message = job.message
            began = time.perf_counter()
            for _ in range(job.count):
                await send(message)
                await receive()
            return time.perf_counter() - began


class TrioContender(Contender):
    """A client on trio."""

    def run(self, job: Job) -> Any:
        """See :meth:`Contender.run`."""
        return trio.run(self.measure, job)

    async def crowd(self, job: Job) -> float:
        """Echo over many connections at the same time."""
        return await crowd(self.open, job)

    async def idle(self, job: Job) -> dict[str, float]:
        """Hold many connections open, with a heartbeat."""
        return await idle(self.open_beating, job)

    def open_beating(self, job: Job) -> AbstractAsyncContextManager[Wire]:
        """A connection with a heartbeat every 20 seconds: here, the default."""
        return self.open(job)
