"""WebSocket clients of a hub: channels, publishing, overflow, closing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.pubsub.helpers import SECONDS, joined, served
from tests.server.helpers import request
from trioglock import (
    BrokerUnavailable,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeRefused,
    MemoryListener,
    Reply,
    connect,
)
from trioglock.pubsub import Broker, BrokerSession, Hub, HubSocket, MemoryBroker, Message
from trioglock.pubsub.socket import ClientSubscriber
from trioglock.server import serve
from trioglock.testing import MockServer

BIG = 2**16
"""Size of a message in bytes; a few of them fill the buffers of a connection."""


async def test_the_path_is_the_channel() -> None:
    """It is percent-decoded, and does not include the query; ``/`` receives only broadcasts."""
    hub = Hub()
    async with (
        served(hub) as url,
        connect(url + "news/sp%C3%A4t?x=1") as news,
        connect(url) as no_channel,
        connect(url + "n%2A") as literal,
    ):
        await joined(hub, 3)
        await hub.publish("text", channel="news/spät")
        await hub.publish(b"\x00\xff", channel="news/spät")
        await hub.publish("all")
        assert [await news.receive() for _ in range(3)] == ["text", b"\x00\xff", "all"]
        assert await no_channel.receive() == "all"
        assert await literal.receive() == "all"
        assert hub.statistics().delivered == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "host", ["[1]", "[::1", "[]", "a]", "[::1]x", "[fe80::1%25lo]", "a@b", "x:1:2"]
)
async def test_fault_09_a_malformed_host(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """It gets 400 and one line in the log; the next client is served."""
    caplog.set_level("INFO")
    hub, listener = Hub(), MemoryListener()
    with trio.fail_after(SECONDS):
        async with hub, serve(hub.socket, listeners=[listener]):
            stream = await listener.open_stream()
            await stream.send_all(request("/news", Host=host))
            answer = b"".join([part async for part in stream])
            assert answer.startswith(b"HTTP/1.1 400 ")
            [record] = caplog.records
            assert record.levelname == "INFO"
            assert "refused: 400 invalid Host header" in record.getMessage()
            async with connect("ws://memory.test/", stream=listener.open_stream) as conn:
                await conn.ping()


@pytest.mark.parametrize(
    "target", ["//[1]/x", "//a@[::1", "/[", "/%zz%ff?after=%ff&[;=&&", "/?#[1]"]
)
async def test_fault_09_a_strange_target(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is a channel like any other."""
    hub, listener = Hub(), MemoryListener()
    with trio.fail_after(SECONDS):
        async with hub, serve(hub.socket, listeners=[listener]):
            stream = await listener.open_stream()
            await stream.send_all(request(target))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
            await stream.aclose()
    assert not caplog.records


@pytest.mark.parametrize("query", ["", "?after="])
async def test_fault_52_a_connected_client_is_subscribed(query: str) -> None:
    """It receives what is published right after the response to its handshake."""
    hub = Hub()
    async with served(hub) as url:
        for number in range(40):
            async with connect(f"{url}x{query}") as client:
                assert hub.statistics().subscribers >= 1
                await hub.publish(str(number), channel="x")
                if query:
                    assert json.loads(await client.receive()) == {"subscribed": "x", "id": None}
                assert str(number) in await client.receive()


async def test_messages_of_clients_are_published_on_incoming() -> None:
    """Text and binary, in order."""
    hub = Hub()
    received: list[Message] = []
    hub.on("incoming")(received.append)
    async with served(hub) as url, connect(url + "x") as conn:
        for message in ("one", b"two", "three"):
            await conn.send(message)
        while len(received) < 3:
            await trio.sleep(0.001)
    assert received == [Message("incoming", data) for data in ("one", b"two", "three")]


async def test_fault_05_a_client_is_subscribed_before_it_knows_that_it_is_open() -> None:
    """What is published right after ``connect()`` reaches it."""
    hub = Hub()
    async with served(hub) as url:
        for _ in range(20):
            async with connect(url + "news") as conn:
                await hub.publish("text", channel="news")
                assert await conn.receive() == "text"


