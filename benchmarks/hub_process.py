"""One process with a hub: ``python -m benchmarks.hub_process URL HISTORY [CHANNEL]``.

URL is that of Redis, or ``memory`` for a hub without Redis. HISTORY is the number of messages that
are kept for each channel; 0 is none. The process serves the hub, and has a listener on CHANNEL. It
writes its port, then answers lines of JSON: a number by publishing as many messages on CHANNEL,
with the ids of those that it keeps, and any other value with the CPU time that it has used, in
seconds. It ends when its standard input is closed.
"""

from __future__ import annotations

import json
import sys
import time

import trio

from trioglock import serve
from trioglock.pubsub import Broker, Hub, MemoryBroker, Message, RedisBroker
from trioglock.server import ServeOptions

from .clients import write_line
from .descriptors import raise_limit
from .job import payload

__all__ = ["MEMORY", "main"]

MEMORY = "memory"

PUBLISHERS = 50
"""A hub publishes to Redis in pipelines, so that several tasks are faster than one."""


def ignore(message: Message) -> None:
    """Listen, so that the process receives the messages."""


async def fill(hub: Hub, channel: str, count: int) -> list[str | None]:
    """Publish messages, and return the ids of those in the history, oldest first."""
    text = payload(64).decode()

    async def publish(first: int) -> None:
        for _ in range(first, count, PUBLISHERS):
            await hub.publish(text, channel)

    with hub.subscribe(channel, after=hub.history.last) as messages:
        async with trio.open_nursery() as nursery:
            for first in range(PUBLISHERS):
                nursery.start_soon(publish, first)
        ids = [(await anext(messages)).id for _ in range(count)]
    # The newest message of a hub is rarely on the channel of a client that returns.
    await hub.publish(text, f"another {channel}")
    return ids


async def main(*arguments: str) -> None:
    """Run the hub until standard input ends."""
    url, history, *channels = arguments
    kept = int(history) or None
    broker: Broker = MemoryBroker(history=kept) if url == MEMORY else RedisBroker(url, history=kept)
    hub = Hub(broker=broker)
    for channel in channels:
        hub.on(channel)(ignore)
    # The package ws sends no pings either.
    options: ServeOptions = {"ping_interval": None, "shutdown_timeout": 1}
    async with hub, serve(hub.socket, "127.0.0.1", 0, **options) as server:
        write_line(server.port)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            value = json.loads(line)
            if isinstance(value, int):
                write_line(await fill(hub, channels[0], value))
            else:
                write_line(time.process_time())


if __name__ == "__main__":
    raise_limit()
    trio.run(main, *sys.argv[1:])
