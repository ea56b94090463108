"""The interface of a contender, and the loops that all contenders share.

The loops call bound methods of the library directly, without wrappers that would cost time.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from ..case import SERVER_WORK
from ..job import Job
from .many_connections import echo_over_many, hold_idle

__all__ = ["ClientConnection", "Contender", "TrioContender"]


class ClientConnection:
    """The functions of an open connection that send and receive one message."""

    __slots__ = ("receive", "send")

    def __init__(
        self, send: Callable[[Any], Awaitable[Any]], receive: Callable[[], Awaitable[Any]]
    ) -> None:
        self.send = send
        self.receive = receive


class Contender(ABC):
    """A library that is measured.

    The method ``<work>_<way>`` implements a variant of a job. For the jobs of a server, the method
    ``host`` chooses the variant.
    """

    @abstractmethod
    def run(self, job: Job) -> Any:
        """Do a job in a new event loop.

        Returns:
            The seconds that it took, or the values by item.
        """

    @abstractmethod
    def open(self, job: Job) -> AbstractAsyncContextManager[ClientConnection]:
        """Open a connection to the server of the job."""

    async def measure(self, job: Job) -> Any:
        """Call the method for the job and its variant."""
        chosen_by_host = not job.way or job.work in SERVER_WORK
        name = job.work if chosen_by_host else f"{job.work}_{job.way}"
        return await getattr(self, name)(job)

    async def receive(self, job: Job) -> float:
        """Receive the messages one by one."""
        async with self.open(job) as connection:
            receive = connection.receive
            began = time.perf_counter()
            await connection.send("go")
            for _ in range(job.count):
                await receive()
            return time.perf_counter() - began

    async def burst(self, job: Job) -> float:
        """Repeatedly request a batch and receive it."""
        async with self.open(job) as connection:
            send, receive = connection.send, connection.receive
            began = time.perf_counter()
            for _ in range(job.count // job.batch):
                await send("go")
                for _ in range(job.batch):
                    await receive()
            return time.perf_counter() - began

    async def send(self, job: Job) -> float:
        """Send the messages one by one, and wait until the server confirms the last one."""
        async with self.open(job) as connection:
            send = connection.send
            began = time.perf_counter()
            for message in job.messages():
                await send(message)
            await connection.receive()
            return time.perf_counter() - began

    async def echo(self, job: Job) -> float:
        """Repeatedly send a message and wait for its echo."""
        return await self._echo(job, job.message)

    async def _echo(self, job: Job, message: str | bytes) -> float:
        async with self.open(job) as connection:
            send, receive = connection.send, connection.receive
            began = time.perf_counter()
            for _ in range(job.count):
                await send(message)
                await receive()
            return time.perf_counter() - began


class TrioContender(Contender):
    """A library on trio."""

    def run(self, job: Job) -> Any:
        return trio.run(self.measure, job)

    async def crowd(self, job: Job) -> float:
        """Echo over many connections at the same time."""
        return await echo_over_many(self.open, job)

    async def idle(self, job: Job) -> dict[str, float]:
        """Keep many idle connections with a heartbeat open."""
        return await hold_idle(self.open_with_heartbeat, job)

    def open_with_heartbeat(self, job: Job) -> AbstractAsyncContextManager[ClientConnection]:
        """Open a connection that sends a ping every 20 seconds, the default of the library."""
        return self.open(job)
