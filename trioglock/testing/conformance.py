"""The transport conformance kit: what every plug must do, as tests to inherit.

Subclass :class:`TransportConformance` in a test module run by pytest-trio, say how to make the
transport, and pytest collects the rest::

    class TestMyTransport(TransportConformance):
        def make_transport(self) -> Transport:
            return MyTransport()

What the transport declares it cannot do (:class:`trioglock.transports.Capabilities`) is not asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from ..client import connect
from ..connection import Connection
from ..errors import ConnectFailed, ConnectionClosedError, HandshakeRefused
from ..frames import Data
from ..hooks import Socket
from ..transports import Transport
from .server import MockServer, echo

__all__ = ["TransportConformance"]

SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 2**20)


class TransportConformance:
    """Tests of one transport against a server of trio-websocket. Inherit and override."""

    def make_transport(self) -> Transport:
        """A fresh transport for one test."""
        raise NotImplementedError

    @asynccontextmanager
    async def connected(
        self, server: MockServer, socket: Socket[None] | None = None, path: str = ""
    ) -> AsyncIterator[Connection[None]]:
        """A connection through the transport; everything within 30 seconds.

        Args:
            server: to connect to.
            socket: the hooks.
            path: added to the server's URL.
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
        """Text and binary of every length encoding arrive as they were sent."""
        message: Data = "x" * size if kind == "text" else b"x" * size
        async with MockServer(echo) as server, self.connected(server) as conn:
            await conn.send(message)
            assert await conn.receive() == message

    async def test_text_is_unicode(self) -> None:
        """Characters of one to four bytes survive."""
        async with MockServer(echo) as server, self.connected(server) as conn:
            await conn.send("a \u00e9 \u20ac \U0001f40d")
            assert await conn.receive() == "a \u00e9 \u20ac \U0001f40d"

    async def test_keeps_order_both_ways(self) -> None:
        """A thousand messages come back in their order."""
        async with MockServer(echo) as server, self.connected(server) as conn:
            for number in range(1000):
                await conn.send(str(number))
            assert [await conn.receive() for _ in range(1000)] == [str(n) for n in range(1000)]

    async def test_tells_headers_and_path_and_subprotocol(self) -> None:
        """What the options ask for reaches the server, what it answers is in the handshake."""
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
        """A status other than 101 is raised with all that came with it."""
        async with MockServer(echo) as server:
            server.reject(403, headers={"x-why": "because"}, body=b"no entry")
            with pytest.raises(HandshakeRefused) as caught:
                async with self.connected(server):
                    pass
        assert caught.value.status == 403
        assert caught.value.headers["X-Why"] == "because"
        assert caught.value.body == b"no entry"

    async def test_nobody_there(self) -> None:
        """A port that nobody listens on is refused at once."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        with pytest.raises(ConnectFailed), trio.fail_after(30):
            async with connect(f"ws://127.0.0.1:{port}/", transport=self.make_transport()):
                pass

    async def test_we_close(self) -> None:
        """Our code and reason reach the server, and its confirmation us."""
        async with MockServer() as server, self.connected(server) as conn:
            peer = await server.accept()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(conn.aclose, 4001, "enough")
                await peer.expect_close(4001, "enough")
            assert conn.close_code == 4001

    async def test_the_peer_closes(self) -> None:
        """Its code and reason are told, and what it sent before stays readable."""
        async with MockServer() as server, self.connected(server) as conn:
            peer = await server.accept()
            await peer.send("last words")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.close, 4002, "bye")
                assert await conn.receive() == "last words"
                with pytest.raises(ConnectionClosedError) as caught:
                    await conn.receive()
            assert (caught.value.code, caught.value.reason) == (4002, "bye")

    async def test_the_peer_vanishes(self) -> None:
        """A stream that ends without a closing handshake is 1006."""
        async with MockServer() as server, self.connected(server) as conn:
            peer = await server.accept()
            await peer.abort()
            with pytest.raises(ConnectionClosedError) as caught:
                await conn.receive()
            assert caught.value.code == 1006

    async def test_ping_measures_the_round_trip(self) -> None:
        """A ping is answered; pings of the peer are too."""
        async with MockServer() as server, self.connected(server) as conn:
            peer = await server.accept()
            assert await conn.ping() >= 0
            await peer.ping()

    async def test_counts_bytes(self) -> None:
        """Both counters grow with what travels."""
        async with MockServer(echo) as server, self.connected(server) as conn:
            await conn.send("x" * 1000)
            await conn.receive()
            figures = conn.statistics()
            assert figures.bytes_sent >= 1000
            assert figures.bytes_received >= 1000

    async def test_abort_does_not_wait(self) -> None:
        """Dropping a connection needs nothing of the peer."""
        async with MockServer() as server, self.connected(server) as conn:
            await server.accept()
            conn.abort()
            await conn.wait_closed()
            assert conn.close_code == 1006