async def test_fault_05_in_memory_with_a_clock(autojump_clock: MockClock) -> None:
    """Nothing hangs: nothing was published too early."""
    hub, listener = Hub(), MemoryListener()
    async with (
        hub,
        serve(hub.socket, listeners=[listener]),
        connect("ws://memory.test/news", stream=listener.open_stream) as conn,
    ):
        await hub.publish("text", channel="news")
        assert await conn.receive() == "text"


@pytest.mark.parametrize("path", ["incoming", "%2Fx", "/x", "phoenix%3Atopic%3Aroom%3A1"])
async def test_an_invalid_channel_is_refused(path: str) -> None:
    """The close code is 1008, with a reason."""
    hub = Hub()
    async with served(hub) as url:
        with pytest.raises(ConnectionClosedError) as caught:
            async with connect(url + path) as conn:
                await conn.receive()
        assert caught.value.code == 1008
        assert caught.value.reason
        assert hub.statistics().subscribers == 0


async def test_a_client_that_leaves_is_removed() -> None:
    """With or without a closing handshake."""
    hub = Hub()
    async with served(hub) as url:
        async with connect(url + "x"), connect(url + "x") as lost:
            await joined(hub, 2)
            lost.abort()
            await joined(hub, 1)
        await joined(hub, 0)
        await hub.publish("unread", channel="x")
        assert hub.statistics().channels == 0


async def test_a_slow_client_does_not_delay_others() -> None:
    """Scenario 23: one of two reads nothing. Its queue is bounded, and the other receives all."""
    hub = Hub(max_queue=8)
    async with (
        served(hub) as url,
        connect(url + "x", max_queue=1, compression=None) as slow,
        connect(url + "x", max_queue=None, compression=None) as quick,
    ):
        await joined(hub, 2)
        count = 0
        while not hub.statistics().dropped:
            await hub.publish(f"{count:<{BIG}}", channel="x")
            assert int(await quick.receive()) == count
            count += 1
        assert hub.statistics().disconnected == 0
        seen = [int(await slow.receive())]
        while seen[-1] < count - 1:
            seen.append(int(await slow.receive()))
        assert len(seen) == count - hub.statistics().dropped
        assert seen == sorted(set(seen))
        await hub.publish("quick again", channel="x")
        assert await slow.receive() == "quick again"


async def test_fault_45_long_messages_for_a_slow_client_are_bounded_in_bytes() -> None:
    """Its queue is full long before it holds ``max_queue`` messages."""
    hub = Hub(max_queue_bytes=2**22)
    async with served(hub) as url, connect(url + "x", max_queue=1, compression=None) as slow:
        await joined(hub, 1)
        for number in range(64):
            await hub.publish(f"{number:<{2**20 - 100}}", channel="x")
        assert hub.statistics().dropped > 32
        seen = [int(await slow.receive())]
        while seen[-1] < 63:
            seen.append(int(await slow.receive()))
        assert len(seen) == 64 - hub.statistics().dropped


@pytest.mark.parametrize("history", [None, 500, 100])
async def test_fault_29_a_slow_client_learns_of_every_dropped_message(history: int | None) -> None:
    """It gets a gap, or reads them from the history, as far as that goes back."""
    hub = Hub(broker=MemoryBroker(history=history), max_queue=4)
    async with (
        served(hub) as url,
        connect(url + "x?after=", max_queue=1, compression=None) as slow,
    ):
        await slow.receive()
        count = 500
        for number in range(count):
            await hub.publish(f"{number:<{BIG // 4}}", channel="x")
        seen, gaps = [-1], 0
        while seen[-1] < count - 1:
            event = json.loads(await slow.receive())
            if "gap" in event:
                gaps += 1
                assert (event["id"] is None) is (history is None)
                seen.append(-1)
            else:
                seen.append(int(event["data"]))
        for before, after in pairwise(seen):
            assert -1 in (before, after) or after == before + 1
        assert bool(gaps) is (history != 500)
        assert hub.statistics().dropped == (0 if history else count + 1 + gaps - len(seen))


