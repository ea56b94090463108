"""Channels and pages in one ASGI application, on Hypercorn's trio worker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from tests.asgi.test_asgi import get, page, running
from trioglock import ConnectionClosedError, HandshakeRefused, Rate
from trioglock.asgi import WebSocketApp
from trioglock.channels import Answer, Channel, Channels, ConnectRequest, Credentials, Presence
from trioglock.protocols import phoenix
from trioglock.pubsub import Hub


class Site:
    """An application with a page and channels."""

    def __init__(self) -> None:
        self.hub = hub = Hub()
        self.ended: list[str] = []
        ended = self.ended

        class Room(Channel[str]):
            async def join(self, topic: str, payload: Any, user: str) -> Any:
                await presence.track(self, user, {})
                return {}, user

            def handle_in(self, event: str, payload: Any, state: str) -> Any:
                return Answer("ok", payload), state

            def terminate(self, reason: Any, state: str) -> None:
                ended.append(state)

        self.channels = Channels(
            {"room:*": Room}, hub=hub, connect=self.authenticate, id=lambda user: f"user:{user}"
        )
        presence = self.presence = Presence(self.channels)
        self.app = Starlette(
            routes=[
                Route("/", page),
                Mount("/socket", WebSocketApp(self.channels.socket)),
            ],
            lifespan=self.lifespan,
        )

    def authenticate(self, request: ConnectRequest) -> str | None:
        assert request.path == "/socket/websocket"
        return request.token

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with self.hub:
            yield


def client_of(where: str, name: str) -> AbstractAsyncContextManager[phoenix.PhoenixSocket]:
    return phoenix.connect(f"ws://{where}/socket", auth_token=name, reconnect=False)


async def test_a_page_and_channels_in_one_application() -> None:
    """Joins, replies, presence, broadcasts, disconnects, and other paths."""
    site = Site()
    async with running(site.app) as where:
        assert b"the page" in await get(where)
        with pytest.raises(HandshakeRefused) as refused:
            async with phoenix.connect(f"ws://{where}/other", reconnect=False):
                pass
        assert refused.value.status == 403
        async with client_of(where, "al") as al, client_of(where, "bo") as bo:
            assert al.connection.subprotocol == "phoenix"
            first = await al.join("room:1")
            assert (await first.receive())[0] == "presence_state"
            second = await bo.join("room:1")
            event, state = await second.receive()
            assert (event, sorted(state)) == ("presence_state", ["al", "bo"])
            event, diff = await first.receive()
            assert (event, list(diff["joins"])) == ("presence_diff", ["bo"])
            assert (await first.push("echo", {"a": 1})).response == {"a": 1}
            assert (await first.push("echo", b"\x00\xff")).response == b"\x00\xff"
            await site.channels.broadcast("room:1", "news", {"n": 1})
            assert await first.receive() == await second.receive() == ("news", {"n": 1})
            await site.channels.disconnect("user:bo")
            assert [event async for event in second] == []
            assert bo.connection.close_code == 1001
            event, diff = await first.receive()
            assert (event, list(diff["leaves"])) == ("presence_diff", ["bo"])


async def test_a_shutdown_ends_the_channels() -> None:
    """``terminate`` runs, and clients receive 1011, after which they connect again."""
    site = Site()

    async def stay(where: str, task_status: trio.TaskStatus[None]) -> None:
        async with client_of(where, "al") as al:
            room = await al.join("room:1")
            await room.receive()
            task_status.started()
            with pytest.raises(ConnectionClosedError, match="1011"):
                await room.receive()

    async with (
        trio.open_nursery() as nursery,
        running(site.app, graceful_timeout=0.01) as where,
    ):
        await nursery.start(stay, where)
    assert site.ended == ["al"]


async def test_credentials_expire_and_limits_hold() -> None:
    class Room(Channel[None]):
        def handle_in(self, event: str, payload: Any, state: None) -> Any:
            return Answer("ok"), state

    def connect(request: ConnectRequest) -> Credentials:
        return Credentials("al", time.time() + float(request.params["seconds"]))

    hub = Hub()
    channels = Channels({"room:*": Room}, hub=hub, connect=connect, message_rate=Rate(5, per=100))
    async with hub, running(WebSocketApp(channels.socket)) as where:

        def dial(seconds: float) -> AbstractAsyncContextManager[phoenix.PhoenixSocket]:
            params = {"seconds": str(seconds)}
            return phoenix.connect(f"ws://{where}/socket", params=params, reconnect=False)

        with pytest.raises(HandshakeRefused, match="403"):
            async with dial(0):
                pass
        async with dial(0.2) as client:
            room = await client.join("room:1")
            with pytest.raises(ConnectionClosedError, match="1008 the credentials have expired"):
                await room.receive()
        async with dial(100) as client:
            room = await client.join("room:1")
            statuses = [(await room.push("x", {})).status for _ in range(9)]
            assert statuses == ["ok"] * 4 + ["error"] * 5
            with pytest.raises(phoenix.Disconnected, match="1008 too many messages"):
                await room.push("x", {})
