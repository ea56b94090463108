"""Messages in fragments, against the streaming API of websockets."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import websockets.trio.client
import websockets.trio.server
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.typing import Data

from trioglock import NativeTransport, TrioWebsocketTransport, connect, serve

TEXT = ["first ", "ünï", "cødé " * 5_000, "", "last"]
BINARY = [b"", os.urandom(100_000), b"zeros" + bytes(300_000), os.urandom(10), b"x" * 70_000]
MESSAGES: Sequence[Sequence[Any]] = [TEXT, BINARY, [], ["short"], BINARY, TEXT, [b""]]

NO_TAKEOVER = [
    ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
]

each_compression = pytest.mark.parametrize(
    ("compression", "extensions"),
    [("deflate", None), ("deflate", NO_TAKEOVER), (None, None)],
    ids=["takeover", "no-takeover", "plain"],
)


async def items(given: Sequence[Any]) -> AsyncIterator[Any]:
    for one in given:
        yield one


def joined(given: Sequence[Any]) -> Data:
    return given[0][:0].join(given) if given else b""


@asynccontextmanager
async def library_server(
    handler: Callable[[websockets.trio.server.ServerConnection], Awaitable[None]], **options: Any
) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(
                websockets.trio.server.serve, handler, 0, host="127.0.0.1", max_size=None, **options
            )
        )
        yield server.listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_all(socket: Any) -> list[list[Data]]:
    return [
        [fragment async for fragment in socket.recv_streaming()] for _ in range(2 * len(MESSAGES))
    ]


async def record(into: list[list[Data]], socket: websockets.trio.server.ServerConnection) -> None:
    into += await read_all(socket)
    await socket.send("done")


async def send_all(conn: Any) -> None:
    """Send each message in fragments, and as a whole behind that."""
    for message in MESSAGES:
        await conn.send(items(message))
        await conn.send(joined(message))


def check(received: list[list[Data]], *, as_sent: bool) -> None:
    assert [joined(one) for one in received[::2]] == [joined(one) for one in MESSAGES]
    assert received[1::2] == [[joined(one)] for one in MESSAGES]
    if as_sent:
        expected = [[*one, joined(one)[:0]] for one in MESSAGES]
        assert received[::2] == expected


@each_compression
async def test_a_client_sends(compression: Any, extensions: Any) -> None:
    received: list[list[Data]] = []
    async with (
        library_server(partial(record, received), extensions=extensions) as port,
        connect(f"ws://127.0.0.1:{port}", compression=compression) as conn,
    ):
        await send_all(conn)
        assert await conn.receive() == "done"
    check(received, as_sent=compression is None)


async def test_a_client_of_trio_websocket_sends() -> None:
    received: list[list[Data]] = []
    async with (
        library_server(partial(record, received)) as port,
        connect(f"ws://127.0.0.1:{port}", transport=TrioWebsocketTransport()) as conn,
    ):
        await send_all(conn)
        assert await conn.receive() == "done"
    check(received, as_sent=True)


async def test_a_client_sends_over_tls(certificate: Path, trust: ssl.SSLContext) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    received: list[list[Data]] = []
    async with (
        library_server(partial(record, received), ssl=context) as port,
        connect(f"wss://127.0.0.1:{port}", ssl_context=trust) as conn,
    ):
        await send_all(conn)
        assert await conn.receive() == "done"
    check(received, as_sent=False)


@each_compression
@pytest.mark.parametrize("transport", [NativeTransport, TrioWebsocketTransport])
async def test_a_server_sends(compression: Any, extensions: Any, transport: Any) -> None:
    client = [ClientPerMessageDeflateFactory()] if compression else []
    if extensions is not None:
        client = [
            ClientPerMessageDeflateFactory(
                server_no_context_takeover=True, client_no_context_takeover=True
            )
        ]
    async with (
        serve(send_all, "127.0.0.1", 0, transport=transport()) as server,
        websockets.trio.client.connect(
            f"ws://127.0.0.1:{server.port}", extensions=client, compression=None, max_size=None
        ) as socket,
    ):
        received = await read_all(socket)
    check(received, as_sent=compression is None or transport is TrioWebsocketTransport)


async def test_compressed_items_arrive_when_they_are_sent() -> None:
    seen = trio.Event()

    async def handler(socket: websockets.trio.server.ServerConnection) -> None:
        async for fragment in socket.recv_streaming():
            if fragment == "now":
                seen.set()

    async def slow() -> AsyncIterator[str]:
        yield "now"
        with trio.fail_after(5):
            await seen.wait()
        yield "later"

    async with (
        library_server(handler) as port,
        connect(f"ws://127.0.0.1:{port}") as conn,
    ):
        await conn.send(slow())
