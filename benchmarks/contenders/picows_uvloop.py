"""picows on asyncio with uvloop, with callbacks or with a queue that a callback fills."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
    ws_create_server,
)

from ..certificates import server_context
from ..job import Job
from .contender import ClientConnection
from .hosting import Host, UvloopHosting
from .on_uvloop import UvloopContender

__all__ = ["CONTENDER"]


class Counter(WSListener):
    """Decodes each payload as text and counts the messages."""

    def __init__(self) -> None:
        self.received = 0
        self.done = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        frame.get_payload_as_utf8_text()
        self.received += 1

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.done.set()


class BinaryCounter(Counter):
    """The same for binary messages."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        frame.get_payload_as_bytes()
        self.received += 1


class BareCounter(Counter):
    """Counts the messages without creating objects for the payloads."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.received += 1


class Echoer(WSListener):
    """Sends every message back until it has received ``count`` messages."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.done = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.left -= 1
        if self.left:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())
        else:
            self.done.set()


class Queue(WSListener):
    """Puts every message into a queue, and records whether writing is paused."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.writable = asyncio.Event()
        self.writable.set()
        self.paused = False

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self.queue.put_nowait(frame.get_payload_as_utf8_text())
        else:
            self.queue.put_nowait(frame.get_payload_as_bytes())

    def pause_writing(self) -> None:
        self.paused = True
        self.writable.clear()

    def resume_writing(self) -> None:
        self.paused = False
        self.writable.set()


class EchoServerListener(WSListener):
    """Echoes every message on a server."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


class Picows(UvloopContender, UvloopHosting):
    """picows with its defaults."""

    @asynccontextmanager
    async def _connect(self, job: Job, listener: WSListener) -> AsyncIterator[WSTransport]:
        transport, _ = await ws_connect(lambda: listener, job.url(), ssl_context=job.tls)
        try:
            yield transport
        finally:
            transport.disconnect()
            await transport.wait_disconnected()

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[ClientConnection]:
        """Open a connection whose queue has no limit, so there is no backpressure."""
        listener = Queue()
        async with self._connect(job, listener) as transport:

            async def send(message: str | bytes) -> None:
                kind = WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY
                transport.send(kind, message)

            yield ClientConnection(send, listener.queue.get)

    async def receive_callback(self, job: Job) -> float:
        """Receive in a callback that gets the payload and counts."""
        return await self._count(job, Counter() if job.is_text else BinaryCounter())

    async def receive_bare(self, job: Job) -> float:
        """Receive in a callback that counts."""
        return await self._count(job, BareCounter())

    async def _count(self, job: Job, listener: Counter) -> float:
        transport, _ = await ws_connect(lambda: listener, job.url(end=True), ssl_context=job.tls)
        began = time.perf_counter()
        transport.send(WSMsgType.TEXT, "go")
        await listener.done.wait()
        took = time.perf_counter() - began
        assert listener.received == job.count, listener.received
        return took

    async def send(self, job: Job) -> float:
        """Send, and wait only while writing is paused, because ``send`` is not a coroutine."""
        listener = Queue()
        async with self._connect(job, listener) as transport:
            send = transport.send
            kind = WSMsgType.TEXT if job.is_text else WSMsgType.BINARY
            began = time.perf_counter()
            for message in job.messages():
                if listener.paused:
                    await listener.writable.wait()
                send(kind, message)
            await listener.queue.get()
            return time.perf_counter() - began

    async def echo_callback(self, job: Job) -> float:
        """Echo in a callback."""
        listener = Echoer(job.count)
        async with self._connect(job, listener) as transport:
            kind = WSMsgType.TEXT if job.is_text else WSMsgType.BINARY
            began = time.perf_counter()
            transport.send(kind, job.message)
            await listener.done.wait()
            return time.perf_counter() - began

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[Host]:
        tls = server_context() if job.secure else None
        server = await ws_create_server(
            lambda request: EchoServerListener(), "127.0.0.1", 0, ssl=tls, backlog=1024
        )
        try:
            yield Host(server.sockets[0].getsockname()[1])
        finally:
            server.close()


CONTENDER = Picows()
