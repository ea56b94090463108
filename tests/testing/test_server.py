"""MockServer: its methods and records, and how it fails a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.transports.servers import client_context, server_context
from trioglock import Close, Connection, ConnectionClosedError, HandshakeRefused, connect
from trioglock.testing import MockPeer, MockServer, echo


@asynccontextmanager
async def linked(server: MockServer) -> AsyncIterator[tuple[Connection[None], MockPeer]]:
    """Connect to a server in memory; yield both ends."""
    async with connect("ws://memory.test/room?x=1", stream=server.open_stream) as conn:
        yield conn, await server.accept()


async def test_messages_are_sent_checked_and_recorded(autojump_clock: MockClock) -> None:
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


async def test_methods_of_the_server_use_the_latest_connection(autojump_clock: MockClock) -> None:
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


async def test_an_unexpected_message(autojump_clock: MockClock) -> None:
    """The assertion has both messages."""
    async with MockServer(memory=True) as server, linked(server) as (conn, peer):
        await conn.send("this")
        with pytest.raises(AssertionError, match="expected 'that', but the client sent 'this'"):
            await peer.expect("that")


async def test_a_close_instead_of_a_message(autojump_clock: MockClock) -> None:
    async with MockServer(memory=True) as server, linked(server) as (conn, peer):
        await conn.aclose(4001, "enough")
        with pytest.raises(AssertionError, match="closed instead of sending"):
            await peer.expect("more")
        assert peer.closed == Close(4001, "enough")


async def test_expect_close(autojump_clock: MockClock) -> None:
    """Code and reason are compared; earlier messages are recorded."""
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


async def test_expect_close_without_a_close_frame(autojump_clock: MockClock) -> None:
    async with MockServer(memory=True) as server:
        async with linked(server) as (conn, peer):
            conn.abort()
        with pytest.raises(AssertionError, match="without a Close frame"):
            await peer.expect_close()
        assert peer.closed is None


async def test_pings_and_aborts(autojump_clock: MockClock) -> None:
    async with MockServer(memory=True) as server, linked(server) as (conn, peer):
        await peer.ping()
        await peer.abort()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.code == 1006


async def test_reject(autojump_clock: MockClock) -> None:
    """The given number of handshakes is rejected."""
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


async def test_headers_and_subprotocol_of_the_response(autojump_clock: MockClock) -> None:
    """The subprotocol is selected if the client offers it."""
    async with MockServer(echo, subprotocol="chat", memory=True) as server:
        server.accept_with({"X-Room": "7"})
        for offered, selected in ((["other", "chat"], "chat"), (["other"], None), (None, None)):
            async with connect(
                "ws://memory.test/", stream=server.open_stream, subprotocols=offered
            ) as conn:
                assert conn.subprotocol == selected
                assert conn.handshake is not None
                assert conn.handshake.response_headers["x-room"] == "7"


async def test_a_handler_that_returns_closes(autojump_clock: MockClock) -> None:
    """With code 1000."""

    async def greet(peer: MockPeer) -> None:
        await peer.send("hello")

    async with (
        MockServer(greet, memory=True) as server,
        connect("ws://memory.test/", stream=server.open_stream) as conn,
    ):
        assert [message async for message in conn] == ["hello"]
        assert conn.close_code == 1000


async def test_an_exception_of_a_handler_is_raised_by_the_block(autojump_clock: MockClock) -> None:

    async def strict(peer: MockPeer) -> None:
        await peer.expect("right")

    with pytest.raises(AssertionError, match="expected 'right', but the client sent 'wrong'"):
        async with (
            MockServer(strict, memory=True) as server,
            connect("ws://memory.test/", stream=server.open_stream) as conn,
        ):
            await conn.send("wrong")
            await trio.sleep(60)


async def test_the_exception_of_the_block_has_no_group(autojump_clock: MockClock) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with MockServer(memory=True):
            raise KeyError("mine")


async def test_tls() -> None:
    """The scheme of the URL is ``wss``."""
    with trio.fail_after(300):
        async with MockServer(echo, ssl_context=server_context()) as server:
            assert server.url.startswith("wss://127.0.0.1:")
            async with connect(server.url, ssl_context=client_context()) as conn:
                await conn.send("secret")
                assert await conn.receive() == "secret"
