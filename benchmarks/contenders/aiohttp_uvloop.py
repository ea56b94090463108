"""The client of aiohttp on asyncio with uvloop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, WSMsgType

from ..job import Job
from .contender import ClientConnection
from .on_uvloop import UvloopContender

__all__ = ["CONTENDER"]


class Aiohttp(UvloopContender):
    """aiohttp with its defaults, with compression only for jobs that measure it."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[ClientConnection]:
        compress = 15 if job.deflate else 0
        async with (
            ClientSession() as session,
            session.ws_connect(job.url(), ssl=job.tls or True, compress=compress) as websocket,
        ):
            assert bool(websocket.compress) is job.deflate
            if job.is_text:
                yield ClientConnection(websocket.send_str, websocket.receive)
                return

            async def send(message: str | bytes) -> None:
                kind = WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY
                data = message.encode() if isinstance(message, str) else message
                await websocket.send_frame(data, kind)

            yield ClientConnection(send, websocket.receive)


CONTENDER = Aiohttp()
