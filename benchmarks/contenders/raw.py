"""A raw trio stream: the cost of the bytes alone, without encoding or decoding of frames."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio

from ..job import Job, payload
from .contender import ClientConnection, TrioContender

__all__ = ["CONTENDER"]

CHUNK = 2**16
MASKED = 4


class Raw(TrioContender):
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
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await stream.receive_some(CHUNK)
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


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
