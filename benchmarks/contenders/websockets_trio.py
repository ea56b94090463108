"""websockets, on trio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.trio.client import connect

from ..job import Job
from .contender import TrioContender, Wire

__all__ = ["CONTENDER"]


class WebsocketsTrio(TrioContender):
    """websockets.trio with its defaults."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[Wire]:
        """See :meth:`Contender.open`."""
        async with connect(job.url(), ssl=job.tls, proxy=None) as websocket:
            yield Wire(websocket.send, websocket.recv)


CONTENDER = WebsocketsTrio()
