"""Measures contenders as servers of channels, with many clients in another process."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from ..dialects import Dialect
from ..job import Job
from .hosting import Ask, run_process

__all__ = ["PRESENCE_TOPIC", "TOPIC", "ChannelsHost", "ChannelsHosting"]

COMMAND = (sys.executable, "-m", "benchmarks.channel_clients")

TOPIC = "room:0"
PRESENCE_TOPIC = "here:0"
SHOUT = '"shout"'
"""A part of each broadcast."""

PRESENCE_JOIN = f'["1","1","{PRESENCE_TOPIC}","phx_join",{{"key":"member {{c}}"}}]'
PRESENCE_LEAVE = f'["1","2","{PRESENCE_TOPIC}","phx_leave",{{}}]'
PRESENCE_MARK = '"phx_ref"'
"""Occurs once in each entry."""

JOIN_SECONDS = 0.1
"""The time in which joins of a burst begin."""

SETTLE_SECONDS = 0.3
# Node compiles the code that it has run often.
WARM_UP_MESSAGES = 10_000
WARM_UP_CONNECTIONS = 10
FURTHER_TOPICS = 10


@dataclass(frozen=True, kw_only=True)
class ChannelsHost:
    """A running server.

    Args:
        port: the TCP port.
        dialect: what its clients say.
        usage: returns the CPU time of the server in seconds.
        memory: returns its resident memory in bytes, after a garbage collection.
        broadcast: broadcasts a number of messages to TOPIC.
        broadcast_diff: broadcasts a message like a diff of presence to PRESENCE_TOPIC.
    """

    port: int
    dialect: Dialect
    usage: Callable[[], Awaitable[float]]
    memory: Callable[[], Awaitable[int]]
    broadcast: Callable[[int], Awaitable[object]]
    broadcast_diff: Callable[[], Awaitable[object]] | None = None


class Clients:
    """The clients of a server.

    Args:
        host: the server.
        ask: calls functions in the process of the clients.
    """

    def __init__(self, host: ChannelsHost, ask: Ask) -> None:
        self._host = host
        self._ask = ask

    async def call(self, name: str, **arguments: Any) -> Any:
        """Call a function of the process."""
        return await self._ask([name, arguments])

    async def open(self, count: int, *, joined: bool = True) -> None:
        """Connect more clients; they join TOPIC."""
        dialect = self._host.dialect
        url = f"ws://127.0.0.1:{self._host.port}{dialect.path}"
        greeting = {"greeting": dialect.greeting, "greeted": dialect.greeted}
        await self.call("open", url=url, count=count, **greeting)
        if joined:
            await self.join(0)

    async def join(self, first: int, count: int = 1) -> float:
        """Let all clients join topics; return the CPU time that the server took."""
        return await self._talk(self._host.dialect.join, first=first, count=count)

    async def leave(self, first: int, count: int = 1) -> float:
        """Let all clients leave topics."""
        return await self._talk(self._host.dialect.leave, first=first, count=count)

    async def push(self, size: int, count: int) -> tuple[float, float]:
        """Let all clients push; return the seconds and the CPU time."""
        usage, dialect = self._host.usage, self._host.dialect
        busy = await usage()
        seconds = await self.call(
            "ask", text=dialect.push_of(size), reply=dialect.reply, count=count
        )
        return seconds, await usage() - busy

    async def _talk(self, text: str, **arguments: int) -> float:
        if not text:
            return 0
        busy = await self._host.usage()
        await self.call("ask", text=text, reply=self._host.dialect.reply, **arguments)
        return await self._host.usage() - busy

    async def watch(self, mark: str, total: int, clients: int) -> None:
        """Let the first clients count a mark in their messages; wait for it with ``wait``."""
        await self.call("watch", mark=mark, total=total, clients=(0, clients))

    async def wait(self) -> None:
        """Wait until the clients have received what they watch for."""
        await self.call("wait")


class ChannelsHosting(ABC):
    """The interface of a contender that is measured as a server of channels."""

    def run(self, job: Job) -> dict[str, float]:
        """Do a job; return the values by item."""
        result: dict[str, float] = trio.run(getattr(self, job.work), job)
        return result

    @abstractmethod
    def host(self, job: Job) -> AbstractAsyncContextManager[ChannelsHost]:
        """Run a server during the block; ``job.way`` is the variant."""

    @asynccontextmanager
    async def clients(self, host: ChannelsHost) -> AsyncIterator[Clients]:
        """Run the process of the clients during the block."""
        async with run_process(COMMAND) as ask:
            await ask(None)
            yield Clients(host, ask)

    async def push(self, job: Job) -> dict[str, float]:
        """Push over all connections at the same time, and wait for each reply.

        Returns:
            The seconds and the CPU time for ``count`` pushes over all connections.
        """
        rounds = max(1, job.count // job.connections)
        async with self.host(job) as host, self.clients(host) as clients:
            await clients.open(job.connections)
            await clients.push(job.size, _warm_up(job.connections, job))
            seconds, busy = await clients.push(job.size, rounds)
        scale = job.count / (rounds * job.connections)
        return {"seconds": seconds * scale, "cpu": busy * scale}

    async def shout(self, job: Job) -> dict[str, float]:
        """Repeatedly broadcast a message, or a batch of messages, to all members of a topic.

        Returns:
            The CPU time for ``count`` deliveries.
        """
        deliveries = job.connections * job.batch
        rounds = max(1, job.count // deliveries)
        busy = 0.0
        async with self.host(job) as host, self.clients(host) as clients:
            await clients.open(job.connections)
            for number in range(-_warm_up(deliveries, job), rounds):
                await clients.watch(SHOUT, deliveries, job.connections)
                began = await host.usage()
                await host.broadcast(job.batch)
                await clients.wait()
                if number >= 0:
                    busy += await host.usage() - began
        return {"seconds": busy, "cpu": busy * job.count / (rounds * deliveries)}

    async def join(self, job: Job) -> dict[str, float]:
        """Let every client join ``batch`` topics, one after the other.

        Returns:
            The CPU time for ``count`` joins over all connections.
        """
        joins = job.connections * job.batch
        rounds = max(1, job.count // joins)
        busy = 0.0
        async with self.host(job) as host, self.clients(host) as clients:
            await clients.open(job.connections)
            for number in range(-1, rounds):
                took = await clients.join(1, job.batch)
                await clients.leave(1, job.batch)
                if number >= 0:
                    busy += took
        return {"seconds": busy, "cpu": busy * job.count / (rounds * joins)}

    async def presence(self, job: Job) -> dict[str, float]:
        """Let clients join a topic whose members see each other, ``batch`` within 100 ms.

        Returns:
            The CPU time for ``count`` deliveries of an entry to a member.
        """
        members, joiners = job.connections, job.batch
        rounds = max(1, job.count // (members * joiners))
        busy = 0.0
        async with self.host(job) as host, self.clients(host) as clients:
            await clients.open(members + joiners, joined=False)
            await self._join_presence(host, clients, (0, members))
            for number in range(-1, rounds):
                await trio.sleep(SETTLE_SECONDS)
                await clients.watch(PRESENCE_MARK, members * joiners, members)
                began = await host.usage()
                if job.way == "diff":
                    assert host.broadcast_diff is not None
                    await host.broadcast_diff()
                    await clients.wait()
                else:
                    interval = JOIN_SECONDS / joiners if joiners > 1 else 0
                    await self._join_presence(
                        host, clients, (members, None), interval=interval, wait=True
                    )
                if number >= 0:
                    busy += await host.usage() - began
                if job.way != "diff":
                    await self._leave_presence(host, clients, members, joiners)
        return {"seconds": busy, "cpu": busy * job.count / (rounds * members * joiners)}

    async def _join_presence(
        self,
        host: ChannelsHost,
        clients: Clients,
        chosen: tuple[int, int | None],
        **options: Any,
    ) -> None:
        ask = {"text": PRESENCE_JOIN, "reply": host.dialect.reply, "clients": chosen}
        await clients.call("ask", **ask, **options)

    async def _leave_presence(
        self, host: ChannelsHost, clients: Clients, members: int, joiners: int
    ) -> None:
        await clients.watch(PRESENCE_MARK, members * joiners, members)
        ask = {"text": PRESENCE_LEAVE, "reply": host.dialect.reply, "clients": (members, None)}
        await clients.call("ask", **ask)
        await clients.wait()

    async def keep(self, job: Job) -> dict[str, float]:
        """Keep clients that have joined a topic, and then further topics.

        Returns:
            The CPU time for connecting them, the increase of the memory, and its further increase
            for one more topic.
        """
        async with self.host(job) as host:
            async with self.clients(host) as clients:
                await clients.open(min(WARM_UP_CONNECTIONS, job.connections))
                await clients.join(1, FURTHER_TOPICS)
            await trio.sleep(SETTLE_SECONDS)
            empty = await host.memory()
            async with self.clients(host) as clients:
                busy = await host.usage()
                await clients.open(job.connections, joined=False)
                busy = await host.usage() - busy
                await clients.join(0)
                one_topic = await host.memory()
                await clients.join(1, FURTHER_TOPICS)
                more_topics = await host.memory()
        return {
            "seconds": busy,
            "cpu": busy,
            "resident": one_topic - empty,
            "topic": (more_topics - one_topic) / FURTHER_TOPICS,
        }

    async def rest(self, job: Job) -> dict[str, float]:
        """Keep clients that only send heartbeats; return the share of a core that this takes."""
        async with self.host(job) as host, self.clients(host) as clients:
            await clients.open(job.connections)
            if host.dialect.heartbeat:
                await clients.call("beat", text=host.dialect.heartbeat)
            await trio.sleep(SETTLE_SECONDS)
            busy = await host.usage()
            await trio.sleep(job.window)
            busy = await host.usage() - busy
        return {"seconds": job.window, "cpu": busy, "busy": busy / job.window}


def _warm_up(step: int, job: Job) -> int:
    """Return the number of rounds before a measurement; a quick run has few messages."""
    return math.ceil(min(WARM_UP_MESSAGES, job.count) / step)
