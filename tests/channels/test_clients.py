"""Clients written by others, over real sockets, and the Phoenix client of this package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import websockets

from tests.asgi.test_asgi import running
from trioglock import HandshakeRefused, TrioWebsocketTransport, serve
from trioglock.asgi import WebSocketApp
from trioglock.channels import (
    Answer,
    Broadcast,
    Channel,
    Channels,
    ConnectRequest,
    JoinRefused,
    Push,
    Stop,
)
from trioglock.protocols import phoenix
from trioglock.pubsub import Hub


class Room(Channel[None]):
    """Does what the scripts of the clients expect."""

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        if topic == "room:forbidden":
            raise JoinRefused({"reason": "unauthorized"})
        self.cast("hello")
        return {"welcome": topic}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        match event:
            case "echo":
                return Answer("ok", payload), state
            case "bare":
                return Answer("ok"), state
            case "fail":
                return Answer("error", payload), state
            case "back":
                return Push("back", payload), state
            case "shout":
                return (Broadcast("shout", payload), Answer("ok")), state
            case "stop":
                return Stop(), state
        raise LookupError(event)

    def handle_cast(self, message: Any, state: None) -> Any:
        return Push(message, {"topic": self.topic}), state


class Lobby(Channel[str]):
    """Pushes a fixed presence."""

    def join(self, topic: str, payload: Any, user: Any) -> Any:
        self.cast(None)
        return {}, payload["key"]

    def handle_cast(self, message: Any, state: str) -> Any:
        return Push("presence_state", {state: {"metas": [{"phx_ref": "1"}]}}), state


ROUTES: dict[str, type[Channel[Any]]] = {"room:*": Room, "presence:*": Lobby}


@asynccontextmanager
async def serving(kind: str, **options: Any) -> AsyncIterator[tuple[Channels, str]]:
    """Channels on a real socket of serve() or of an ASGI server; yield the host and port."""
    hub = Hub()
    channels = Channels(ROUTES, hub=hub, **options)
    if kind == "asgi":
        async with hub, running(WebSocketApp(channels.socket)) as where:
            yield channels, where
    else:
        transport = TrioWebsocketTransport() if kind == "trio-websocket" else None
        async with hub, serve(channels.socket, "127.0.0.1", 0, transport=transport) as server:
            yield channels, f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("kind", ["serve", "trio-websocket", "asgi"])
async def test_a_client_of_the_library_websockets(kind: str) -> None:
    """Frames, a refusal with 403, and the subprotocol of a token."""

    def authenticate(request: ConnectRequest) -> str | None:
        assert request.path == "/socket/websocket"
        assert request.headers["Host"]
        assert request.peer.startswith("127.0.0.1:")
        assert not request.secure
        return request.params.get("user")

    async def talk(where: str) -> list[Any]:
        found: list[Any] = []
        url = f"ws://{where}/socket/websocket?vsn=2.0.0"
        try:
            async with websockets.connect(url):
                pass
        except websockets.InvalidStatus as error:
            found.append(error.response.status_code)
        names: Any = ["phoenix", "base64url.bearer.phx.c2VjcmV0"]
        async with websockets.connect(f"{url}&user=al", subprotocols=names) as client:
            found.append(client.subprotocol)
            await client.send('["1","1","room:1","phx_join",{}]')
            found += [await client.recv(), await client.recv()]
            await client.send(bytes([0, 1, 1, 6, 4]) + b"12room:1echo\x00\xff")
            found.append(await client.recv())
            await client.send("not JSON")
            try:
                await client.recv()
            except websockets.ConnectionClosed as error:
                found.append(error.rcvd and error.rcvd.code)
        return found

    with trio.fail_after(300):
        async with serving(kind, connect=authenticate) as (_, where):
            found = await trio.to_thread.run_sync(lambda: asyncio.run(talk(where)))
    assert found == [
        403,
        "phoenix",
        '["1","1","room:1","phx_reply",{"response":{"welcome":"room:1"},"status":"ok"}]',
        '["1",null,"room:1","hello",{"topic":"room:1"}]',
        bytes([1, 1, 1, 6, 2]) + b"12room:1ok\x00\xff",
        1011,
    ]


@pytest.mark.parametrize("kind", ["serve", "trio-websocket", "asgi"])
async def test_broadcasts_and_disconnects_on_real_sockets(kind: str) -> None:
    with trio.fail_after(300):
        async with (
            serving(kind, id=lambda user: "all") as (channels, where),
            phoenix.connect(f"ws://{where}/socket") as first,
            phoenix.connect(f"ws://{where}/socket") as second,
        ):
            rooms = [await one.join("room:1") for one in (first, second)]
            for room in rooms:
                assert await room.receive() == ("hello", {"topic": "room:1"})
            await channels.broadcast("room:1", "news", {"n": 1})
            await rooms[0].push("shout", {"n": 2})
            for room in rooms:
                assert await room.receive() == ("news", {"n": 1})
                assert await room.receive() == ("shout", {"n": 2})
            await channels.disconnect("all")
            for room in rooms:  # both clients connect and join again
                assert await room.receive() == ("hello", {"topic": "room:1"})


async def test_an_asgi_server_refuses_with_403() -> None:
    """ASGI has no other refusal of a WebSocket."""

    def authenticate(request: ConnectRequest) -> str | None:
        if request.params["user"] == "boom":
            raise RuntimeError("boom")
        return None

    async with serving("asgi", connect=authenticate) as (_, where):
        for path in ("websocket?vsn=2.0.0&user=al", "websocket?vsn=2.0.0&user=boom", "x?vsn=2.0.0"):
            with pytest.raises(HandshakeRefused) as refused:
                async with phoenix.connect(f"ws://{where}/socket/{path}", reconnect=False):
                    pass
            assert refused.value.status == 403
