"""Streams of the user's own: Unix sockets, memory, functions that open them."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from tests.transports.servers import (
    MakeTransport,
    Request,
    answering,
    client_context,
    failure,
    memory_server,
    no_leak,
    on_both,
    play,
    response,
    server_context,
    upgrading,
)
from trioglock import ConnectFailed, ProxyFailed, connect
from trioglock.testing import MockServer, echo


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
async def test_a_unix_socket(tmp_path: Path) -> None:
    """A function that opens a Unix socket reaches a server there; the URL gives the Host."""
    path = str(tmp_path / "socket")
    requests: list[Request] = []
    with (
        no_leak(),
        trio.fail_after(300),
        trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        await listener.bind(path)
        listener.listen()

        async def serve() -> None:
            accepted, _ = await listener.accept()
            await play(upgrading(requests), trio.SocketStream(accepted))

        async def dial() -> trio.abc.Stream:
            return await trio.open_unix_socket(path)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            url = "ws://app.example/feed"
            async with connect(url, stream=dial) as conn:
                assert conn.handshake is not None
    assert requests[0].target == "/feed"
    assert requests[0].headers["Host"] == "app.example"


async def test_a_memory_stream(autojump_clock: MockClock) -> None:
    """Any open trio stream will do, and it is closed at the end."""
    async with memory_server(upgrading([])) as near, connect("ws://memory.test/", stream=near):
        pass
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"more")


@on_both
async def test_a_stream_that_takes_little_at_a_time(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Partial writes are the stream's affair: one without a buffer works too."""
    near, far = lockstep_stream_pair()
    requests: list[Request] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play, upgrading(requests), far)
        async with connect(
            "ws://memory.test/",
            transport=transport(),
            stream=near,
            additional_headers={"X-Long": "x" * 5000},
        ):
            pass
    assert requests[0].headers["X-Long"] == "x" * 5000


async def test_tls_runs_over_a_given_stream(autojump_clock: MockClock) -> None:
    """With a ``wss`` URL the given stream is encrypted, for the URL's name."""
    near, far = memory_stream_pair()
    context = server_context("memory.test")
    encrypted = trio.SSLStream(far, context, server_side=True, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play, upgrading([]), encrypted)
        async with connect("wss://memory.test/", stream=near, ssl_context=client_context()) as conn:
            assert conn.handshake is not None


async def test_a_function_opens_one_stream_per_connect(autojump_clock: MockClock) -> None:
    """The same function serves any number of connections."""
    async with MockServer(echo, memory=True) as server:
        for word in ("one", "two"):
            async with connect(server.url, stream=server.open_stream) as conn:
                await conn.send(word)
                assert await conn.receive() == word
        assert [peer.received for peer in server.peers] == [["one"], ["two"]]


async def test_a_given_stream_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``stream`` no connection is opened, even if the environment names a proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    async with memory_server(upgrading([])) as near, connect("ws://memory.test/", stream=near):
        pass


async def test_a_function_that_fails_is_connect_failed(tmp_path: Path) -> None:
    """A Unix socket without a listener is a ConnectFailed, like a port without one."""

    async def dial() -> trio.abc.Stream:
        return await trio.open_unix_socket(str(tmp_path / "nobody"))

    with pytest.raises(ConnectFailed) as caught:
        async with connect("ws://app.example/", stream=dial):
            pass
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize(
    "error", [KeyError("path"), trio.BusyResourceError(), ProxyFailed("no"), ConnectFailed("no")]
)
async def test_other_errors_of_a_function_come_out(error: Exception) -> None:
    """Errors of other kinds, and our own errors, are raised unchanged."""

    async def dial() -> trio.abc.Stream:
        raise error

    with pytest.raises(type(error)) as caught:
        async with connect("ws://app.example/", stream=dial):
            pass
    assert caught.value is error


@on_both
async def test_a_refused_stream_is_closed(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """A given stream is closed when the server refuses."""
    async with memory_server(answering(response("403 Forbidden", "Content-Length: 0"))) as near:
        await failure("ws://memory.test/", transport=transport(), stream=near)
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"more")
