"""Measures contenders whose processes are connected by Redis."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from ..job import Job, payload
from ..redis_server import RedisServer, redis_server
from .hosting import Ask, run_process

__all__ = ["PREFIX", "HubHosting", "cpu_of", "messages_of", "publish_steadily"]

CLIENTS = (sys.executable, "-m", "benchmarks.channel_clients")

PREFIX = "trioglock"
"""The Redis channels begin with it and a slash."""

PROCESSES = 4
STEP_SECONDS = 0.005
WARM_UP_MESSAGES = 2000
SETTLE_SECONDS = 0.3


class HubHosting(ABC):
    """The interface of a contender that is measured in several processes."""

    directory: Path | None = None
    """The working directory of its processes."""

    def run(self, job: Job) -> dict[str, float]:
        """Do a job; return the values by item."""
        result: dict[str, float] = trio.run(getattr(self, job.work), job)
        return result

    @abstractmethod
    def command(self, redis: RedisServer, job: Job) -> Sequence[str]:
        """Return the command of a process that writes its port, and its CPU time for each line."""

    @asynccontextmanager
    async def processes(
        self, redis: RedisServer, job: Job, count: int
    ) -> AsyncIterator[list[tuple[int, Ask]]]:
        """Run processes during the block; yield the port of each, and a function to ask it."""
        async with AsyncExitStack() as stack:
            running = []
            for _ in range(count):
                ask = await stack.enter_async_context(
                    run_process(self.command(redis, job), cwd=self.directory)
                )
                running.append((int(await ask(None)), ask))
            yield running

    async def spread(self, job: Job) -> dict[str, float]:
        """Publish to many channels, each of which has one client of one of four servers.

        Returns:
            The CPU time of all servers for one message.
        """
        with redis_server() as redis:
            async with (
                self.processes(redis, job, PROCESSES) as servers,
                run_process(CLIENTS) as ask,
            ):
                await ask(None)
                for number, (port, _) in enumerate(servers):
                    many = len(range(number, job.connections, PROCESSES))
                    url = f"ws://127.0.0.1:{port}/{{c}}"
                    await ask(["open", {"url": url, "count": many, "greeting": "", "greeted": ""}])
                channels = [f"{PREFIX}/{number}" for number in range(job.connections)]
                while min(count for _, count in redis.client.pubsub_numsub(*channels)) < 1:
                    await trio.sleep(SETTLE_SECONDS)

                async def publish(count: int) -> float:
                    watched = {"mark": "x", "total": count, "clients": (0, None)}
                    await ask(["watch", watched])
                    busy = await cpu_of(servers)
                    await publish_steadily(redis, channels, count, job)
                    await ask(["wait", {}])
                    return await cpu_of(servers) - busy

                count = messages_of(job)
                await publish(min(WARM_UP_MESSAGES, count))
                busy = await publish(count)
        return {"cpu": busy / count}


def messages_of(job: Job) -> int:
    """Return the number of messages to publish."""
    return max(1, int(job.window * job.batch))


async def cpu_of(servers: Sequence[tuple[int, Ask]]) -> float:
    """Return the CPU time of all processes."""
    total = 0.0
    for _, ask in servers:
        total += float(await ask("usage"))
    return total


async def publish_steadily(
    redis: RedisServer, channels: Sequence[str], count: int, job: Job
) -> None:
    """Publish ``count`` messages, ``job.batch`` per second, to channels in turn."""
    text = "x" + payload(job.size - 1).decode().replace("x", "y")

    def send(start: int, end: int) -> None:
        pipeline = redis.client.pipeline(transaction=False)
        for number in range(start, end):
            pipeline.publish(channels[number % len(channels)], text)
        pipeline.execute()

    await pace(send, count, job.batch)


async def pace(send: Callable[[int, int], object], count: int, rate: int) -> None:
    """Call a function that blocks with ranges of messages, so that they keep a rate."""
    began = trio.current_time()
    sent = 0
    while sent < count:
        await trio.sleep(STEP_SECONDS)
        due = min(count, int((trio.current_time() - began) * rate))
        if due > sent:
            await trio.to_thread.run_sync(partial(send, sent, due))
            sent = due
