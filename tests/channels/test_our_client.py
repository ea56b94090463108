"""The Phoenix client of this package, both of its interfaces, against the server of this package.

In memory, and on real sockets of both transports. The tests of the client itself run against the
same server with :class:`trioglock.testing.MockPhoenixServer`.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.channels.test_clients import Room as ScriptedRoom
from tests.protocols.clock import MOCK_CLOCK
from tests.protocols.phoenix.helpers import Recorder, until
from trioglock import (
    ConnectionClosedError,
    HandshakeRefused,
    MemoryListener,
    RemoteClose,
    TrioWebsocketTransport,
    serve,
)
from trioglock.channels import Answer, Channel, Channels, ConnectRequest, JoinRefused, Presence
from trioglock.disconnect import HandshakeFailed
from trioglock.protocols import phoenix
from trioglock.protocols.phoenix import (
    ChannelClosed,
    ChannelCrashed,
    ClientHandle,
    Connect,
    Disconnected,
    PushReply,
    PushTimeout,
)
from trioglock.pubsub import Hub

KINDS = ["memory", "serve", "trio-websocket"]

WELCOME = {"welcome": "room:1"}
HELLO = ("hello", {"topic": "room:1"})


class Room(ScriptedRoom):
    """Refuses, crashes and is silent, too."""

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        if topic == "room:crash":
            raise RuntimeError("join crashed")
        return await super().join(topic, payload, user)

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return (None, state) if event == "silent" else super().handle_in(event, payload, state)


class Slow(Channel[None]):
    """Joins and answers after as many seconds as the payload says."""

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        await trio.sleep(payload["seconds"])
        return payload, None

    async def handle_in(self, event: str, payload: Any, state: None) -> Any:
        await trio.sleep(payload)
        return Answer("ok", payload), state


class Site:
    """An address at which servers run, one after another."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.port = 0
        self.listener = MemoryListener()

    @asynccontextmanager
    async def serving(self, max_size: int = 2**20, **options: Any) -> AsyncIterator[Channels]:
        hub = Hub()
        channels = Channels({"room:*": Room, "slow:*": Slow}, hub=hub, **options)
        where: dict[str, Any] = {"host": "127.0.0.1", "port": self.port}
        if self.kind == "memory":
            self.listener = MemoryListener()
            where = {"listeners": [self.listener]}
        if self.kind == "trio-websocket":
            where["transport"] = TrioWebsocketTransport()
        async with hub, serve(channels.socket, max_size=max_size, **where) as server:
            self.port = server.port or 0
            yield channels

    @property
    def address(self) -> tuple[str, dict[str, Any]]:
        """The URL, and the options of a client."""
        if self.kind == "memory":
            return "ws://memory.test/socket", {"stream": lambda: self.listener.open_stream()}
        return f"ws://127.0.0.1:{self.port}/socket", {}

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[phoenix.PhoenixSocket]:
        """A client with channel objects."""
        url, more = self.address
        async with phoenix.connect(url, **more, **options) as client:
            yield client

    @asynccontextmanager
    async def callbacks(
        self, client: phoenix.ChannelClient[Any] | None = None, **options: Any
    ) -> AsyncIterator[ClientHandle[Any]]:
        """A client with callbacks."""
        url, more = self.address
        run = partial(phoenix.run, url, client or Persistent(), **more, **options)
        async with trio.open_nursery() as nursery:
            handle: ClientHandle[Any] = await nursery.start(run)
            yield handle
            handle.stop()


class Persistent(Recorder):
    """Connects and joins again."""

    def handle_connected(self, transport: Any, state: Any) -> Any:
        transport.join("room:1")
        return super().handle_connected(transport, state)

    async def handle_disconnected(self, reason: Any, state: Any) -> Any:
        return Connect(delay=0.01), [*state, ("disconnected", reason)]


