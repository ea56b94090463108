"""The memory of an idle connection, on both sides."""

from __future__ import annotations

import base64
import gc
import hashlib
import socket
import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

from trioglock import Reply, Socket, connect, serve
from trioglock.pubsub import Hub, MemoryBroker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_tracing")]

CONNECTIONS = 100

# About a tenth above what Python 3.11 takes.
SERVER_BYTES = 13_000
HUB_BYTES = 15_500
CLIENT_BYTES = 15_500

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

REQUEST = (
    b"GET /?after= HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)


class Echo(Socket[None]):
    """Has a hook of its own."""

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return Reply(frame), None


hub = Hub(broker=MemoryBroker(history=1))


@pytest.mark.parametrize(
    ("target", "limit"), [(Echo, SERVER_BYTES), (hub.socket, HUB_BYTES)], ids=["hooks", "hub"]
)
async def test_an_idle_connection_of_a_server(target: Any, limit: int) -> None:
    """Compression is negotiated, the heartbeat is on. A hub has confirmed the subscription."""
    with trio.fail_after(300), RawClients() as clients:
        async with hub, serve(target, "127.0.0.1", 0) as server:
            assert server.port is not None
            for _ in range(10):
                clients.open(server.port)
            while len(server.connections) < 10:
                await trio.sleep(0.01)
            gc.collect()
            tracemalloc.start()
            try:
                for number in range(CONNECTIONS):
                    clients.open(server.port)
                    while len(server.connections) < 11 + number:
                        await trio.sleep(0)
                await trio.testing.wait_all_tasks_blocked()
                gc.collect()
                size = tracemalloc.get_traced_memory()[0] / CONNECTIONS
            finally:
                tracemalloc.stop()
            server.abort()

    assert size < limit


class RawClients:
    """Clients that only open a connection: a socket each, in a few hundred bytes."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> RawClients:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()

    def open(self, port: int) -> None:
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(REQUEST)
        self._sockets.append(client)


async def accept_all(listener: trio.SocketListener, streams: list[trio.SocketStream]) -> None:
    """Answer opening handshakes, and keep the streams."""
    while True:
        stream = await listener.accept()
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.receive_some()
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        digest = hashlib.sha1(key + GUID, usedforsecurity=False).digest()
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        streams.append(stream)


async def test_an_idle_connection_of_a_client() -> None:
    """All of them are opened by one task, which is not part of a connection."""
    streams: list[trio.SocketStream] = []
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
    with trio.fail_after(300):
        async with listener, trio.open_nursery() as nursery, AsyncExitStack() as stack:
            nursery.start_soon(accept_all, listener, streams)
            for _ in range(10):
                await stack.enter_async_context(connect(url, Echo(), close_timeout=0.1))
            gc.collect()
            tracemalloc.start()
            try:
                for _ in range(CONNECTIONS):
                    await stack.enter_async_context(connect(url, Echo(), close_timeout=0.1))
                gc.collect()
                size = tracemalloc.get_traced_memory()[0] / CONNECTIONS
            finally:
                tracemalloc.stop()
            for stream in streams:
                await stream.aclose()
            nursery.cancel_scope.cancel()
    assert size < CLIENT_BYTES
