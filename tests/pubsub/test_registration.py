"""Clients are registered, and their subscriptions confirmed, before their handshakes end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.pubsub.helpers import SECONDS, joined, opened
from tests.pubsub.redis_server import RealRedis
from tests.server.helpers import request
from trioglock import HandshakeRefused, MemoryListener, connect
from trioglock.asgi import WebSocketApp
from trioglock.channels import Channel, Channels
from trioglock.frames import Data
from trioglock.pubsub import Broker, BrokerSession, Hub, MemoryBroker
from trioglock.pubsub.history import MemoryHistory
from trioglock.pubsub.patterns import ChannelFilter
from trioglock.server import serve

URL = "ws://memory.test/news"


class SlowBroker(Broker):
    """Confirms subscriptions when a test allows it, and delivers only those confirmed."""

    def __init__(self) -> None:
        self.confirmed = trio.Event()
        self.wanted: list[str] = []
        """The channels that are subscribed to."""
        self.asked = 0
        """How many subscriptions have been requested."""
        self.is_up = True
        self.memory = MemoryBroker()

    @asynccontextmanager
    async def open(
        self, name: str, deliver: Any, find_retention: Any = None
    ) -> AsyncIterator[BrokerSession]:
        yield SlowSession(self, deliver)


class SlowSession(BrokerSession):
    def __init__(self, broker: SlowBroker, deliver: Any) -> None:
        self.broker, self.deliver = broker, deliver

    @property
    def is_up(self) -> bool:
        return self.broker.is_up

    async def publish(self, channel: str, data: Data) -> None:
        raise AssertionError

    def subscribe(self, channels: ChannelFilter) -> None:
        self.broker.wanted.append(channels.pattern)
        self.broker.asked += 1

    def unsubscribe(self, channels: ChannelFilter) -> None:
        self.broker.wanted.remove(channels.pattern)

    def is_subscribed(self, channels: ChannelFilter) -> bool:
        return self.broker.confirmed.is_set()

    async def wait_subscribed(self, channels: ChannelFilter) -> None:
        await self.broker.confirmed.wait()


@asynccontextmanager
async def slow_site(**options: Any) -> AsyncIterator[tuple[SlowBroker, Hub, MemoryListener]]:
    """A hub and its server in memory."""
    broker, listener = SlowBroker(), MemoryListener()
    async with Hub(broker=broker) as hub, serve(hub.socket, listeners=[listener], **options):
        yield broker, hub, listener


async def test_the_response_waits_for_the_confirmation(autojump_clock: MockClock) -> None:
    async with slow_site() as (broker, hub, listener):
        stream = await listener.open_stream()
        await stream.send_all(request("/news"))
        await trio.sleep(1)
        assert broker.wanted == ["news"]
        assert hub.statistics().subscribers == 1
        broker.confirmed.set()
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        assert hub.statistics().subscribers == 1
        await stream.aclose()
        await joined(hub, 0)
        assert broker.wanted == []


async def test_an_unreachable_broker_is_503(autojump_clock: MockClock) -> None:
    """After 5 seconds; the client is not subscribed any more."""
    async with slow_site() as (broker, hub, listener):
        began = trio.current_time()
        with pytest.raises(HandshakeRefused) as refused:
            async with connect(URL, stream=listener.open_stream):
                pass
        assert refused.value.status == 503
        assert refused.value.headers["Retry-After"] == "5"
        assert 5 <= trio.current_time() - began < 6
        assert (hub.statistics().subscribers, broker.wanted) == (0, [])


async def test_a_history_that_cannot_be_read_is_503(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a client that wants all messages that are kept: it tries again, and misses none."""

    async def stall(self: MemoryHistory, *arguments: object) -> None:
        await trio.sleep_forever()

    hub, listener = Hub(broker=MemoryBroker(history=1)), MemoryListener()
    async with hub, serve(hub.socket, listeners=[listener]):
        with monkeypatch.context() as patch:
            patch.setattr(MemoryHistory, "after", stall)
            with pytest.raises(HandshakeRefused, match="503"):
                async with connect(f"{URL}?after=0", stream=listener.open_stream):
                    pass
        assert 5 <= trio.current_time() < 6
        assert hub.statistics().subscribers == 0
        async with connect(f"{URL}?after=0", stream=listener.open_stream) as client:
            assert '"subscribed"' in str(await client.receive())


async def test_clients_are_refused_at_once_during_an_outage(autojump_clock: MockClock) -> None:
    """They wait only until the outage is detected."""
    async with slow_site() as (broker, hub, listener):
        broker.is_up = False
        began = trio.current_time()
        with pytest.raises(HandshakeRefused, match="503"):
            async with connect(URL, stream=listener.open_stream):
                pass
        assert trio.current_time() - began < 1  # on the MockClock
        assert (hub.statistics().subscribers, broker.wanted) == (0, [])