def reasons(handle: ClientHandle[Any]) -> list[Any]:
    """Why the connection was lost, without the number of the attempt."""
    found = [entry[1] for entry in handle.state if entry[0] == "disconnected"]
    return [replace(reason, attempt=1) for reason in found if isinstance(reason, RemoteClose)]


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    with trio.fail_after(300):
        yield Site(request.param)


# Conversations.


async def test_a_conversation(site: Site) -> None:
    async with site.serving() as channels, site.client() as client:
        for topic, reason in (
            ("room:forbidden", "unauthorized"),
            ("room:crash", "join crashed"),
            ("nope:1", "unmatched topic"),
        ):
            with pytest.raises(phoenix.JoinRefused) as refused:
                await client.join(topic)
            assert refused.value.response == {"reason": reason}
        room = await client.join("room:1")
        assert room.response == WELCOME
        assert await room.receive() == HELLO
        payloads: list[Any] = [{"a": [1, "ü"]}, "text", b"\x00\xff", b""]
        for payload in payloads:
            assert await room.push("echo", payload) == PushReply("ok", payload)
        assert await room.push("fail", {"b": 1}) == PushReply("error", {"b": 1})
        assert await room.push("bare") == PushReply("ok", {})
        with pytest.raises(PushTimeout):
            await room.push("silent", timeout=0.02)
        for payload in payloads:
            await room.send("back", payload)
            assert await room.receive() == ("back", payload)
            assert await room.push("shout", payload) == PushReply("ok", {})
            assert await room.receive() == ("shout", payload)
        await channels.broadcast("room:1", "news", b"\x03")
        assert await room.receive() == ("news", b"\x03")
        with pytest.raises(ChannelClosed):
            await room.push("stop")
        room = await client.join("room:1")
        await room.leave()
        assert len(channels._index) == 0
        again = await client.join("room:1")
        assert (await again.push("echo", 1)).response == 1
        assert client.statistics().ignored == 0


async def test_a_conversation_with_callbacks(site: Site) -> None:
    async with site.serving() as channels, site.callbacks() as handle:
        await until(handle, "message")
        for topic in ("room:forbidden", "room:crash", "nope:1"):
            await handle.call(lambda t, topic=topic: t.join(topic))
        await until(handle, "join error", 3)
        pushes = [("echo", {"a": 1}), ("echo", b"\x00\xff"), ("fail", {"b": 1}), ("shout", b"\x02")]
        for event, payload in pushes:
            await handle.call(lambda t, e=event, p=payload: t.push("room:1", e, p))
        await until(handle, "reply", 4)
        await channels.broadcast("room:1", "news", {"n": 1})
        await until(handle, "message", 3)
        await handle.call(lambda t: t.push("room:1", "stop"))
        await until(handle, "closed")
        await handle.call(lambda t: t.join("room:1"))
        await until(handle, "joined", 2)
        await handle.call(lambda t: t.push("room:1", "no such event"))
        await until(handle, "closed", 2)
        await handle.call(lambda t: t.join("room:1"))
        await until(handle, "joined", 3)
        await handle.call(lambda t: t.leave("room:1"))
        await until(handle, "closed", 3)
        await until(handle, "message", 5)
        log = [entry for entry in handle.state if entry[0] not in ("joined", "connected")]
    replies = [entry[-2:] for entry in log if entry[0] == "reply"]
    assert replies == [
        *[("ok", {"a": 1}), ("ok", b"\x00\xff"), ("error", {"b": 1}), ("ok", {})],
        ("ok", {}),  # of the leave
    ]
    assert [entry[1:] for entry in log if entry[0] == "join error"] == [
        ("room:forbidden", {"reason": "unauthorized"}),
        ("room:crash", {"reason": "join crashed"}),
        ("nope:1", {"reason": "unmatched topic"}),
    ]
    assert [entry[2:] for entry in log if entry[0] == "message"] == [
        *[HELLO, ("shout", b"\x02"), ("news", {"n": 1}), HELLO, HELLO],
    ]
    closed = [entry[2] for entry in log if entry[0] == "closed"]
    assert closed == [{}, {"reason": "channel_crash"}, {}]
    assert handle.ignored == 0


