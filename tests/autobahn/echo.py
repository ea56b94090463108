"""The server under test: it echoes what the fuzzing client sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.autobahn.client import MAX_SIZE
from trioglock import Connection, ConnectionClosed, serve

__all__ = ["serving_echo"]


@asynccontextmanager
async def serving_echo() -> AsyncIterator[str]:
    """The URL of the server, for the time of the block."""
    async with serve(_echo, "127.0.0.1", 0, max_size=MAX_SIZE) as server:
        yield f"ws://127.0.0.1:{server.port}"


async def _echo(conn: Connection[None]) -> None:
    try:
        async for message in conn:
            await conn.send(message)
    except ConnectionClosed:
        pass  # whether rightly so is the report's to say
