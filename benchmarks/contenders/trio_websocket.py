"""trio-websocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from ..job import Job
from .contender import TrioContender, Wire

__all__ = ["CONTENDER"]

INTERVAL = TIMEOUT = 20


class TrioWebsocket(TrioContender):
    """trio-websocket with its defaults."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[Wire]:
        """See :meth:`Contender.open`."""
        async with open_websocket_url(job.url(), ssl_context=job.tls) as websocket:
            yield Wire(websocket.send_message, websocket.get_message)

    @asynccontextmanager
    async def open_beating(self, job: Job) -> AsyncIterator[Wire]:
        """It has no heartbeat of its own: a task of the program's does it."""
        async with open_websocket_url(job.url()) as websocket, trio.open_nursery() as nursery:
            nursery.start_soon(_beat, websocket)
            yield Wire(websocket.send_message, websocket.get_message)
            nursery.cancel_scope.cancel()


async def _beat(websocket: WebSocketConnection) -> None:
    while True:
        await trio.sleep(INTERVAL)
        with trio.fail_after(TIMEOUT):
            await websocket.ping()


CONTENDER = TrioWebsocket()
