"""websockets on trio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio
from websockets.exceptions import ConnectionClosedError
from websockets.trio.client import connect
from websockets.trio.server import Server, ServerConnection, broadcast, serve

from ..certificates import server_context
from ..job import Job
from .contender import ClientConnection, TrioContender
from .hosting import Host, TrioHosting

__all__ = ["CONTENDER"]


class WebsocketsTrio(TrioContender, TrioHosting):
    """websockets.trio with its defaults."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[ClientConnection]:
        async with connect(job.url(), ssl=job.tls, proxy=None) as websocket:
            yield ClientConnection(websocket.send, websocket.recv)

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[Host]:
        connections: set[ServerConnection] = set()

        async def echo(connection: ServerConnection) -> None:
            connections.add(connection)
            with suppress(ConnectionClosedError):
                async for message in connection:
                    await connection.send(message)

        async with trio.open_nursery() as nursery:
            tls = server_context() if job.secure else None
            start = partial(serve, echo, 0, host="127.0.0.1", ssl=tls)
            server: Server = await nursery.start(start)
            port = server.listeners[0].socket.getsockname()[1]
            yield Host(port, connections.__len__, partial(broadcast, connections))
            nursery.cancel_scope.cancel()


CONTENDER = WebsocketsTrio()
