"""What each client does with each server; ``python play.py CERTIFICATE URL...``.

Each library is a function that opens a connection, an object with the same methods for all.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import aiohttp
import trio
import trio_websocket
import websockets.asyncio.client
import websockets.exceptions
import websockets.trio.client
from websockets.typing import Subprotocol

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 2**18]
MAX_SIZE = 2**21


class Peer(Protocol):
    """An open connection, whatever the library."""

    subprotocol: str | None

    async def send(self, message: str | bytes) -> None: ...
    async def receive(self) -> str | bytes: ...
    async def ping(self) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...
    async def wait_closed(self) -> tuple[int, str]: ...


Open = Callable[..., AbstractAsyncContextManager[Peer]]


class WebsocketsPeer:
    """Either side of websockets: their methods have the same names."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.subprotocol = socket.subprotocol

    async def send(self, message: str | bytes) -> None:
        await self.socket.send(message)

    async def receive(self) -> Any:
        return await self.socket.recv()

    async def ping(self) -> None:
        pong = await self.socket.ping(b"there?")
        await (pong if self.is_asyncio else pong.wait())

    @property
    def is_asyncio(self) -> bool:
        return isinstance(self.socket, websockets.asyncio.client.ClientConnection)

    async def close(self, code: int, reason: str) -> None:
        await (self.socket.close if self.is_asyncio else self.socket.aclose)(code, reason)

    async def wait_closed(self) -> tuple[int, str]:
        try:
            await self.socket.recv()
        except websockets.exceptions.ConnectionClosed as error:
            close = error.rcvd
        assert close is not None
        return close.code, close.reason


def opener(connect: Callable[..., Any]) -> Open:
    """Both sides of websockets have the same arguments."""

    @asynccontextmanager
    async def open_(url: str, trust: ssl.SSLContext | None, *names: str) -> AsyncIterator[Peer]:
        offered = [Subprotocol(name) for name in names] or None
        async with connect(url, ssl=trust, subprotocols=offered, max_size=MAX_SIZE) as socket:
            yield WebsocketsPeer(socket)

    return open_


class AiohttpPeer:
    """aiohttp sends every message in one frame, and answers pongs by itself."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.subprotocol = socket.protocol

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self.socket.send_str(message)
        else:
            await self.socket.send_bytes(message)

    async def receive(self) -> Any:
        message = await self.socket.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        return message.data

    async def ping(self) -> None:
        await self.socket.ping(b"there?")

    async def close(self, code: int, reason: str) -> None:
        await self.socket.close(code=code, message=reason.encode())

    async def wait_closed(self) -> tuple[int, str]:
        message = await self.socket.receive()
        assert message.type == aiohttp.WSMsgType.CLOSE, message
        return message.data, message.extra or ""


@asynccontextmanager
async def open_aiohttp(url: str, trust: ssl.SSLContext | None, *names: str) -> AsyncIterator[Peer]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            url, ssl=trust or True, protocols=names, max_msg_size=MAX_SIZE, compress=15
        ) as socket,
    ):
        yield AiohttpPeer(socket)


class TrioWebsocketPeer:
    """trio-websocket: no fragments, no compression."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self.socket = socket
        self.subprotocol = socket.subprotocol

    async def send(self, message: str | bytes) -> None:
        await self.socket.send_message(message)

    async def receive(self) -> Any:
        return await self.socket.get_message()

    async def ping(self) -> None:
        await self.socket.ping(b"there?")

    async def close(self, code: int, reason: str) -> None:
        await self.socket.aclose(code, reason)

    async def wait_closed(self) -> tuple[int, str]:
        try:
            await self.socket.get_message()
        except trio_websocket.ConnectionClosed as error:
            close = error.reason
        assert close is not None
        return close.code, close.reason or ""


@asynccontextmanager
async def open_trio_websocket(
    url: str, trust: ssl.SSLContext | None, *names: str
) -> AsyncIterator[Peer]:
    async with trio_websocket.open_websocket_url(
        url, ssl_context=trust, subprotocols=names, max_message_size=MAX_SIZE
    ) as socket:
        yield TrioWebsocketPeer(socket)


async def play(open_: Open, url: str, trust: ssl.SSLContext | None) -> None:
    """All steps."""
    async with open_(f"{url}/about?x=1", trust, "v2", "v1") as peer:
        assert peer.subprotocol == "v1"
        about = json.loads(await peer.receive())
        assert about == {"subprotocol": "v1", "url": f"{url}/about?x=1"}
    async with open_(f"{url}/echo", trust) as peer:
        for size in SIZES:
            for message in ("x" * size, bytes(n % 251 for n in range(size))):
                await peer.send(message)
                assert await peer.receive() == message
        for number in range(30):
            text = f"\0 \u00e9 \u20ac \U0001f40d {number} " + "the same again " * 60
            await peer.send(text)
            assert await peer.receive() == text
        await peer.ping()
        if isinstance(peer, WebsocketsPeer):  # the others send every message in one frame
            await peer.socket.send(["in ", "", "three pieces"])
            assert await peer.receive() == "in three pieces"
        await peer.ping()
    async with open_(f"{url}/close", trust) as peer:
        await peer.send("please")
        assert await peer.wait_closed() == (4001, "as you wish")
    async with open_(f"{url}/note", trust) as peer:
        await peer.close(4002, "bye")
    async with open_(f"{url}/noted", trust) as peer:
        assert await peer.receive() == "4002 bye"
    # Neither side waits for the other at the end, which would take a second each time.
    times = []
    for _ in range(10):
        began = time.monotonic()
        async with open_(f"{url}/echo", trust) as peer:
            await peer.send("hello")
            assert await peer.receive() == "hello"
        times.append(time.monotonic() - began)
    assert statistics.median(times) < 0.8, times


async def play_all(open_: Open, certificate: str, *urls: str) -> None:
    for url in urls:
        secure = url.startswith("wss:")
        await play(open_, url, ssl.create_default_context(cafile=certificate) if secure else None)


LIBRARIES: dict[str, tuple[Open, bool]] = {
    "websockets": (opener(websockets.asyncio.client.connect), False),
    "websockets-trio": (opener(websockets.trio.client.connect), True),
    "aiohttp": (open_aiohttp, False),
    "trio-websocket": (open_trio_websocket, True),
}


def main(certificate: str, *urls: str) -> None:
    for library, (open_, on_trio) in LIBRARIES.items():
        try:
            if on_trio:
                trio.run(play_all, open_, certificate, *urls)
            else:
                asyncio.run(play_all(open_, certificate, *urls))
        except BaseException as error:
            error.add_note(f"This happened to {library}.")
            raise
    print("played")


if __name__ == "__main__":
    main(*sys.argv[1:])
