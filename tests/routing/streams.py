"""Connections in memory, and a stream whose peer stops reading or disappears."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioglock import Connection, Socket, connect
from trioglock.testing import MockPeer, MockServer


@asynccontextmanager
async def pair(
    socket: Socket[Any, Any], **options: Any
) -> AsyncIterator[tuple[Connection[Any, Any], MockPeer, MockServer]]:
    """A connection in memory, with the server's end of it."""
    async with (
        MockServer(memory=True) as server,
        connect(server.url, socket, stream=server.open_stream, **options) as conn,
    ):
        yield conn, await server.accept(), server


class FaultyStream(trio.abc.Stream):
    """Wraps a stream. Set ``stuck`` to block sends, ``dead`` to lose data in both directions."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.stuck = False
        self.dead = False

    async def send_all(self, data: Any) -> None:
        if self.stuck:
            await trio.sleep_forever()
        if not self.dead:
            await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        received = await self.stream.receive_some(max_bytes)
        if self.dead:
            await trio.sleep_forever()
        return received

    async def aclose(self) -> None:
        await self.stream.aclose()
