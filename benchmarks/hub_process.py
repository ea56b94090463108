"""One process with a hub: ``python -m benchmarks.hub_process URL HISTORY [CHANNEL]``.

URL is that of Redis. HISTORY is the number of messages that are kept for each channel; 0 is none.
The process serves the hub, and has a listener on CHANNEL. It writes its port, then answers each
line with the CPU time that it has used, in seconds. It ends when its standard input is closed.
"""

from __future__ import annotations

import sys
import time

import trio

from trioglock import serve
from trioglock.pubsub import Hub, Message, RedisBroker
from trioglock.server import ServeOptions

from .clients import write_line
from .descriptors import raise_limit

__all__ = ["main"]


def ignore(message: Message) -> None:
    """Listen, so that the process receives the messages."""


async def main(*arguments: str) -> None:
    """Run the hub until standard input ends."""
    url, history, *channels = arguments
    hub = Hub(broker=RedisBroker(url, history=int(history) or None))
    for channel in channels:
        hub.on(channel)(ignore)
    # The package ws sends no pings either.
    options: ServeOptions = {"ping_interval": None, "shutdown_timeout": 1}
    async with hub, serve(hub.socket, "127.0.0.1", 0, **options) as server:
        write_line(server.port)
        while await trio.to_thread.run_sync(sys.stdin.readline):
            write_line(time.process_time())


if __name__ == "__main__":
    raise_limit()
    trio.run(main, *sys.argv[1:])
