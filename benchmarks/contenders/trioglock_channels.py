"""The channels server of trioglock, and the same messages without channels."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil  # type: ignore[import-untyped]

from trioglock import serve
from trioglock.channels import Answer, Channel, Channels, Presence
from trioglock.codecs import JSON
from trioglock.pubsub import Hub

from ..dialects import PHOENIX, PLAIN
from ..job import Job, payload
from .channels_hosting import PRESENCE_TOPIC, TOPIC, ChannelsHost, ChannelsHosting
from .trioglock_native import EchoServerSocket

__all__ = ["CONTENDER"]

DIFF = {
    "joins": {"member 1000": {"metas": [{"status": "here", "phx_ref": "mB7Zl_5e3QfE3e8"}]}},
    "leaves": {},
}
"""As long as the diff of one client that joins."""


class Room(Channel[None]):
    """Returns every push."""

    def join(self, topic: str, payload: Any, user: Any) -> tuple[Any, None]:
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> tuple[Any, None]:
        return Answer("ok", payload), None


class TrioglockChannels(ChannelsHosting):
    """trioglock with its defaults."""

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[ChannelsHost]:
        host = self._host_plain(job) if job.way == "plain" else self._host_channels(job)
        async with host as running:
            yield running

    @asynccontextmanager
    async def _host_channels(self, job: Job) -> AsyncIterator[ChannelsHost]:
        class Here(Channel[None]):
            async def join(self, topic: str, payload: Any, user: Any) -> tuple[Any, None]:
                await presence.track(self, payload["key"], {"status": "here"})
                return {}, None

        hub = Hub()
        channels = Channels(
            {"room:*": Room, "here:*": Here}, hub=hub, message_rate=None, join_rate=None
        )
        presence = Presence(channels)
        shout = {"text": payload(job.size).decode()}

        async def broadcast(count: int) -> None:
            for _ in range(count):
                await channels.broadcast(TOPIC, "shout", shout)

        async def broadcast_diff() -> None:
            await channels.broadcast(PRESENCE_TOPIC, "presence_diff", DIFF)

        async with hub, serve(channels.socket, "127.0.0.1", 0, shutdown_timeout=1) as server:
            assert server.port is not None
            yield ChannelsHost(
                port=server.port,
                dialect=PHOENIX,
                usage=_usage,
                memory=_memory,
                broadcast=broadcast,
                broadcast_diff=broadcast_diff,
            )

    @asynccontextmanager
    async def _host_plain(self, job: Job) -> AsyncIterator[ChannelsHost]:
        """Echo, and broadcast the frame of a channel."""
        shout = JSON().encode([None, None, TOPIC, "shout", {"text": payload(job.size).decode()}])
        async with serve(EchoServerSocket, "127.0.0.1", 0, shutdown_timeout=1) as server:
            assert server.port is not None

            async def broadcast(count: int) -> None:
                for _ in range(count):
                    server.broadcast(shout)

            yield ChannelsHost(
                port=server.port, dialect=PLAIN, usage=_usage, memory=_memory, broadcast=broadcast
            )


async def _usage() -> float:
    return time.process_time()


async def _memory() -> int:
    gc.collect()
    resident: int = psutil.Process().memory_info().rss
    return resident


CONTENDER = TrioglockChannels()
