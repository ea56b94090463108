"""websockets on asyncio with uvloop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from ..certificates import server_context
from ..job import Job
from .contender import ClientConnection
from .hosting import Host, UvloopHosting
from .on_uvloop import UvloopContender

__all__ = ["CONTENDER"]


async def echo(connection: ServerConnection) -> None:
    """Send every message back."""
    with suppress(ConnectionClosedError):
        async for message in connection:
            await connection.send(message)


class WebsocketsAsyncio(UvloopContender, UvloopHosting):
    """websockets on asyncio with its defaults."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[ClientConnection]:
        async with connect(job.url(), ssl=job.tls, proxy=None) as websocket:
            yield ClientConnection(websocket.send, websocket.recv)

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[Host]:
        tls = server_context() if job.secure else None
        async with serve(echo, "127.0.0.1", 0, ssl=tls, close_timeout=1) as server:
            yield Host(next(iter(server.sockets)).getsockname()[1])


CONTENDER = WebsocketsAsyncio()
