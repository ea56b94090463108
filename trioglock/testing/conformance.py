"""The conformance tests for transports.

Subclass :class:`TransportConformance` in a test module for pytest-trio and override
``make_transport``; pytest collects the inherited tests::

    class TestMyTransport(TransportConformance):
        def make_transport(self) -> Transport:
            return MyTransport()
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from ..client import connect
from ..connection import Connection
from ..errors import ConnectFailed, ConnectionClosedError, HandshakeRefused, InvalidFrame
from ..frames import Data
from ..hooks import Socket
from ..transports import Transport
from .server import MockServer, echo

__all__ = ["TransportConformance"]

SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 2**20)


class TransportConformance:
    """Tests of a transport against a server based on trio-websocket."""

    def make_transport(self) -> Transport:
        """Return a new transport for one test."""
        raise NotImplementedError

    @asynccontextmanager
    async def connected(
        self, server: MockServer, socket: Socket[None, Any] | None = None, path: str = ""
    ) -> AsyncIterator[Connection[None, Any]]:
        """Connect through the transport; the block has a timeout of 30 seconds.

        Args:
            server: the server to connect to.
            socket: the hooks.
            path: a path to append to the URL of the server.
        """
        with trio.fail_after(30):
            async with connect(
                server.url + path,
                socket,
                transport=self.make_transport(),
                max_size=2**21,
                proxy=None,
            ) as connection:
                yield connection

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("kind", ["text", "binary"])
    async def test_echoes_every_size_of_frame(self, size: int, kind: str) -> None:
        """Text and binary messages arrive unchanged with every encoding of the frame length."""
        message: Data = "x" * size if kind == "text" else b"x" * size
        async with MockServer(echo) as server, self.connected(server) as conn:
            await conn.send(message)
            assert await conn.receive() == message

    async def test_text_is_unicode(self) -> None:
        """Characters of one to four bytes arrive unchanged."""
        async with MockServer(echo) as server, self.connected(server) as conn:
            await conn.send("a \u00e9 \u20ac \U0001f40d")
            assert await conn.receive() == "a \u00e9 \u20ac \U0001f40d"

    async def test_keeps_order_in_both_directions(self) -> None:
        """A thousand messages are echoed in order."""
        async with MockServer(echo) as server, self.connected(server) as conn:
            for number in range(1000):
                await conn.send(str(number))
            assert [await conn.receive() for _ in range(1000)] == [str(n) for n in range(1000)]

    async def test_fragments(self) -> None:
        """An async iterable arrives as one message, and a message is received in fragments."""
        transport = self.make_transport()
        receives = transport.capabilities.fragments
        async with MockServer(echo) as server:
            with trio.fail_after(30):
                async with connect(
                    server.url, transport=transport, fragments=receives, proxy=None
                ) as conn:
                    try:
                        await conn.send(_parts())
                    except InvalidFrame:
                        await conn.send("".join([part async for part in _parts()]))
                    if receives:
                        async with conn.receive_fragments() as fragments:
                            received = "".join([str(fragment) async for fragment in fragments])
                    else:
                        received = str(await conn.receive())
                    assert received == "".join([part async for part in _parts()])

    async def test_headers_path_and_subprotocol(self) -> None:
        """The server receives the request headers; ``handshake`` contains the response headers."""
        async with MockServer(echo, subprotocol="b") as server:
            server.accept_with({"x-answer": "42"})
            with trio.fail_after(30):
                async with connect(
                    server.url + "room?x=1",
                    transport=self.make_transport(),
                    additional_headers={"X-Question": "6x7"},
                    subprotocols=["a", "b"],
                    origin="https://example.org",
                    proxy=None,
                ) as conn:
                    assert conn.subprotocol == "b"
                    assert conn.handshake is not None
                    assert conn.handshake.response_headers["X-Answer"] == "42"
            [peer] = server.peers
            assert peer.path == "/room?x=1"
            assert peer.request_headers["x-question"] == "6x7"
            assert peer.request_headers["origin"] == "https://example.org"
            assert peer.subprotocols == ("a", "b")

    async def test_a_refusal_keeps_status_headers_and_body(self) -> None:
        """The exception for a status other than 101 contains the whole response."""
        async with MockServer(echo) as server:
            server.reject(403, headers={"x-why": "because"}, body=b"no entry")
            with pytest.raises(HandshakeRefused) as caught:
                async with self.connected(server):
                    pass
        assert caught.value.status == 403
        assert caught.value.headers["X-Why"] == "because"
        assert caught.value.body == b"no entry"

    async def test_connection_refused(self) -> None:
        """Connecting to an unused port fails immediately."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        with pytest.raises(ConnectFailed), trio.fail_after(30):
            async with connect(f"ws://127.0.0.1:{port}/", transport=self.make_transport()):
                pass

    async def test_local_close(self) -> None:
        """The server receives the code and the reason, and confirms the close."""
        async with MockServer() as server, self.connected(server) as conn:
            peer = await server.accept()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(conn.aclose, 4001, "enough")
                await peer.expect_close(4001, "enough")
            assert conn.close_code == 4001

    async def test_remote_close(self) -> None:
        """The exception contains code and reason; earlier messages can still be received."""
        async with MockServer() as server, self.connected(server) as conn:
            peer = await server.accept()
            await peer.send("last words")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.close, 4002, "bye")
                assert await conn.receive() == "last words"
                with pytest.raises(ConnectionClosedError) as caught:
                    await conn.receive()
            assert (caught.value.code, caught.value.reason) == (4002, "bye")

    async def test_connection_lost(self) -> None:
        """If the stream ends without a closing handshake, the close code is 1006."""
        async with MockServer() as server, self.connected(server) as conn:
            peer = await server.accept()
            await peer.abort()
            with pytest.raises(ConnectionClosedError) as caught:
                await conn.receive()
            assert caught.value.code == 1006

    async def test_ping_measures_the_round_trip(self) -> None:
        """Pings from both sides are answered."""
        async with MockServer() as server, self.connected(server) as conn:
            peer = await server.accept()
            assert await conn.ping() >= 0
            await peer.ping()

    async def test_counts_bytes(self) -> None:
        """The statistics count the bytes in both directions."""
        async with MockServer(echo) as server, self.connected(server) as conn:
            await conn.send("x" * 1000)
            await conn.receive()
            statistics = conn.statistics()
            assert statistics.bytes_sent >= 1000
            assert statistics.bytes_received >= 1000

    async def test_abort_does_not_wait(self) -> None:
        """Aborting does not wait for the peer."""
        async with MockServer() as server, self.connected(server) as conn:
            await server.accept()
            conn.abort()
            await conn.wait_closed()
            assert conn.close_code == 1006


async def _parts() -> AsyncIterator[str]:
    for number in range(1000):
        yield f"{number} \u20ac, "
