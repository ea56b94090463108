"""trio-websocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    open_websocket_url,
    serve_websocket,
)

from ..certificates import server_context
from ..job import Job
from .contender import ClientConnection, TrioContender
from .hosting import Host, TrioHosting

__all__ = ["CONTENDER"]

INTERVAL = TIMEOUT = 20


class TrioWebsocket(TrioContender, TrioHosting):
    """trio-websocket with its defaults."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[ClientConnection]:
        async with open_websocket_url(job.url(), ssl_context=job.tls) as websocket:
            yield ClientConnection(websocket.send_message, websocket.get_message)

    @asynccontextmanager
    async def open_with_heartbeat(self, job: Job) -> AsyncIterator[ClientConnection]:
        """Run the heartbeat in a task of the benchmark, because trio-websocket has none."""
        async with open_websocket_url(job.url()) as websocket, trio.open_nursery() as nursery:
            nursery.start_soon(_send_pings, websocket)
            yield ClientConnection(websocket.send_message, websocket.get_message)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[Host]:
        """Run a server that broadcasts with one task per connection, like websockets."""
        connections: set[WebSocketConnection] = set()

        async def echo(request: WebSocketRequest) -> None:
            connection = await request.accept()
            connections.add(connection)
            with suppress(ConnectionClosed):
                while True:
                    await connection.send_message(await connection.get_message())

        async def broadcast(message: str) -> None:
            async with trio.open_nursery() as sending:
                for connection in connections:
                    sending.start_soon(connection.send_message, message)

        async with trio.open_nursery() as nursery:
            tls = server_context() if job.secure else None
            start = partial(serve_websocket, echo, "127.0.0.1", 0, ssl_context=tls)
            server = await nursery.start(start)
            yield Host(server.port, connections.__len__, broadcast)
            nursery.cancel_scope.cancel()


async def _send_pings(websocket: WebSocketConnection) -> None:
    while True:
        await trio.sleep(INTERVAL)
        with trio.fail_after(TIMEOUT):
            await websocket.ping()


CONTENDER = TrioWebsocket()