async def test_a_slow_client_is_closed_with_1013() -> None:
    """The others stay."""
    hub = Hub(overflow="close", max_queue=4)
    async with (
        served(hub, close_timeout=1) as url,
        connect(url + "x", max_queue=1, compression=None) as slow,
        connect(url + "x", max_queue=None, compression=None) as quick,
    ):
        await joined(hub, 2)
        sent = 0
        while not hub.statistics().disconnected:
            await hub.publish("x" * BIG, channel="x")
            sent += 1
            await quick.receive()
        got = 0
        with pytest.raises(ConnectionClosedError) as caught:
            while True:
                await slow.receive()
                got += 1
        assert (caught.value.code, caught.value.reason) == (1013, "too slow")
        assert 0 < got < sent
        await joined(hub, 1)
        assert hub.statistics().disconnected == 1


async def test_the_close_frame_overtakes_queued_messages() -> None:
    hub = Hub(overflow="close", max_queue=1)
    async with (
        served(hub, write_limit=2**25) as url,
        connect(url + "x", max_queue=1, compression=None) as slow,
    ):
        await joined(hub, 1)
        sent = got = 0
        while not hub.statistics().disconnected:
            await hub.publish("x" * BIG, channel="x")
            sent += 1
        with pytest.raises(ConnectionClosedError, match="1013 too slow"):
            while True:
                await slow.receive()
                got += 1
        assert got < sent - 2**24 // BIG


async def test_a_hub_that_closes_closes_its_clients() -> None:
    """Connected clients receive 1001, later ones are refused with 503."""
    hub = Hub()
    stop = trio.Event()

    async def open_for_a_while(*, task_status: trio.TaskStatus[None]) -> None:
        async with hub:
            task_status.started()
            await stop.wait()

    with trio.fail_after(SECONDS):
        async with serve(hub.socket, "127.0.0.1", 0) as server, trio.open_nursery() as nursery:
            url = f"ws://127.0.0.1:{server.port}/x"
            await nursery.start(open_for_a_while)
            async with connect(url) as conn:
                await joined(hub, 1)
                stop.set()
                with pytest.raises(ConnectionClosedOK) as caught:
                    await conn.receive()
                assert caught.value.code == 1001
            with pytest.raises(HandshakeRefused, match="503") as refused:
                async with connect(url):
                    pass
            assert refused.value.headers["Retry-After"] == "5"


class UnavailableBroker(Broker):
    def open(self, name: str, deliver: object, find_retention: object = None) -> Any:
        @asynccontextmanager
        async def session() -> AsyncIterator[BrokerSession]:
            yield UnavailableSession()

        return session()


class UnavailableSession(BrokerSession):
    async def publish(self, channel: str, data: object) -> None:
        await trio.lowlevel.checkpoint()
        raise BrokerUnavailable("away")


async def test_a_message_that_cannot_be_published_closes_the_client() -> None:
    """With 1013, so that it tries again later."""
    async with served(Hub(broker=UnavailableBroker())) as url, connect(url + "x") as conn:
        await conn.send("lost?")
        with pytest.raises(ConnectionClosedError, match="1013 not published; try again later"):
            await conn.receive()


class Room(HubSocket):
    """Publishes messages on the channel of the client."""

    async def handle_receive(self, frame: Any, state: Any) -> tuple[Any, Any]:
        await self.hub.publish(f"all: {frame}", channel=state.channel)
        return Reply("thanks"), state


async def test_publishing_from_a_hook() -> None:
    """The client receives its own message too."""
    hub = Hub()
    with trio.fail_after(SECONDS):
        async with hub, serve(hub.socket_of(Room), "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.port}/"
            async with connect(url + "r") as one, connect(url + "r") as two:
                await joined(hub, 2)
                await one.send("hi")
                assert {await one.receive(), await one.receive()} == {"thanks", "all: hi"}
                assert await two.receive() == "all: hi"


async def test_a_lost_connection_is_ignored(autojump_clock: MockClock) -> None:
    """Until its hooks have ended, the subscriber discards all events."""
    async with MockServer(memory=True) as server, Hub() as hub:
        async with connect(server.url, stream=server.open_stream) as conn:
            client, waiting = (ClientSubscriber(hub, conn, "x", as_json=True) for _ in range(2))
        message = Message("x", "late")
        waiting.enqueue(message)
        waiting.start_sending()
        for subscriber in (client, waiting):
            subscriber.put(message)
            subscriber.put(message)
            subscriber.end()
        assert len(client) == 0
        assert repr(hub) == "<Hub trioglock, 0 subscribers>"