async def test_clients_that_wait_for_the_broker_keep_nobody_out(autojump_clock: MockClock) -> None:
    async with slow_site() as (_, hub, listener):
        for _ in range(200):
            stream = await listener.open_stream()
            await stream.send_all(request("/news"))
        with trio.fail_after(10):
            await joined(hub, 200)
        began = trio.current_time()
        stream = await listener.open_stream()
        await stream.send_all(b"GET /news HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 426 " in await stream.receive_some()
        assert trio.current_time() - began < 2  # on the MockClock


async def test_a_client_in_excess_is_refused_without_a_subscription(
    autojump_clock: MockClock,
) -> None:
    """A client that fails takes no place."""
    async with slow_site(max_connections=1) as (broker, hub, listener):
        with pytest.raises(HandshakeRefused, match="503"):
            async with connect(URL, stream=listener.open_stream):
                pass
        broker.confirmed.set()
        async with connect(URL, stream=listener.open_stream):
            asked = broker.asked
            with pytest.raises(HandshakeRefused, match="503"):
                async with connect("ws://memory.test/other", stream=listener.open_stream):
                    pass
            assert broker.asked == asked
        await joined(hub, 0)


@pytest.mark.parametrize("how", ["gone", "timeout", "full", "aborted"])
async def test_a_handshake_that_fails_unsubscribes(how: str, autojump_clock: MockClock) -> None:
    """The client is gone, the server is full or aborts, or the handshake takes too long."""
    options: dict[str, Any] = {"full": {"max_connections": 1}, "timeout": {"open_timeout": 2}}
    broker, listener = SlowBroker(), MemoryListener()
    async with (
        Hub(broker=broker) as hub,
        serve(hub.socket, listeners=[listener], **options.get(how, {})) as server,
    ):
        first = await listener.open_stream()
        if how == "full":
            broker.confirmed.set()
            await first.send_all(request("/first"))
            assert b" 101 " in await first.receive_some()
        stream = await listener.open_stream()
        await stream.send_all(request("/news"))
        await trio.testing.wait_all_tasks_blocked()
        match how:
            case "full":
                assert b" 503 " in await stream.receive_some()
            case "gone":
                await stream.aclose()
                broker.confirmed.set()
                await first.aclose()
            case "timeout":
                await trio.sleep(3)
            case "aborted":
                server.abort()
        await joined(hub, how == "full")
        assert broker.wanted == ["first"] * (how == "full")


async def test_an_asgi_server_refuses_the_client(autojump_clock: MockClock) -> None:
    """It is not subscribed any more."""
    broker = SlowBroker()
    async with Hub(broker=broker) as hub:
        sent = list[Any]()

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(event: Any) -> None:
            sent.append(event["type"])

        scope = {"type": "websocket", "path": "/news", "headers": []}
        await WebSocketApp(hub.socket)(scope, receive, send)
        assert sent == ["websocket.close"]
        assert (hub.statistics().subscribers, broker.wanted) == (0, [])


async def test_channels_confirm_the_id_of_a_connection(autojump_clock: MockClock) -> None:
    """Before the response, so that `disconnect` reaches it; and a topic before the reply."""

    class Room(Channel[None]):
        pass

    broker, listener = SlowBroker(), MemoryListener()
    hub = Hub(broker=broker)
    channels = Channels({"room:*": Room}, hub=hub, id=lambda user: "ann")
    async with hub, serve(channels.socket, listeners=[listener]):
        url = "ws://memory.test/socket/websocket?vsn=2.0.0"
        with pytest.raises(HandshakeRefused, match="503"):
            async with connect(url, stream=listener.open_stream):
                pass
        assert broker.wanted == []
        broker.confirmed.set()
        async with connect(url, stream=listener.open_stream) as conn:
            assert broker.wanted == ["phoenix:id:ann"]
            with trio.fail_after(10):
                await joined(hub, 1)  # the reservation has ended
            broker.confirmed = trio.Event()
            await conn.send('["1", "1", "room:1", "phx_join", {}]')
            with trio.move_on_after(1) as scope:
                await conn.receive()
            assert scope.cancelled_caught
            assert broker.wanted[1:] == ["phoenix:topic:room:1"]
            broker.confirmed.set()
            assert json.loads(await conn.receive())[4]["status"] == "ok"
            broker.confirmed = trio.Event()
            await conn.send('["2", "2", "room:2", "phx_join", {}]')
        while broker.wanted:
            await trio.sleep(0.1)


@pytest.mark.redis
@pytest.mark.parametrize("history", [None, 100])
async def test_fault_53_a_client_that_has_received_nothing_returns_to_another_process(
    redis: RealRedis, history: int | None
) -> None:
    """What was published meanwhile follows, and nothing from before; without a history, a gap."""
    listeners = [MemoryListener(), MemoryListener()]
    with trio.fail_after(SECONDS):
        async with (
            opened(redis.broker(history=history)) as one,
            opened(redis.broker(history=history)) as two,
            serve(one.socket, listeners=[listeners[0]]),
            serve(two.socket, listeners=[listeners[1]]),
        ):
            await one.publish("before", channel="news")
            for number in range(300):
                await two.publish(str(number), channel="busy")
            async with connect(f"{URL}?after=", stream=listeners[0].open_stream) as conn:
                start = json.loads(await conn.receive())["id"]
            await two.publish("missed", channel="news")
            for number in range(300):
                await one.publish(str(number), channel="busy")
            async with connect(
                f"{URL}?after={start or '1-1'}", stream=listeners[1].open_stream
            ) as conn:
                await conn.receive()
                event = json.loads(await conn.receive())
                assert event.get("data") == ("missed" if history else None)
                if history is None:
                    assert event == {"gap": 0.0, "id": None}
                await one.publish("now", channel="news")
                assert json.loads(await conn.receive())["data"] == "now"
