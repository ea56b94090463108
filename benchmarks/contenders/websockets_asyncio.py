"""websockets on asyncio with uvloop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from ..job import Job
from .contender import ClientConnection
from .on_uvloop import UvloopContender

__all__ = ["CONTENDER"]


class WebsocketsAsyncio(UvloopContender):
    """The asyncio client of websockets with its defaults."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[ClientConnection]:
        async with connect(job.url(), ssl=job.tls, proxy=None) as websocket:
            yield ClientConnection(websocket.send, websocket.recv)


CONTENDER = WebsocketsAsyncio()
