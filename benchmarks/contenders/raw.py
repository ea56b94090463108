"""Raw trio streams and sockets: the cost of the bytes alone, without WebSocket frames."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio

from ..job import Job, payload
from .contender import ClientConnection, TrioContender
from .hosting import Host, TrioHosting

__all__ = ["CONTENDER"]

CHUNK = 2**16
MASKED = 4


GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Raw(TrioContender, TrioHosting):
    """Sends just enough of the WebSocket protocol to get answers from the servers."""

    @asynccontextmanager
    async def open(self, job: Job) -> AsyncIterator[ClientConnection]:
        """Not used: this contender has its own loops."""
        raise NotImplementedError
        yield

    async def receive(self, job: Job) -> float:
        """Receive the number of bytes of all messages."""
        async with _stream(job) as stream:
            left = job.count * (_head(job.size) + job.size)
            began = time.perf_counter()
            await stream.send_all(_frame(b"go"))
            while left:
                left -= len(await stream.receive_some(CHUNK))
            return time.perf_counter() - began

    async def send(self, job: Job) -> float:
        """Write each message with one call."""
        async with _stream(job) as stream:
            frame = _frame(payload(job.size))
            began = time.perf_counter()
            for _ in range(job.count):
                await stream.send_all(frame)
            await stream.receive_some(CHUNK)
            return time.perf_counter() - began

    async def echo(self, job: Job) -> float:
        """Repeatedly write a message and receive the number of bytes of its echo."""
        async with _stream(job) as stream:
            frame = _frame(payload(job.size))
            began = time.perf_counter()
            for _ in range(job.count):
                await stream.send_all(frame)
                left = len(frame) - MASKED
                while left:
                    left -= len(await stream.receive_some(CHUNK))
            return time.perf_counter() - began

    @asynccontextmanager
    async def host(self, job: Job) -> AsyncIterator[Host]:
        """Run a server that broadcasts with a loop of ``os.write``."""
        descriptors: set[int] = set()

        async def accept(stream: trio.SocketStream) -> None:
            await stream.send_all(_response(await _read_head(stream)))
            descriptor = stream.socket.fileno()
            descriptors.add(descriptor)
            while await stream.receive_some(CHUNK):
                pass
            descriptors.discard(descriptor)

        async def broadcast(message: str) -> None:
            frame = _server_frame(message.encode())
            write = os.write
            for descriptor in descriptors:
                write(descriptor, frame)

        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, accept, 0, host="127.0.0.1")
            listeners = await nursery.start(serve)
            port = listeners[0].socket.getsockname()[1]
            yield Host(port, descriptors.__len__, broadcast)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _stream(job: Job) -> AsyncIterator[trio.abc.Stream]:
    url = urlsplit(job.url())
    assert url.hostname is not None
    assert url.port is not None
    if job.tls:
        stream: trio.abc.Stream = await trio.open_ssl_over_tcp_stream(
            url.hostname, url.port, ssl_context=job.tls
        )
    else:
        stream = await trio.open_tcp_stream(url.hostname, url.port)
    request = (
        f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    try:
        await stream.send_all(request.encode())
        await _read_head(stream)
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def _read_head(stream: trio.abc.Stream) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(CHUNK)
    return head


def _response(request: bytes) -> bytes:
    key = re.search(rb"(?i)^Sec-WebSocket-Key: *(\S+)", request, re.MULTILINE)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def _server_frame(data: bytes) -> bytes:
    assert 126 <= len(data) < 2**16
    return b"\x81\x7e" + len(data).to_bytes(2, "big") + data


def _head(size: int) -> int:
    return 2 if size < 126 else 4 if size < 2**16 else 10


def _frame(data: bytes) -> bytes:
    """Encode a frame of a client, masked with zeros."""
    size = len(data)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 2**16:
        head = bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x82, 0xFF)) + size.to_bytes(8, "big")
    return head + bytes(MASKED) + data


CONTENDER = Raw()
