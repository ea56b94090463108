"""trioglock over its native transport."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio

from trioglock import (
    Connection,
    ConnectionClosedError,
    Reply,
    Server,
    Socket,
    Transport,
    connect,
    serve,
)
from trioglock.codecs import JSON
from trioglock.pubsub import Hub, Message

from ..certificates import server_context
from ..job import Job
from .contender import ClientConnection, TrioContender
from .hosting import CHANNEL, Host, TrioHosting

__all__ = ["CONTENDER", "Trioglock"]


class Counting(Socket[int]):
    """Counts sent and received messages."""

    def init_stream(self, info: Any) -> int:
        return 0

    def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        return None, state + 1


class AsyncCounting(Socket[int]):
    """The same with async hooks that do not block."""

    def init_stream(self, info: Any) -> int:
        return 0

    async def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1

    async def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        return None, state + 1


class Sending(Socket[int]):
    """Counts sent messages and delivers received ones."""

    def init_stream(self, info: Any) -> int:
        return 0

    def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1


class AsyncSending(Socket[int]):
    """The same with an async hook."""

    def init_stream(self, info: Any) -> int:
        return 0

    async def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1


class Echoing(Socket[int]):
    """Replies to every message until it has received ``count`` messages."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.done = trio.Event()

    def init_stream(self, info: Any) -> int:
        return 0

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        state += 1
        if state == self.count:
            self.done.set()
            return None, state
        return Reply(frame), state


class EchoServerSocket(Socket[None]):
    """Echoes every message on a server."""

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return Reply(frame), None


def _message(job: Job) -> dict[str, Any]:
    """Return a message without an id, which takes about ``job.size`` bytes as JSON."""
    empty = {"method": "order", "params": {"side": "buy", "note": ""}}
    rest = max(job.size - len(json.dumps(empty)), 0)
    return {"method": "order", "params": {"side": "buy", "note": "x" * rest}}


async def echo_handler(conn: Connection[None]) -> None:
    """Echo every message in a handler."""
    with suppress(ConnectionClosedError):
        async for message in conn:
            await conn.send(message)


class Trioglock(TrioContender, TrioHosting):
    """trioglock with its defaults.

    Args:
        transport: the transport; None for the native one.
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
    async def open(self, job: Job) -> AsyncIterator[ClientConnection]:
        async with self._connect(job) as conn:
            yield ClientConnection(conn.send, conn.receive)

    async def receive_hook(self, job: Job) -> float:
        """Receive in a hook that counts.

        The job ends when the server closes the connection, so the hook need not check the count.
        """
        return await self._count(job, Counting())

    async def receive_async_hook(self, job: Job) -> float:
        """Receive in an async hook."""
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
        """Receive with ``async for``."""
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
        """Receive all available messages at a time."""
        async with self._connect(job) as conn:
            left = job.count
            began = time.perf_counter()
            await conn.send("go")
            while left:
                left -= len(await conn.receive_batch())
            return time.perf_counter() - began

    async def burst_batch(self, job: Job) -> float:
        """Request bursts, and receive all available messages at a time."""
        async with self._connect(job) as conn:
            began = time.perf_counter()
            for _ in range(job.count // job.batch):
                await conn.send("go")
                left = job.batch
                while left:
                    left -= len(await conn.receive_batch())
            return time.perf_counter() - began

    async def send_hook(self, job: Job) -> float:
        """Send through a ``handle_send`` that counts."""
        return await self._send(job, Sending())

    async def send_async_hook(self, job: Job) -> float:
        """Send through an async ``handle_send``."""
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
        """Send with ``send_nowait``, or with ``send`` while the queue is full."""
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

    async def echo_reply(self, job: Job) -> float:
        """Echo by returning ``Reply`` from the hook."""
        socket = Echoing(job.count)
        async with self._connect(job, socket) as conn:
            began = time.perf_counter()
            await conn.send(job.message)
            await socket.done.wait()
            return time.perf_counter() - began

    async def request(self, job: Job) -> float:
        """Repeatedly send a request and wait for its reply, which the server echoes."""
        return await self._request(job, JSON())

    async def request_msgspec(self, job: Job) -> float:
        """The same with a faster library for JSON."""
        return await self._request(job, JSON(library="msgspec"))

    async def _request(self, job: Job, codec: JSON[Any]) -> float:
        async with connect(job.url(), codec=codec, proxy=None) as conn:
            request, message = conn.request, _message(job)
            began = time.perf_counter()
            for _ in range(job.count):
                await request(message)
            return time.perf_counter() - began

    async def request_hand(self, job: Job) -> float:
        """The same without :meth:`Connection.request` and a codec."""
        async with self._connect(job) as conn:
            send, receive, message = conn.send, conn.receive, _message(job)
            began = time.perf_counter()
            for number in range(job.count):
                await send(json.dumps({**message, "id": number}))
                assert json.loads(await receive())["id"] == number
            return time.perf_counter() - began

    async def request_echo(self, job: Job) -> float:
        """The echo of the bytes of a request."""
        message = {**_message(job), "id": job.count}
        return await self._echo(job, json.dumps(message, separators=(",", ":")))

    async def tasks(self, job: Job) -> float:
        """Send from ``batch`` tasks at the same time, one message each, and repeat this."""
        async with self._connect(job) as conn:
            send, message = conn.send, job.message
            took = 0.0
            for _ in range(job.count // job.batch):
                async with trio.open_nursery() as nursery:
                    # The tasks start in the next turn of the scheduler, all of them.
                    for _ in range(job.batch):
                        nursery.start_soon(send, message)
                    began = time.perf_counter()
                took += time.perf_counter() - began
            began = time.perf_counter()
            await conn.receive()
            return took + time.perf_counter() - began

    def host(self, job: Job) -> AbstractAsyncContextManager[Host]:
        match job.way:
            case "hub":
                return self._host_hub(job, CHANNEL)
            case "listener":
                return self._host_hub(job, "source")
            case "hook":
                return self._host(job, EchoServerSocket)
            case _:
                return self._host(job, echo_handler)

    @asynccontextmanager
    async def _host(self, job: Job, target: Any) -> AsyncIterator[Host]:
        async with self._serve(job, target) as server:

            async def broadcast(message: str) -> None:
                server.broadcast(message)

            yield _describe(server, broadcast)

    @asynccontextmanager
    async def _host_hub(self, job: Job, channel: str) -> AsyncIterator[Host]:
        """Run a hub to which messages are published on ``channel``.

        Its clients subscribe to CHANNEL. A listener republishes what is published on ``source``.
        """
        hub = Hub()

        @hub.on("source")
        async def republish(message: Message) -> None:
            await hub.publish(message.data, channel=CHANNEL)

        async with hub, self._serve(job, hub.socket) as server:
            yield _describe(server, partial(hub.publish, channel=channel))

    def _serve(self, job: Job, target: Any) -> AbstractAsyncContextManager[Server]:
        tls = server_context() if job.secure else None
        return serve(target, "127.0.0.1", 0, ssl_context=tls, shutdown_timeout=1)


def _describe(server: Server, broadcast: Callable[[str], Awaitable[None]]) -> Host:
    assert server.port is not None
    return Host(server.port, lambda: len(server.connections), broadcast)


CONTENDER = Trioglock()
