"""Limits on the connections and the opening handshakes of each address."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Unpack

import pytest
import trio

from tests.server.helpers import Echo, RawClient, logged, plain_request, request
from trioglock import Request, Response, ServeOptions, Server, serve
from trioglock.server.limits import PendingHandshake
from trioglock.transports.native.link import NativeServerLink

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has many loopback addresses"
)


class Site:
    """A server on 127.0.0.1 whose clients have any loopback address."""

    def __init__(self, server: Server) -> None:
        assert server.port is not None
        self.port = server.port
        self._server = server

    async def accepted(self, address: str = "127.0.0.1", data: bytes = b"") -> RawClient:
        """A client that the server has accepted, and whose opening handshake is in progress."""
        client = await self.raw(address, data)
        assert isinstance(client.stream, trio.SocketStream)
        host, port = client.stream.socket.getsockname()
        while f"{host}:{port}" not in [handshake.name for handshake in pending(self._server)]:
            await trio.sleep(0.001)
        return client

    async def raw(self, address: str = "127.0.0.1", data: bytes = b"") -> RawClient:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=address)
        await stream.send_all(data)
        return RawClient(stream)

    async def status(self, address: str = "127.0.0.1") -> bytes:
        """The beginning of the response to a request; the connection then ends."""
        client = await self.raw(address, request())
        head = await client.head()
        await client.stream.aclose()
        return head[9:12]


@asynccontextmanager
async def serving(**options: Unpack[ServeOptions]) -> AsyncIterator[Site]:
    with trio.fail_after(300):
        async with serve(Echo, "127.0.0.1", 0, **options) as server:
            yield Site(server)


def pending(server: Server) -> list[PendingHandshake]:
    """The opening handshakes in progress."""
    return list(server._handshakes._handshakes)


async def close_all(clients: Sequence[RawClient]) -> None:
    for client in clients:
        await trio.aclose_forcefully(client.stream)


async def test_an_unhashable_link_is_counted_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be one of another transport."""

    class UnhashableLink(NativeServerLink):
        __hash__ = None  # type: ignore[assignment]

    monkeypatch.setattr("trioglock.transports.native.transport.NativeServerLink", UnhashableLink)
    async with serving(max_connections_per_address=1) as site:
        for _ in range(2):
            while (status := await site.status()) == b"429":  # the last connection has not ended
                await trio.sleep(0.01)
            assert status == b"101"


async def test_an_address_with_too_many_connections_gets_429_and_others_get_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With Retry-After; when one of its connections has ended, it may open another one."""
    caplog.set_level("INFO")
    async with serving(max_connections_per_address=2) as site:
        clients = [await site.raw(data=request()) for _ in range(2)]
        for client in clients:
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        third = await site.raw(data=request())
        head = await third.head()
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 5\r\n" in head
        other = await site.raw("127.0.0.2", request())
        assert (await other.head()).startswith(b"HTTP/1.1 101 ")
        await close_all([clients[0], third, other])
        while await site.status() != b"101":
            await trio.sleep(0.01)
        await clients[1].send(b"\x89\x80\0\0\0\0")
        assert (await clients[1].frame())[0] == 0x8A
        await close_all(clients)
    assert "refused: 429 too many connections from this address" in logged(caplog)[0]


async def test_refused_clients_do_not_count_for_their_address() -> None:
    def decide(asked: Request) -> Response | None:
        return Response(403) if "user" not in asked.headers else None

    async with serving(max_connections_per_address=1, process_request=decide) as site:
        for _ in range(3):
            assert await site.status() == b"403"
        client = await site.raw(data=request(user="me"))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        await client.stream.aclose()


async def test_an_address_with_too_many_handshakes_loses_its_oldest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An older handshake of another address is kept."""
    caplog.set_level("INFO")
    async with serving(max_handshakes_per_address=2) as site:
        other = await site.accepted("127.0.0.2", request()[:40])
        clients = [await site.accepted() for _ in range(4)]
        assert [await client.everything() for client in clients[:2]] == [b"", b""]
        await other.send(request()[40:])
        await clients[2].send(request())
        for client in (other, clients[2]):
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        await close_all([other, *clients])
    lines = [line for line in logged(caplog) if "too many concurrent" in line]
    assert len(lines) == 2
    assert all(line.startswith("127.0.0.1:") for line in lines)


async def test_too_many_handshakes_drop_one_of_the_address_that_has_the_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with serving(max_handshakes=4) as site:
        addresses = ("127.0.0.2", *["127.0.0.1"] * 3, "127.0.0.3", "127.0.0.4")
        clients = [await site.accepted(address) for address in addresses]
        assert [await client.everything() for client in clients[1:3]] == [b"", b""]
        for client in (clients[0], *clients[3:]):
            await client.send(request())
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        await close_all(clients)
    assert all(line.startswith("127.0.0.1:") for line in logged(caplog))


async def test_unix_sockets_have_no_address_to_limit(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    options: Any = {"max_connections_per_address": 1, "max_handshakes_per_address": 1}
    with trio.fail_after(300):
        async with serve(Echo, unix_path=os.fspath(path), **options) as server:
            clients = [RawClient(await trio.open_unix_socket(path)) for _ in range(5)]
            while len(pending(server)) < len(clients):
                await trio.sleep(0.001)
            for client in clients:
                await client.send(request())
                assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            await close_all(clients)


async def test_a_plain_response_is_sent_to_an_address_with_too_many_connections() -> None:
    async with serving(
        max_connections_per_address=1, process_request=lambda _: Response(200)
    ) as site:
        for _ in range(3):
            client = await site.raw(data=plain_request())
            assert (await client.everything()).startswith(b"HTTP/1.1 200 ")
