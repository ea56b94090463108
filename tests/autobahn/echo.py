"""The server under test. It echoes the messages of the fuzzing client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.autobahn.client import MAX_SIZE
from trioglock import Connection, ConnectionClosed, serve

__all__ = ["serve_echo"]


@asynccontextmanager
async def serve_echo() -> AsyncIterator[str]:
    """Run the server during the block, and yield its URL."""
    async with serve(_echo, "127.0.0.1", 0, max_size=MAX_SIZE) as server:
        yield f"ws://127.0.0.1:{server.port}"


async def _echo(conn: Connection[None]) -> None:
    try:
        async for message in conn:
            await conn.send(message)
    except ConnectionClosed:
        pass  # the report contains whether this is correct
