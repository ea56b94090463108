"""Hubs of trioglock in several processes."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

import trio

from trioglock.pubsub import Hub, RedisBroker

from ..hub_process import MEMORY
from ..job import Job, payload
from ..redis_server import RedisServer, check_redis, redis_server
from .hosting import run_process
from .hub_hosting import CLIENTS, PREFIX, HubHosting, cpu_of, messages_of, publish_steadily

__all__ = ["CONTENDER"]

HISTORY = 1000
SUBSCRIBERS = 8
CHANNEL = "busy"
PUBLISHERS = 10
WARM_UP_BROWSERS = 100
PARTS = 4


class TrioglockHub(HubHosting):
    """trioglock with its defaults."""

    def command(self, redis: RedisServer, job: Job) -> Sequence[str]:
        channels = [CHANNEL] if job.work == "publish" else []
        history = HISTORY if job.way == "history" else 0
        command = (sys.executable, "-m", "benchmarks.hub_process", redis.url, str(history))
        return *command, *channels

    async def resume(self, job: Job) -> dict[str, float]:
        """Let browsers return that have each missed ``batch`` of the messages in a history."""
        return await self._resume(job, [job.batch] * job.connections)

    async def scatter(self, job: Job) -> dict[str, float]:
        """Let browsers return that have each missed any number of messages, up to ``batch``."""
        numbers = random.Random(job.connections)
        return await self._resume(
            job, [numbers.randrange(job.batch) for _ in range(job.connections)]
        )

    async def _resume(self, job: Job, missed: Sequence[int]) -> dict[str, float]:
        """Let browsers return, and as many new ones connect, in turn.

        Returns:
            The CPU time of the server for all that return, that beyond as many new ones, and the
            latter for one message.
        """
        in_memory = job.way == MEMORY
        with nullcontext() if in_memory else redis_server() as redis:
            url = MEMORY if redis is None else redis.url
            command = (sys.executable, "-m", "benchmarks.hub_process", url, str(job.count), CHANNEL)
            async with run_process(command) as server, run_process(CLIENTS) as clients:
                await clients(None)
                page = f"ws://127.0.0.1:{await server(None)}/{CHANNEL}?after="
                ids = await server(job.count)

                async def visit(after: Sequence[str], missed: Sequence[int]) -> float:
                    urls, marks = [page + one for one in after], [count + 1 for count in missed]
                    used = await server("usage")
                    # The confirmation of the subscription contains an id, too.
                    await clients(["visit", {"urls": urls, "marks": marks, "mark": '"id": '}])
                    return float(await server("usage") - used)

                total = new = 0.0
                last = [ids[-1 - count] for count in missed]
                few = slice(WARM_UP_BROWSERS)
                await visit(last[few], missed[few])
                for part in range(PARTS):
                    some = slice(part, None, PARTS)
                    total += await visit(last[some], missed[some])
                    new += await visit([""] * len(last[some]), [0] * len(last[some]))
        replay = total - new
        return {"total": total, "replay": replay, "message": replay / max(1, sum(missed))}

    async def ignore(self, job: Job) -> dict[str, float]:
        """Publish to a channel without subscribers in a process.

        Returns:
            The CPU time of this process as a share of one core.
        """
        with redis_server() as redis:
            async with self.processes(redis, job, 1) as servers:
                began, busy = time.perf_counter(), await cpu_of(servers)
                channels = [f"{PREFIX}/{CHANNEL}"]
                await publish_steadily(redis, channels, messages_of(job), job)
                busy = await cpu_of(servers) - busy
                seconds = time.perf_counter() - began
        return {"busy": busy / seconds}

    async def publish(self, job: Job) -> dict[str, float]:
        """Publish to a channel with a subscriber in each of eight processes.

        Returns:
            The CPU time of Redis for one message.
        """
        text, count = payload(job.size).decode(), messages_of(job)
        with redis_server() as redis:
            broker = RedisBroker(redis.url, history=HISTORY if job.way == "history" else None)
            async with self.processes(redis, job, SUBSCRIBERS), Hub(broker=broker) as hub:

                async def publish(first: int) -> None:
                    began = trio.current_time()
                    for number in range(first, count, PUBLISHERS):
                        await trio.sleep_until(began + number / job.batch)
                        await hub.publish(text, CHANNEL)

                await hub.publish(text, CHANNEL)
                busy = redis.usage()
                async with trio.open_nursery() as nursery:
                    for first in range(PUBLISHERS):
                        nursery.start_soon(publish, first)
                busy = redis.usage() - busy
        return {"cpu": busy / count}


check_redis()

CONTENDER = TrioglockHub()
