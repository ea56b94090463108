"""Servers in memory or on 127.0.0.1, trioglock clients, and raw clients."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, Unpack

import pytest
import trio
import trio.testing

from tests.transports.native.frame_bytes import apply_key, header
from trioglock import (
    Connection,
    ConnectOptions,
    MemoryListener,
    NativeTransport,
    Reply,
    ServeOptions,
    Server,
    ServerTransport,
    Socket,
    TrioWebsocketTransport,
    connect,
    serve,
)

MakeTransport: TypeAlias = Callable[[], ServerTransport]

on_both = pytest.mark.parametrize(
    "transport", [NativeTransport, TrioWebsocketTransport], ids=["native", "trio-websocket"]
)


class Echo(Socket[None]):
    """Echoes every message."""

    def handle_receive(self, frame: Any, state: None) -> tuple[object, None]:
        return Reply(frame), state


async def echo(conn: Connection[None]) -> None:
    """An echo handler."""
    async for message in conn:
        await conn.send(message)


@dataclass(frozen=True)
class Site:
    """A server and its listener."""

    server: Server
    listener: MemoryListener

    @asynccontextmanager
    async def dial(
        self,
        path: str = "/",
        socket: Socket[Any] | None = None,
        **options: Unpack[ConnectOptions],
    ) -> AsyncIterator[Connection[Any]]:
        """Connect a trioglock client."""
        url = f"ws://memory.test{path}"
        every: ConnectOptions = {**options, "stream": self.listener.open_stream}
        async with connect(url, socket or Socket(), **every) as conn:
            yield conn

    async def raw(self) -> RawClient:
        """A client that sends exactly the bytes of a test."""
        return RawClient(await self.listener.open_stream())

    async def upgraded(self) -> RawClient:
        """A raw client after its opening handshake."""
        client = await self.raw()
        await client.send(request())
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        return client

    async def ask(self, data: bytes) -> Answer:
        """The response to a plain request; the server then ends the stream."""
        client = await self.raw()
        await client.send(data)
        return Answer(await client.everything())


class LockstepListener(MemoryListener):
    """Its streams have no buffer: a write waits until the other end reads."""

    async def open_stream(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        near, far = trio.testing.lockstep_stream_pair()
        self._opened.send_nowait(far)
        return near


@asynccontextmanager
async def serving(
    target: Any, listener: MemoryListener | None = None, **options: Unpack[ServeOptions]
) -> AsyncIterator[Site]:
    """A server in memory. The block has 30 seconds, or any number of them with ``MockClock``."""
    listener = listener or MemoryListener()
    every: ServeOptions = {**options, "listeners": [listener]}
    virtual = isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    with trio.fail_after(math.inf if virtual else 300):
        async with serve(target, **every) as server:
            yield Site(server, listener)


def request(target: str = "/", **headers: str | None) -> bytes:
    """The head of a client's request; a header that is None is left out."""
    every: Mapping[str, str | None] = {
        "Host": "memory.test",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{name}: {value}" for name, value in every.items() if value is not None]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def plain_request(target: str = "/", method: str = "GET", *headers: str) -> bytes:
    """A request of plain HTTP."""
    return "\r\n".join(
        [f"{method} {target} HTTP/1.1", "Host: memory.test", *headers, "", ""]
    ).encode()


def frame(head: int, payload: bytes) -> bytes:
    """A masked frame, legal or not."""
    return header(head, len(payload), masked=True) + apply_key(payload)


class Answer:
    """A parsed HTTP response."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status.split()[1]) if status else 0
        pairs = (line.partition(": ") for line in lines)
        self.headers = {name.lower(): value for name, _, value in pairs}


class RawClient:
    """A client that sends exactly the bytes of a test."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(self) -> bytes:
        """The head of the server's response."""
        while b"\r\n\r\n" not in self._buffer:
            data = await self.stream.receive_some()
            assert data, "the server hung up"
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    async def frame(self) -> tuple[int, bytes]:
        """The first byte and the payload of the server's next, short frame."""
        while len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
            data = await self.stream.receive_some()
            assert data, "the server hung up"
            self._buffer += data
        stop = 2 + self._buffer[1]
        assert stop < 128
        head, payload = self._buffer[0], self._buffer[2:stop]
        self._buffer = self._buffer[stop:]
        return head, payload

    async def close_code(self) -> int:
        """The code of the server's Close frame, which must come next."""
        head, payload = await self.frame()
        assert head == 0x88
        return int.from_bytes(payload[:2])

    async def everything(self) -> bytes:
        """All bytes until the server closes the stream."""
        while data := await self.stream.receive_some():
            self._buffer += data
        await self.stream.aclose()
        return self._buffer


def logged(caplog: pytest.LogCaptureFixture, level: str | None = None) -> list[str]:
    """The messages in the server's log, at one level or any."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "trioglock.server" and level in (None, record.levelname)
    ]
