"""Hubs of trioglock in several processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import trio

from trioglock.pubsub import Hub, RedisBroker

from ..job import Job, payload
from ..redis_server import RedisServer, check_redis, redis_server
from .hub_hosting import PREFIX, HubHosting, cpu_of, messages_of, publish_steadily

__all__ = ["CONTENDER"]

HISTORY = 1000
SUBSCRIBERS = 8
CHANNEL = "busy"
PUBLISHERS = 10


class TrioglockHub(HubHosting):
    """trioglock with its defaults."""

    def command(self, redis: RedisServer, job: Job) -> Sequence[str]:
        channels = [CHANNEL] if job.work == "publish" else []
        history = HISTORY if job.way == "history" else 0
        command = (sys.executable, "-m", "benchmarks.hub_process", redis.url, str(history))
        return *command, *channels

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
