"""trioglock, over the transport of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import trio

from trioglock import Connection, ConnectionClosedError, Reply, Socket, Transport, connect, serve

from ..job import Job
from .contender import TrioContender, Wire
from .hosting import Host, TrioHost

__all__ = ["CONTENDER", "Trioglock"]


class Counting(Socket[int]):
    """Counts what comes and goes."""

    def init_stream(self, info: Any) -> int:
        return 0

    def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        return None, state + 1


class AsyncCounting(Socket[int]):
    """The same in hooks that are async and do not block."""

    def init_stream(self, info: Any) -> int:
        return 0

    async def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1

    async def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        return None, state + 1


class Sending(Socket[int]):
    """Counts what goes, and hands on what comes."""

    def init_stream(self, info: Any) -> int:
        return 0

    def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1


class AsyncSending(Socket[int]):
    """The same in an async hook."""

    def init_stream(self, info: Any) -> int:
        return 0

    async def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1


class Echoing(Socket[int]):
    """Replies to every message until it has had enough."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.over = trio.Event()

    def init_stream(self, info: Any) -> int:
        return 0

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        state += 1
        if state == self.count:
            self.over.set()
            return None, state
        return Reply(frame), state


class Repeating(Socket[None]):
    """Echoes, as a server does."""

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return Reply(frame), None


async def repeat(conn: Connection[None]) -> None:
    """The same in a handler."""
    with suppress(ConnectionClosedError):
        async for message in conn:
            await conn.send(message)


class Trioglock(TrioContender, TrioHost):
    """trioglock with its defaults.

    Args:
        transport: the plug; None for the native one.
    """

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport

    def _connect(
        self, job: Job, socket: Socket[Any] | None = None, *, end: bool = False
    ) -> AbstractAsyncContextManager[Connection[Any]]:
        return connect(
            job.url(end=end), socket, ssl_context=job.tls, proxy=None, transport=self._transport
        )

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[Wire]:
        """See :meth:`Contender.open`."""
        async with self._connect(job) as conn:
            yield Wire(conn.send, conn.receive)

    # Receiving.

    async def receive_hook(self, job: Job) -> float:
        """In a hook that counts; the server's end ends it, so that no message pays for that."""
        return await self._count(job, Counting())

    async def receive_async_hook(self, job: Job) -> float:
        """In an async hook."""
        return await self._count(job, AsyncCounting())

    async def _count(self, job: Job, socket: Socket[int]) -> float:
        async with self._connect(job, socket, end=True) as conn:
            began = time.perf_counter()
            await conn.send_frame("go")
            await conn.wait_closed()
            took = time.perf_counter() - began
            assert conn.state == job.count, conn.state
        return took

    async def receive_for(self, job: Job) -> float:
        """By ``async for``."""
        async with self._connect(job) as conn:
            left = job.count
            began = time.perf_counter()
            await conn.send("go")
            async for _ in conn:
                left -= 1
                if not left:
                    break
            return time.perf_counter() - began

    async def receive_batch(self, job: Job) -> float:
        """All that is there at a time."""
        async with self._connect(job) as conn:
            left = job.count
            began = time.perf_counter()
            await conn.send("go")
            while left:
                left -= len(await conn.receive_batch())
            return time.perf_counter() - began

    async def burst_batch(self, job: Job) -> float:
        """Bursts, all that is there at a time."""
        async with self._connect(job) as conn:
            began = time.perf_counter()
            for _ in range(job.count // job.batch):
                await conn.send("go")
                left = job.batch
                while left:
                    left -= len(await conn.receive_batch())
            return time.perf_counter() - began

    # Sending.

    async def send_hook(self, job: Job) -> float:
        """Through a ``handle_send`` that counts."""
        return await self._send(job, Sending())

    async def send_async_hook(self, job: Job) -> float:
        """Through an async one."""
        return await self._send(job, AsyncSending())

    async def _send(self, job: Job, socket: Socket[Any]) -> float:
        async with self._connect(job, socket) as conn:
            send = conn.send
            began = time.perf_counter()
            for message in job.messages():
                await send(message)
            await conn.receive()
            return time.perf_counter() - began

    async def send_nowait(self, job: Job) -> float:
        """By ``send_nowait``; what finds no room is sent by ``send``, which waits for it."""
        async with self._connect(job, Sending()) as conn:
            send_nowait = conn.send_nowait
            began = time.perf_counter()
            for message in job.messages():
                try:
                    send_nowait(message)
                except trio.WouldBlock:
                    await conn.send(message)
            await conn.receive()
            return time.perf_counter() - began

    # Both.

    async def echo_reply(self, job: Job) -> float:
        """From hook to hook, by Reply."""
        socket = Echoing(job.count)
        async with self._connect(job, socket) as conn:
            began = time.perf_counter()
            await conn.send(job.message)
            await socket.over.wait()
            return time.perf_counter() - began

    # Serving.

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[Host]:
        """See :meth:`TrioHost.host`."""
        target = Repeating if job.way == "hook" else repeat
        async with serve(target, "127.0.0.1", 0, shutdown_timeout=1) as server:

            async def broadcast(message: str) -> None:
                server.broadcast(message)

            assert server.port is not None
            yield Host(server.port, lambda: len(server.connections), broadcast)

    async def serve_hook(self, job: Job) -> float:
        """Echo from a hook."""
        return await self.serve(job)

    async def fanout_hook(self, job: Job) -> float:
        """Send to everybody, past hooks."""
        return await self.fanout(job)

    async def hold_hook(self, job: Job) -> dict[str, float]:
        """With hooks and no handler."""
        return await self.hold(job)


CONTENDER = Trioglock()
