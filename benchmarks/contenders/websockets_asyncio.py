"""websockets, on asyncio with uvloop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from ..job import Job
from .contender import Wire
from .on_uvloop import UvloopContender

__all__ = ["CONTENDER"]


class WebsocketsAsyncio(UvloopContender):
    """websockets' asyncio client with its defaults."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[Wire]:
        """See :meth:`Contender.open`."""
        async with connect(job.url(), ssl=job.tls, proxy=None) as websocket:
            yield Wire(websocket.send, websocket.recv)


CONTENDER = WebsocketsAsyncio()