# Lost connections, and channels that crash.


async def test_a_channel_that_crashes_is_joined_again(site: Site) -> None:
    """Its pushes fail, and other topics are not affected."""
    async with site.serving(), site.client(rejoin_delays=(0.01,)) as client:
        room, other = await client.join("room:1"), await client.join("room:2")
        assert await room.receive() == HELLO
        with pytest.raises(ChannelCrashed):
            await room.push("no such event")
        assert await room.receive() == HELLO
        assert (await room.push("echo", 1)).ok
        assert (room.join_count, other.join_count) == (2, 1)
        assert client.connection.statistics().reconnects == 0


async def expect_disconnected(room: phoenix.Channel) -> None:
    with pytest.raises(Disconnected, match="1001"):
        await room.push("silent")


async def test_clients_join_again_when_the_server_is_restarted(site: Site) -> None:
    """They are closed with 1001, cannot connect for a moment, and find a new server."""

    async def run(stop: trio.Event, *, task_status: trio.TaskStatus[Channels]) -> None:
        async with site.serving() as channels:
            task_status.started(channels)
            await stop.wait()

    payloads = itertools.count()
    stop, stop_again = trio.Event(), trio.Event()
    async with trio.open_nursery() as servers:
        await servers.start(run, stop)
        async with site.client() as client, site.callbacks() as handle:
            room = await client.join("room:1", lambda: {"n": next(payloads)})
            assert await room.receive() == HELLO
            await until(handle, "message")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_disconnected, room)
                await trio.sleep(0.02)
                stop.set()
            with pytest.raises(PushTimeout):
                await room.push("echo", timeout=0.03)
            assert isinstance(room.last_error, Disconnected)
            channels = await servers.start(run, stop_again)
            assert await room.receive() == HELLO
            await until(handle, "message", 2)
            assert (room.join_count, next(payloads)) == (2, 2)
            await channels.broadcast("room:1", "news", 1)
            assert await room.receive() == ("news", 1)
            await until(handle, "message", 3)
            assert reasons(handle)[0] == RemoteClose(code=1001, attempt=1)
        stop_again.set()


async def test_a_user_who_is_disconnected_is_refused_when_connecting_again(site: Site) -> None:
    """The connections of other users stay."""
    users = {"al", "bo"}

    def authenticate(request: ConnectRequest) -> str | None:
        name = request.params["name"]
        return name if name in users else None

    async with (
        site.serving(connect=authenticate, id=lambda name: name) as channels,
        site.client(params={"name": "bo"}) as bo,
    ):
        other = await bo.join("room:1")
        refused: list[type[Any]] = []

        class Banned(Persistent):
            async def handle_disconnected(self, reason: Any, state: Any) -> Any:
                refused.append(type(reason))
                return (None if len(refused) == 2 else Connect()), [*state, ("disconnected",)]

        async with (
            site.callbacks(Banned(), params={"name": "al"}) as handle,
            site.client(params={"name": "al"}) as al,
        ):
            room = await al.join("room:1")
            assert await room.receive() == HELLO
            await until(handle, "message")
            users.remove("al")
            await channels.disconnect("al")
            await until(handle, "disconnected", 2)
            with pytest.raises(ConnectionClosedError, match="403") as caught:
                await room.receive()
            assert isinstance(caught.value.__cause__, HandshakeRefused)
        assert refused == [RemoteClose, HandshakeFailed]
        assert (await other.push("echo", 1)).ok
        assert bo.connection.statistics().reconnects == 0


