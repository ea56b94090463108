"""The mock server: its script, its records, and how it fails a test."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme
from trio.testing import MockClock

from trioglock import Close, Connection, ConnectionClosedError, HandshakeRefused, connect
from trioglock.testing import MockPeer, MockServer, echo


@asynccontextmanager
async def linked(server: MockServer) -> AsyncIterator[tuple[Connection[None], MockPeer]]:
    """A connection to a server in memory, and the server's end of it."""
    async with connect("ws://memory.test/room?x=1", stream=server.open_stream) as conn:
        yield conn, await server.accept()


async def test_the_script_of_a_peer(autojump_clock: MockClock) -> None:
    """What is expected and sent is checked, carried and recorded."""
    async with MockServer(memory=True) as server, linked(server) as (conn, peer):
        await conn.send("hello")
        await conn.send(b"\x00")
        await peer.expect("hello", b"\x00")
        await peer.send("one", b"two")
        assert [await conn.receive(), await conn.receive()] == ["one", b"two"]
        assert (peer.received, peer.sent) == (["hello", b"\x00"], ["one", b"two"])
        assert peer.path == "/room?x=1"
        assert peer.request_headers["user-agent"].startswith("trioglock/")
        assert server.peers == [peer]


async def test_the_script_of_a_server_with_one_connection(autojump_clock: MockClock) -> None:
    """The server itself can be scripted; it means the connection that was accepted last."""
    async with (
        MockServer(memory=True) as server,
        connect("ws://memory.test/", stream=server.open_stream) as conn,
    ):
        await conn.send("a")
        await conn.send("b")
        await server.expect("a")
        assert await server.receive() == "b"
        await server.send("c")
        assert await conn.receive() == "c"
        await server.close(4000, "done")
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert (caught.value.code, caught.value.reason) == (4000, "done")


async def test_another_message_than_expected(autojump_clock: MockClock) -> None:
    """The assertion names both."""
    async with MockServer(memory=True) as server, linked(server) as (conn, peer):
        await conn.send("this")
        with pytest.raises(AssertionError, match="expected 'that', the client sent 'this'"):
            await peer.expect("that")


async def test_a_close_instead_of_a_message(autojump_clock: MockClock) -> None:
    """A client that has gone does not leave the test waiting."""
    async with MockServer(memory=True) as server, linked(server) as (conn, peer):
        await conn.aclose(4001, "enough")
        with pytest.raises(AssertionError, match="closed instead of sending"):
            await peer.expect("more")
        assert peer.closed == Close(4001, "enough")


async def test_the_close_that_is_expected(autojump_clock: MockClock) -> None:
    """Code and reason are compared; messages before it are recorded."""
    async with MockServer(memory=True) as server:
        async with linked(server) as (conn, peer):
            await conn.send("last")
            await conn.aclose(4001, "enough")
        await peer.expect_close(4001, "enough")
        assert peer.received == ["last"]
        with pytest.raises(AssertionError, match="expected close code 1000"):
            await peer.expect_close(1000)
        with pytest.raises(AssertionError, match="expected 'other'"):
            await peer.expect_close(4001, "other")


async def test_a_client_that_vanishes_has_not_closed(autojump_clock: MockClock) -> None:
    """An end without a Close frame is none that was expected."""
    async with MockServer(memory=True) as server:
        async with linked(server) as (conn, peer):
            conn.abort()
        with pytest.raises(AssertionError, match="without a Close frame"):
            await peer.expect_close()
        assert peer.closed is None


async def test_pings_and_aborts(autojump_clock: MockClock) -> None:
    """A ping waits for its pong, and an abort leaves no handshake."""
    async with MockServer(memory=True) as server, linked(server) as (conn, peer):
        await peer.ping()
        await peer.abort()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.code == 1006


async def test_refusals_are_counted(autojump_clock: MockClock) -> None:
    """The next handshakes are refused as often as was said, and then no more."""
    async with MockServer(echo, memory=True) as server:
        server.reject(503, headers={"Retry-After": "7"}, body=b"later", times=2)
        for _ in range(2):
            with pytest.raises(HandshakeRefused) as caught:
                async with connect("ws://memory.test/", stream=server.open_stream):
                    pass
            assert (caught.value.status, caught.value.body) == (503, b"later")
            assert caught.value.headers["Retry-After"] == "7"
        async with connect("ws://memory.test/", stream=server.open_stream) as conn:
            await conn.send("now")
            assert await conn.receive() == "now"


async def test_what_the_101_says(autojump_clock: MockClock) -> None:
    """Headers are added, and a subprotocol is chosen where a client proposes it."""
    async with MockServer(echo, subprotocol="chat", memory=True) as server:
        server.accept_with({"X-Room": "7"})
        for proposed, chosen in ((["other", "chat"], "chat"), (["other"], None), (None, None)):
            async with connect(
                "ws://memory.test/", stream=server.open_stream, subprotocols=proposed
            ) as conn:
                assert conn.subprotocol == chosen
                assert conn.handshake is not None
                assert conn.handshake.response_headers["x-room"] == "7"


async def test_a_handler_that_returns_closes(autojump_clock: MockClock) -> None:
    """With 1000, as a server does that has said all."""

    async def greet(peer: MockPeer) -> None:
        await peer.send("hello")

    async with (
        MockServer(greet, memory=True) as server,
        connect("ws://memory.test/", stream=server.open_stream) as conn,
    ):
        assert [message async for message in conn] == ["hello"]
        assert conn.close_code == 1000


async def test_a_handler_that_raises_fails_the_block(autojump_clock: MockClock) -> None:
    """An assertion of the script is not lost in the server."""

    async def strict(peer: MockPeer) -> None:
        await peer.expect("right")

    with pytest.RaisesGroup(AssertionError, allow_unwrapped=True, flatten_subgroups=True):
        async with (
            MockServer(strict, memory=True) as server,
            connect("ws://memory.test/", stream=server.open_stream) as conn,
        ):
            await conn.send("wrong")
            await trio.sleep(60)


async def test_the_blocks_own_exception_comes_out_bare(autojump_clock: MockClock) -> None:
    """No group of the server's nursery around it."""
    with pytest.raises(KeyError, match="mine"):
        async with MockServer(memory=True):
            raise KeyError("mine")


async def test_it_serves_tls() -> None:
    """With a context, its URL says wss."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    with trio.fail_after(10):
        async with MockServer(echo, ssl_context=server_side) as server:
            assert server.url.startswith("wss://127.0.0.1:")
            async with connect(server.url, ssl_context=client_side) as conn:
                await conn.send("secret")
                assert await conn.receive() == "secret"
