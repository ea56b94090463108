"""Helpers for tests of channels: a server in memory, and clients that send exact frames."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock

from trioglock import Connection, MemoryListener, Server, connect, serve
from trioglock.channels import Channel, Channels
from trioglock.protocols import phoenix
from trioglock.pubsub import Hub

SECONDS = 300
"""Time limit of a test, unless it has a MockClock."""

URL = "ws://memory.test/socket/websocket?vsn=2.0.0"


class RawPhoenix:
    """A client that sends messages as they are, and returns those of the server."""

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection = connection

    async def send(self, *message: Any) -> None:
        """Send one message of five items."""
        await self.connection.send(json.dumps(message, separators=(",", ":")))

    async def receive(self) -> Any:
        """The next message: a list, or bytes."""
        frame = await self.connection.receive()
        return json.loads(frame) if isinstance(frame, str) else frame

    async def raw(self) -> str | bytes:
        """The next frame."""
        frame: str | bytes = await self.connection.receive()
        return frame

    async def ask(self, *message: Any) -> Any:
        """Send a message, and return the next one."""
        await self.send(*message)
        return await self.receive()

    async def join(self, topic: str = "room:1", ref: str = "1", payload: Any = None) -> None:
        """Join a topic successfully."""
        reply = await self.ask(ref, ref, topic, "phx_join", payload or {})
        assert reply[:4] == [ref, ref, topic, "phx_reply"], reply
        assert reply[4]["status"] == "ok", reply

    async def alive(self) -> None:
        """A heartbeat is answered next: the server has sent nothing else."""
        assert await self.ask(None, "hb", "phoenix", "heartbeat", {}) == [
            None,
            "hb",
            "phoenix",
            "phx_reply",
            {"response": {}, "status": "ok"},
        ]


class ChannelsSite:
    """A server in memory."""

    def __init__(self, channels: Channels, listener: MemoryListener, server: Server) -> None:
        self.channels = channels
        self.listener = listener
        self.server = server

    @asynccontextmanager
    async def dial(self, url: str = URL, **options: Any) -> AsyncIterator[RawPhoenix]:
        """Connect a client for exact frames."""
        async with connect(url, stream=self.listener.open_stream, **options) as connection:
            yield RawPhoenix(connection)

    @asynccontextmanager
    async def phoenix(self, **options: Any) -> AsyncIterator[phoenix.PhoenixSocket]:
        """Connect the Phoenix client of this package."""
        async with phoenix.connect(
            "ws://memory.test/socket", stream=self.listener.open_stream, **options
        ) as socket:
            yield socket


@asynccontextmanager
async def serving_channels(
    routes: dict[str, type[Channel[Any]]] | type[Channel[Any]],
    *,
    hub: Hub | None = None,
    serve_options: Any = None,
    listener: MemoryListener | None = None,
    **options: Any,
) -> AsyncIterator[ChannelsSite]:
    """Serve channels in memory. A single class is the one of ``room:*``."""
    hub, listener = hub or Hub(), listener or MemoryListener()
    routes = routes if isinstance(routes, dict) else {"room:*": routes}
    channels = Channels(routes, hub=hub, **options)
    has_mock_clock = isinstance(trio.lowlevel.current_clock(), MockClock)
    with trio.fail_after(math.inf if has_mock_clock else SECONDS):
        async with (
            hub,
            serve(channels.socket, listeners=[listener], **(serve_options or {})) as server,
        ):
            yield ChannelsSite(channels, listener, server)