@pytest.mark.parametrize("code", [1009, 1011])
async def test_messages_that_the_server_does_not_accept(site: Site, code: int) -> None:
    """It closes the connection, and the client joins again. Other clients are not affected."""
    async with (
        site.serving(max_size=1000) as channels,
        site.client() as client,
        site.callbacks() as handle,
    ):
        room = await client.join("room:1")
        assert await room.receive() == HELLO
        await until(handle, "message")
        if code == 1009:
            with pytest.raises(Disconnected, match="1009") as caught:
                await room.push("echo", "x" * 1000)
            assert isinstance(caught.value.reason, RemoteClose)
        else:
            await client.connection.send_frame("nonsense")
        assert await room.receive() == HELLO
        assert room.join_count == 2
        await channels.broadcast("room:1", "news", 1)
        await until(handle, "message", 2)
        assert [entry[0] for entry in handle.state].count("disconnected") == 0
        if code == 1009:
            await handle.call(lambda t: t.push("room:1", "echo", "x" * 1000))
            await until(handle, "joined", 2)
            assert reasons(handle) == [
                RemoteClose(code=1009, reason=reasons(handle)[0].reason, attempt=1)
            ]
        assert room.joined


async def test_a_message_that_the_client_does_not_accept(site: Site) -> None:
    """The client closes with 1009 and joins again."""
    async with site.serving() as channels, site.client(max_size=1000) as client:
        room = await client.join("room:1")
        assert await room.receive() == HELLO
        await channels.broadcast("room:1", "news", "x" * 1000)
        assert await room.receive() == HELLO
        assert room.join_count == 2


# Time.


@MOCK_CLOCK
async def test_replies_in_time_and_late() -> None:
    """A late reply is ignored, and the next push gets its own."""
    site = Site("memory")
    async with site.serving(), site.client() as client:
        slow = await client.join("slow:1", {"seconds": 9}, timeout=10)
        assert slow.response == {"seconds": 9}
        assert (await slow.push("wait", 9.9)).response == 9.9
        with pytest.raises(PushTimeout):
            await slow.push("wait", 10.1)
        assert (await slow.push("wait", 0)).response == 0
        assert client.statistics().ignored == 1


@MOCK_CLOCK
async def test_late_replies_with_callbacks() -> None:
    site = Site("memory")
    async with site.serving(), site.callbacks(timeout=5) as handle:
        await until(handle, "joined")
        await handle.call(lambda t: t.join("slow:1", {"seconds": 4}))
        await handle.call(lambda t: t.join("slow:2", {"seconds": 6}))
        await until(handle, "joined", 2)
        await until(handle, "join error")
        assert handle.state[-1] == ("join error", "slow:2", {"reason": "timeout"})
        await handle.call(lambda t: t.push("slow:1", "wait", 6))
        await until(handle, "timeout")
        await handle.call(lambda t: t.push("slow:1", "wait", 0))
        await until(handle, "reply")
        assert handle.state[-1][1:2] + handle.state[-1][3:] == ("slow:1", "ok", 0)


@MOCK_CLOCK
async def test_a_join_that_times_out_or_is_cancelled_leaves_nothing_on_the_server() -> None:
    """The topic can be joined again at once, and other topics do not wait."""
    site = Site("memory")
    async with site.serving() as channels, site.client() as client:
        with pytest.raises(phoenix.JoinTimeout):
            await client.join("slow:1", {"seconds": 30}, timeout=5)
        with trio.move_on_after(5):
            await client.join("slow:2", {"seconds": 30})
        began = trio.current_time()
        assert (await client.join("room:1")).response == WELCOME
        assert (await client.join("slow:1", {"seconds": 1})).response == {"seconds": 1}
        assert trio.current_time() - began == pytest.approx(1)
        await trio.sleep(60)
        assert len(channels._index) == 2
        assert client.statistics().channels == 2


@MOCK_CLOCK
async def test_pushes_wait_for_the_join_and_keep_their_order() -> None:
    site = Site("memory")
    async with site.serving(), site.client() as client:
        slow = await client.join_soon("slow:1", {"seconds": 3})
        replies: list[int] = []

        async def push(number: int) -> None:
            replies.append((await slow.push("wait", number)).response)

        async with trio.open_nursery() as nursery:
            for number in (2, 1, 3):
                nursery.start_soon(push, number)
                await trio.testing.wait_all_tasks_blocked()
        assert replies == [2, 1, 3]
        assert trio.current_time() == pytest.approx(9, abs=0.1)


