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


async def library_sends(socket: Any) -> None:
    """Send each message in fragments, and as a whole behind that."""
    for message in MESSAGES:
        await socket.send(items(message or [b""]))
        await socket.send(joined(message))


async def read_messages(conn: Any) -> list[list[Data]]:
    messages = []
    for _ in range(2 * len(MESSAGES)):
        async with conn.receive_fragments() as fragments:
            received = [fragment async for fragment in fragments]
            assert {type(fragment) for fragment in received} <= {
                str if fragments.is_text else bytes
            }
            messages.append(received)
    return messages


def check_received(messages: list[list[Data]]) -> None:
    sent = [joined(one) for message in MESSAGES for one in (message, [joined(message)])]
    assert [joined(one) or b"" for one in messages] == [one or b"" for one in sent]
    assert all(0 < len(fragment) <= 2**16 for one in messages for fragment in one)


@each_compression
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_a_client_receives(
    compression: Any, extensions: Any, secure: bool, certificate: Path, trust: ssl.SSLContext
) -> None:
    context = None
    if secure:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    async with (
        library_server(library_sends, extensions=extensions, ssl=context) as port,
        connect(
            f"{'wss' if secure else 'ws'}://127.0.0.1:{port}",
            compression=compression,
            ssl_context=trust if secure else None,
            fragments=True,
        ) as conn,
    ):
        check_received(await read_messages(conn))


@each_compression
async def test_a_server_receives(compression: Any, extensions: Any) -> None:
    messages: list[list[Data]] = []

    async def handler(conn: Any) -> None:
        messages.extend(await read_messages(conn))
        await conn.send("done")

    client = [ClientPerMessageDeflateFactory()] if compression else []
    async with (
        serve(handler, "127.0.0.1", 0, fragments=True) as server,
        websockets.trio.client.connect(
            f"ws://127.0.0.1:{server.port}", extensions=client, compression=None
        ) as socket,
    ):
        await library_sends(socket)
        assert await socket.recv() == "done"
    check_received(messages)


async def test_whole_messages_are_joined() -> None:
    async with (
        library_server(library_sends) as port,
        connect(f"ws://127.0.0.1:{port}", fragments=True) as conn,
    ):
        for message in MESSAGES:
            assert (await conn.receive() or b"") == (joined(message) or b"")
            assert await conn.receive() == joined(message)


async def test_a_frame_that_inflates_a_thousandfold() -> None:
    """16 KB that inflate to 16 MiB are delivered in pieces, and only as many as fit."""

    async def bomb(socket: Any) -> None:
        await socket.send(bytes(2**24))

    async with (
        library_server(bomb) as port,
        connect(f"ws://127.0.0.1:{port}", fragments=True, max_size=1000) as conn,
        conn.receive_fragments() as fragments,
    ):
        size = 0
        async for fragment in fragments:
            assert len(fragment) <= 1000
            size += len(fragment)
        assert size == 2**24


async def test_an_echo_in_fragments() -> None:
    """A server passes on what it is still receiving."""

    async def echo(conn: Any) -> None:
        while True:
            async with conn.receive_fragments() as fragments:
                await conn.send(fragments)

    async with (
        serve(echo, "127.0.0.1", 0, fragments=True) as server,
        connect(f"ws://127.0.0.1:{server.port}", fragments=True) as conn,
    ):
        for message in MESSAGES:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(conn.send, items(message))
                assert (await conn.receive() or b"") == (joined(message) or b"")
