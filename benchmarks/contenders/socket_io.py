"""socket.io on Node.js, with the same jobs as a channels server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..dialects import SOCKET_IO
from ..job import Job
from ..node_packages import NODE_DIRECTORY, install_node_packages
from .channels_hosting import TOPIC, ChannelsHost, ChannelsHosting
from .hosting import run_process

__all__ = ["CONTENDER"]


class SocketIO(ChannelsHosting):
    """socket.io with its defaults, over WebSocket only."""

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[ChannelsHost]:
        async with run_process(("node", "--expose-gc", "server.js"), cwd=NODE_DIRECTORY) as ask:

            async def usage() -> float:
                answer = await ask({"name": "usage"})
                cpu: float = answer["cpu"]
                return cpu

            async def memory() -> int:
                answer = await ask({"name": "memory"})
                resident: int = answer["resident"]
                return resident

            async def broadcast(count: int) -> None:
                await ask({"name": "broadcast", "room": TOPIC, "size": job.size, "count": count})

            yield ChannelsHost(
                port=await ask(None),
                dialect=SOCKET_IO,
                usage=usage,
                memory=memory,
                broadcast=broadcast,
            )


install_node_packages("socket.io")

CONTENDER = SocketIO()