@MOCK_CLOCK
async def test_the_heartbeats_of_both_interfaces_are_answered() -> None:
    """Also while a join is slow."""
    site = Site("memory")
    async with site.serving(), site.client() as client, site.callbacks() as handle:
        await client.join("room:1")
        slow = await client.join("slow:1", {"seconds": 100}, timeout=200)
        assert slow.joined
        await trio.sleep(200)
        assert client.connection.statistics().reconnects == 0
        assert [entry[0] for entry in handle.state].count("connected") == 1


@MOCK_CLOCK
async def test_too_many_topics_and_too_many_pushes_are_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trioglock.channels.actor.MAX_PENDING", 10)
    site = Site("memory")
    async with site.serving(max_topics=2) as channels, site.client() as client:
        slow = await client.join("slow:1", {"seconds": 0})
        await client.join("room:2")
        with pytest.raises(phoenix.JoinRefused, match="too many channels joined"):
            await client.join("room:3")
        results: list[str] = []

        async def push() -> None:
            results.append((await slow.push("wait", 0.001)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(push)
        assert (results.count("ok"), results.count("error")) == (11, 19)
        assert len(channels._index) == 2


# Presence.


class Lobby(Channel[str]):
    """Tracks its clients."""

    presence: Presence

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        if "name" not in payload:
            raise JoinRefused({"reason": "no name"})
        await self.presence.track(self, payload["name"], {"device": payload["device"]})
        return {}, payload["name"]

    async def handle_in(self, event: str, payload: Any, state: str) -> Any:
        await self.presence.update(self, state, payload)
        return Answer("ok"), state


@MOCK_CLOCK
async def test_presence_of_both_interfaces() -> None:
    """Joins, updates, two devices, a lost connection, and leaves."""
    hub, listener = Hub(), MemoryListener()
    channels = Channels({"lobby": Lobby}, hub=hub)
    Lobby.presence = Presence(channels)
    seen: list[str] = []
    presence = phoenix.Presence(
        on_join=lambda key, known, come: seen.append(f"+{key}" if known is None else f"~{key}"),
        on_leave=lambda key, left, gone: seen.append(
            f"<{key}" if left and left["metas"] else f"-{key}"
        ),
    )

    def who() -> list[Any]:
        return presence.list(lambda key, found: (key, [m["device"] for m in found["metas"]]))

    connect: Callable[..., Any] = partial(
        phoenix.connect, "ws://memory.test/socket", stream=listener.open_stream
    )
    async with hub, serve(channels.socket, listeners=[listener]) as server:
        async with connect() as al, connect() as bo:
            first = await al.join("lobby", {"name": "al", "device": "tv"}, presence=presence)
            await trio.sleep(1)
            second = await bo.join("lobby", {"name": "bo", "device": "phone"})
            async with connect() as tablet:
                await tablet.join("lobby", {"name": "bo", "device": "tablet"})
                await trio.sleep(1)
                assert who() == [("al", ["tv"]), ("bo", ["phone", "tablet"])]
            await trio.sleep(1)
            assert (await second.push("update", {"device": "watch"})).ok
            await trio.sleep(1)
            assert who() == [("al", ["tv"]), ("bo", ["watch"])]
            # Both devices came in one diff; the update is a join and a leave.
            assert seen == ["+al", "+bo", "<bo", "~bo", "<bo"]
            for connection in server.connections:
                connection.abort()
            await trio.sleep(2)
            assert first.join_count == 2
            assert who() == [("al", ["tv"]), ("bo", ["phone"])]  # as in the payload of the join
            await second.leave()
            await trio.sleep(1)
            assert who() == [("al", ["tv"])]
            assert Lobby.presence.list("lobby").keys() == {"al"}
        await trio.sleep(1)
        assert Lobby.presence.list("lobby") == {}
