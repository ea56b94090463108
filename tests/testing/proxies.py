"""Connections through a proxy, for tests of faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import trio
import trio.testing

from trioglock.testing import FaultProxy, ProxiedConnection

__all__ = ["Ends", "Over", "open_url", "over_memory", "over_tcp", "read_all"]


@dataclass
class Ends:
    """Both ends of a connection through a proxy."""

    proxy: FaultProxy
    client: trio.abc.Stream
    server: trio.abc.Stream

    @property
    def connection(self) -> ProxiedConnection:
        [connection] = self.proxy.connections
        return connection

    async def pass_to_server(self, data: bytes) -> None:
        """Send bytes and check that they arrive unchanged."""
        await self.client.send_all(data)
        assert await read_all(self.server, len(data)) == data

    async def pass_to_client(self, data: bytes) -> None:
        await self.server.send_all(data)
        assert await read_all(self.client, len(data)) == data


async def read_all(stream: trio.abc.Stream, size: int) -> bytes:
    """Read ``size`` bytes, or fewer if the stream ends."""
    data = bytearray()
    while len(data) < size and (part := await stream.receive_some(size - len(data))):
        data += part
    return bytes(data)


@asynccontextmanager
async def over_memory() -> AsyncIterator[Ends]:
    far: list[trio.abc.Stream] = []

    async def open_target() -> trio.abc.Stream:
        near, server = trio.testing.memory_stream_pair()
        far.append(server)
        return near

    async with FaultProxy(open_target, memory=True) as proxy:
        client = await proxy.open_stream()
        yield Ends(proxy, client, far[0])


@asynccontextmanager
async def over_tcp() -> AsyncIterator[Ends]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    with trio.fail_after(300):
        async with listener, FaultProxy(("127.0.0.1", port)) as proxy:
            client = await open_url(proxy.url)
            server = await listener.accept()
            async with client, server:
                yield Ends(proxy, client, server)


async def open_url(url: str) -> trio.SocketStream:
    """Open a TCP connection to the address of a URL."""
    host, _, port = url.removeprefix("ws://").strip("/").partition(":")
    return await trio.open_tcp_stream(host, int(port))


Over: TypeAlias = Callable[[], AbstractAsyncContextManager[Ends]]
