"""Small proxies that record requests and connect to one port."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from tests.transports.servers import Request, Script, read_request, serving, upgrading

ProxyT = TypeVar("ProxyT", bound=Script)


@asynccontextmanager
async def proxied(
    make_proxy: Callable[[int], ProxyT],
    *,
    server_context: ssl.SSLContext | None = None,
    proxy_context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[ProxyT, str, list[Request]]]:
    """Run a server and a proxy for it; yield the proxy, its address and the server's requests."""
    requests: list[Request] = []
    async with serving(upgrading(requests), server_context) as port:
        proxy = make_proxy(port)
        async with serving(proxy, proxy_context) as proxy_port:
            yield proxy, f"127.0.0.1:{proxy_port}", requests


async def pump(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
    async for chunk in source:
        await target.send_all(chunk)


async def tunnel(stream: trio.abc.Stream, port: int) -> None:
    """Forward bytes between a client and the server on this port until one disconnects."""
    server = await trio.open_tcp_stream("127.0.0.1", port)
    async with server, trio.open_nursery() as nursery:
        nursery.start_soon(pump, stream, server)
        await pump(server, stream)
        nursery.cancel_scope.cancel()


class HTTPProxy:
    """Answers CONNECT with a tunnel to one port, whatever the target."""

    def __init__(self, port: int, status: bytes = b"200 Connection established") -> None:
        self.port = port
        self.status = status
        self.requests: list[Request] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        self.requests.append(await read_request(stream))
        await stream.send_all(b"HTTP/1.1 " + self.status + b"\r\nVia: 1.1 test\r\n\r\n")
        await tunnel(stream, self.port)


class SOCKSProxy:
    """Speaks SOCKS4, 4a and 5, with a tunnel to one port, whatever the target."""

    def __init__(self, port: int, *, user: bytes = b"", refuse: bool = False) -> None:
        self.port = port
        self.user = user
        self.refuse = refuse
        self.asked: list[tuple[int, str, int]] = []
        self.users: list[bytes] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        version = (await exactly(stream, 1))[0]
        await (self._four(stream) if version == 4 else self._five(stream))
        if not self.refuse:
            await tunnel(stream, self.port)

    async def _four(self, stream: trio.abc.Stream) -> None:
        _, *rest = await exactly(stream, 7)
        port, address = int.from_bytes(rest[:2]), bytes(rest[2:])
        self.users.append(await until_nul(stream))
        # An address that cannot be announces a name behind the user (SOCKS4a).
        by_name = address[:3] == b"\0\0\0"
        host = (await until_nul(stream)).decode() if by_name else socket.inet_ntoa(address)
        self.asked.append((4, host, port))
        await stream.send_all(bytes([0, 91 if self.refuse else 90]) + bytes(6))

    async def _five(self, stream: trio.abc.Stream) -> None:
        methods = await exactly(stream, (await exactly(stream, 1))[0])
        method = 2 if self.user else 0
        await stream.send_all(bytes([5, method if method in methods else 255]))
        if self.user:
            await exactly(stream, 1)
            name = await exactly(stream, (await exactly(stream, 1))[0])
            password = await exactly(stream, (await exactly(stream, 1))[0])
            self.users.append(name + b":" + password)
            await stream.send_all(bytes([1, self.users[-1] != self.user]))
        kind = (await exactly(stream, 4))[3]
        if kind == 3:
            host = (await exactly(stream, (await exactly(stream, 1))[0])).decode()
        else:
            host = socket.inet_ntoa(await exactly(stream, 4))
        port = int.from_bytes(await exactly(stream, 2))
        self.asked.append((5, host, port))
        await stream.send_all(bytes([5, 5 if self.refuse else 0, 0, 1]) + bytes(6))


async def exactly(stream: trio.abc.Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        if not part:
            raise trio.BrokenResourceError("the client hung up")
        data += part
    return data


async def until_nul(stream: trio.abc.Stream) -> bytes:
    data = b""
    while not data.endswith(b"\0"):
        data += await exactly(stream, 1)
    return data[:-1]
