"""A server process with a history: ``python -m tests.channels.history_server REDIS PORT``.

Several processes share the port.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import trio

from trioglock import serve
from trioglock.channels import Channel, Channels, History
from trioglock.pubsub import Hub, RedisBroker


class Room(Channel[None]):
    history = History(size=5_000)

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        await trio.sleep(0)
        return {}, None


ROUTES: dict[str, type[Channel[Any]]] = {"room:*": Room}


async def main(url: str, port: int) -> None:
    hub = Hub(broker=RedisBroker(url))
    channels = Channels(ROUTES, hub=hub)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with hub, serve(channels.socket, "127.0.0.1", port, reuse_port=True):
            print("ready", flush=True)
            async for _ in signals:
                break


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
