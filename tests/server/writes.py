"""A TCP client that counts the writes of a server, as its kernel sees them."""

from __future__ import annotations

import select
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from tests.server.helpers import RawClient, request
from trioglock import Server

__all__ = ["CountingClient", "counting_clients", "counts_writes", "writes_immediately"]

counts_writes = pytest.mark.skipif(sys.platform != "linux", reason="needs TCP_INFO of Linux")
writes_immediately = pytest.mark.skipif(
    sys.platform == "win32", reason="on Windows, a writer task writes all frames"
)

DATA_SEGMENTS_RECEIVED = 152
"""The offset of ``tcpi_data_segs_in`` in ``struct tcp_info``."""


@asynccontextmanager
async def counting_clients(
    server: Server, count: int, path: str = "/"
) -> AsyncIterator[list[CountingClient]]:
    """Some clients of a server on TCP, which is aborted at the end of the block."""
    assert server.port is not None
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            stream = await stack.enter_async_context(
                await trio.open_tcp_stream("127.0.0.1", server.port)
            )
            clients.append(CountingClient(stream))
            await clients[-1].upgrade(path)
        while len(server.connections) < count:
            await trio.sleep(0.001)
        yield clients
        server.abort()


class CountingClient(RawClient):
    """A raw client over TCP. On the loopback device, each short write arrives as one segment."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._socket = stream.socket
        self._counted = 0

    async def upgrade(self, path: str) -> None:
        """The opening handshake."""
        await self.send(request(path))
        assert (await self.head()).startswith(b"HTTP/1.1 101 ")
        self.writes()

    def writes(self) -> int:
        """The number of writes that have arrived since the previous call."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        assert isinstance(info, bytes)
        [total] = struct.unpack_from("I", info, DATA_SEGMENTS_RECEIVED)
        before, self._counted = self._counted, int(total)
        return self._counted - before

    def has_data(self) -> bool:
        """Whether data has arrived that was not read yet."""
        return bool(select.select([self._socket], [], [], 0)[0])

    async def texts(self, count: int) -> list[str]:
        """The next messages."""
        return [(await self.frame())[1].decode() for _ in range(count)]
