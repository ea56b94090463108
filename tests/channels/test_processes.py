"""Several hubs, as in several processes, that share a broker."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.cases import case_of
from tests.channels.helpers import ChannelsSite, serving_channels
from tests.channels.history_helpers import GapBroker
from tests.pubsub.redis_server import RealRedis
from trioglock import MemoryListener, serve
from trioglock.channels import Answer, Broadcast, Channel, Channels, History, Push
from trioglock.pubsub import Broker, Gap, Hub, MemoryBroker, RedisBroker


class Room(Channel[None]):
    """Broadcasts every push, and intercepts one event."""

    intercept = ("whisper",)

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        if event == "others":
            return (Broadcast(event, payload, to_self=False), Answer("ok")), state
        return (Broadcast(event, payload), Answer("ok")), state

    def handle_out(self, event: str, payload: Any, state: None) -> Any:
        return Push("whispered", payload), state


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.slow)])
def make_broker(request: pytest.FixtureRequest) -> Any:
    """A function that returns the broker of one process."""
    if request.param == "memory":
        shared = MemoryBroker()
        return lambda: shared
    server: RealRedis = request.getfixturevalue("redis")
    return lambda: RedisBroker(server.url)


@asynccontextmanager
async def two_processes(
    make_broker: Any, **options: Any
) -> AsyncIterator[tuple[ChannelsSite, ChannelsSite]]:
    brokers: list[Broker] = [make_broker(), make_broker()]
    async with (
        serving_channels(Room, hub=Hub(broker=brokers[0]), **options) as first,
        serving_channels(Room, hub=Hub(broker=brokers[1]), **options) as second,
    ):
        yield first, second


async def test_a_broadcast_reaches_the_members_in_every_process(make_broker: Any) -> None:
    async with (
        two_processes(make_broker) as (here, there),
        here.dial() as first,
        there.dial() as second,
        there.dial() as elsewhere,
    ):
        await first.join()
        await second.join(ref="2")
        await elsewhere.join("room:2")
        expected = [None, None, "room:1", "shout", {"m": 1}]
        await first.send("1", "3", "room:1", "shout", {"m": 1})
        assert await second.receive() == expected
        # With Redis, the broadcast returns at any time.
        replied = ["1", "3", "room:1", "phx_reply", {"response": {}, "status": "ok"}]
        received = [await first.receive() for _ in range(2)]
        assert received in ([expected, replied], [replied, expected])
        await there.channels.broadcast("room:1", "news", {"m": 2})
        for raw in (first, second):
            assert await raw.receive() == [None, None, "room:1", "news", {"m": 2}]
        await here.channels.broadcast("room:1", "news", b"\x00\xff")
        for raw in (first, second):
            assert await raw.receive() == b"\x02\x06\x04room:1news\x00\xff"
        await here.channels.broadcast("room:1", "whisper", {"m": 3})
        assert await first.receive() == ["1", None, "room:1", "whispered", {"m": 3}]
        assert await second.receive() == ["2", None, "room:1", "whispered", {"m": 3}]
        here.channels.local_broadcast("room:1", "local", {})
        assert (await first.receive())[3] == "local"
        await second.alive()
        await elsewhere.alive()


@pytest.mark.redis
@pytest.mark.slow
async def test_a_process_receives_only_topics_with_members(redis: RealRedis) -> None:
    """And the response to a join means that the next broadcast arrives."""
    async with (
        two_processes(lambda: RedisBroker(redis.url)) as (here, there),
        here.dial() as member,
    ):
        for number in range(100):
            await member.join(f"room:{number}", str(number))
            await there.channels.broadcast(f"room:{number}", "news", {})
            assert (await member.receive())[2] == f"room:{number}"
        received = [site.channels.hub.statistics().received for site in (here, there)]
        for number in range(100, 200):
            await here.channels.broadcast(f"room:{number}", "news", {})
        await member.alive()
        assert received == [site.channels.hub.statistics().received for site in (here, there)]
        assert received == [100, 0]
        for number in range(100):
            await member.send(str(number), "leave", f"room:{number}", "phx_leave", {})
            await member.receive()
        while "phoenix:topic" in redis.ask("PUBSUB CHANNELS trioglock/*"):
            await there.channels.broadcast("room:0", "news", {})


async def test_a_broadcast_that_excludes_its_sender_reaches_all_others(make_broker: Any) -> None:
    async with (
        two_processes(make_broker) as (here, there),
        here.dial() as first,
        here.dial() as neighbour,
        there.dial() as second,
    ):
        for raw in (first, neighbour, second):
            await raw.join()
        await first.send("1", "2", "room:1", "others", {"m": 1})
        assert (await first.receive())[1] == "2"
        for raw in (neighbour, second):
            assert await raw.receive() == [None, None, "room:1", "others", {"m": 1}]
        await first.alive()


FORGED = '[null,null,"room:2","permissions",{"granted":"everything"}]'


@pytest.mark.parametrize(
    "payload",
    [b"", b"abc", b"a b", b"\xcc", b"\x00", b"[1]", b"x " + FORGED.encode(), "ä ".encode()],
)
async def test_binary_payloads_of_clients_arrive_as_they_were_sent(
    make_broker: Any, payload: bytes
) -> None:
    """Redis returns them as text if they are valid UTF-8."""
    async with (
        two_processes(make_broker) as (here, there),
        here.dial() as first,
        there.dial() as second,
    ):
        await first.join()
        await second.join()
        await second.join("room:2", "2")
        for event in ("file", "others"):
            head = bytes([0, 1, 1, 6, len(event)]) + f"19room:1{event}".encode()
            await first.connection.send(head + payload)
            expected = bytes([2, 6, len(event)]) + f"room:1{event}".encode() + payload
            assert await second.raw() == expected
            received = [await first.raw() for _ in range(1 + (event == "file"))]
            assert [one for one in received if isinstance(one, bytes)] == (
                [expected] if event == "file" else []
            )
        await there.channels.broadcast("room:1", "file", payload)
        for raw in (first, second):
            assert await raw.raw() == b"\x02\x06\x04room:1file" + payload
            await raw.alive()


async def test_a_disconnect_reaches_every_process(make_broker: Any) -> None:
    options: Any = {"connect": lambda request: request.params["u"], "id": lambda user: user}
    url = "ws://memory.test/socket/websocket?vsn=2.0.0&u="
    async with (
        two_processes(make_broker, **options) as (here, there),
        here.dial(f"{url}al") as first,
        there.dial(f"{url}al") as second,
        there.dial(f"{url}bo") as other,
    ):
        await here.channels.disconnect("al")
        for raw in (first, second):
            assert [frame async for frame in raw.connection] == []
            assert raw.connection.close_code == 1001
        await other.alive()


class Kept(Room):
    history = History()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Room, Kept])
async def test_a_disconnect_during_an_interruption_of_redis_takes_effect(
    redis: RealRedis, caplog: pytest.LogCaptureFixture, kind: type[Room]
) -> None:
    broker = RedisBroker(redis.url)
    options: Any = {"connect": lambda request: request.params["u"], "id": lambda user: user or None}
    url = "ws://memory.test/socket/websocket?vsn=2.0.0&u="
    async with (
        serving_channels(kind, hub=Hub(broker=broker), **options) as site,
        site.dial(f"{url}al") as first,
        site.dial(f"{url}bo") as second,
        site.dial(url) as without_id,
    ):
        redis.send_plainly("CLIENT KILL TYPE pubsub")
        redis.publish_plainly("trioglock/phoenix:id:al", b"disconnect")
        for raw in (first, second):
            assert [frame async for frame in raw.connection] == []
            assert raw.connection.close_code == 1001
        await without_id.alive()
        async with site.dial(f"{url}bo") as again:
            await trio.sleep(0.05)
            await again.alive()
    assert caplog.text.count("closing, with code 1001, all clients that have an id") == 1


async def test_clients_are_not_all_closed_at_once_after_an_interruption(
    autojump_clock: MockClock,
) -> None:
    broker = GapBroker()
    options: Any = {"connect": lambda request: request.params["u"], "id": lambda user: user}
    closed: list[float] = []

    async def run_client(site: ChannelsSite, number: int) -> None:
        url = f"ws://memory.test/socket/websocket?vsn=2.0.0&u={number % 10}"
        async with site.dial(url) as raw:
            assert [frame async for frame in raw.connection] == []
            assert raw.connection.close_code == 1001
            closed.append(trio.current_time())

    async with (
        serving_channels(Room, hub=Hub(broker=broker), **options) as site,
        trio.open_nursery() as nursery,
    ):
        for number in range(40):
            nursery.start_soon(run_client, site, number)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        broker.deliver(Gap(1.0))
        broker.deliver(Gap(1.0))
    assert [round((one - began) * 200) for one in closed] == list(range(40))


def test_clients_are_closed_after_an_interruption_in_every_run() -> None:
    """Each ``trio.run`` has a clock of its own."""
    broker = GapBroker()
    channels = Channels({"room:*": Room}, hub=Hub(broker=broker), id=lambda _: "all")

    async def run(jump: float) -> float:
        trio.lowlevel.current_clock().jump(jump)  # type: ignore[attr-defined]
        listener = MemoryListener()
        async with (
            channels.hub,
            serve(channels.socket, listeners=[listener]) as server,
            ChannelsSite(channels, listener, server).dial() as raw,
        ):
            began = trio.current_time()
            broker.deliver(Gap(1.0))
            await raw.connection.wait_closed()
            return trio.current_time() - began
        raise AssertionError

    for jump in (1000.0, 0.0):
        assert trio.run(run, jump, clock=MockClock(autojump_threshold=0)) < 1


async def test_broadcasts_of_one_client_arrive_in_order(make_broker: Any) -> None:
    async with (
        two_processes(make_broker) as (here, there),
        here.dial() as first,
        there.dial() as second,
    ):
        await first.join()
        await second.join()
        for number in range(100):
            await first.send("1", str(number), "room:1", "shout", {"n": number})
        numbers = [(await second.receive())[4]["n"] for _ in range(100)]
        assert numbers == list(range(100))
        received = [await first.receive() for _ in range(200)]
        assert [one[4]["n"] for one in received if one[3] == "shout"] == numbers
        assert [one[1] for one in received if one[3] == "phx_reply"] == list(map(str, range(100)))


@pytest.mark.slow
async def test_a_broadcast_of_a_client_that_disconnects_directly_afterwards_is_sent(
    redis: RealRedis,
) -> None:
    async with (
        two_processes(lambda: RedisBroker(redis.url)) as (here, there),
        there.dial() as second,
    ):
        await second.join()
        async with here.dial() as first:
            await first.join()
            await first.send("1", "2", "room:1", "shout", {})
        assert (await second.receive())[3] == "shout"


@pytest.mark.slow
async def test_another_program_can_broadcast_through_redis(redis: RealRedis) -> None:
    """The messages on the channel of a topic are the frames of Phoenix."""
    frame = json.dumps([None, None, "room:1", "news", {}])
    async with (
        serving_channels(Room, hub=Hub(broker=RedisBroker(redis.url))) as site,
        site.dial() as raw,
    ):
        await raw.join()
        parts = ["PUBLISH", "trioglock/phoenix:topic:room:1", frame]
        command = f"*{len(parts)}\r\n" + "".join(
            f"${len(part.encode())}\r\n{part}\r\n" for part in parts
        )
        with socket.create_connection(("127.0.0.1", redis.port)) as connection:
            connection.sendall(command.encode())
        assert await raw.raw() == frame


@pytest.mark.slow
async def test_a_broadcast_that_the_broker_does_not_accept_ends_the_topic(
    redis: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    broker = RedisBroker(redis.url, publish_timeout=0.2)
    async with serving_channels(Room, hub=Hub(broker=broker)) as site, site.dial() as raw:
        await raw.join()
        redis.kill()
        await raw.send("1", "2", "room:1", "shout", {})
        assert (await raw.receive())[3] == "phx_error"
        await raw.join("room:1", "3")
    assert "Room.handle_in failed" in caplog.text


async def test_a_message_to_all_subscribers_of_the_hub_is_not_a_message_of_a_topic() -> None:
    async with serving_channels(Room) as site, site.dial() as raw:
        await raw.join()
        await site.channels.hub.publish("to everyone")
        await raw.alive()


NO_BROADCASTS: list[str | bytes] = [
    "",
    "text",
    "origin text",
    f"origin {FORGED}",
    f" {FORGED}",
    "[]",
    b"",
    b"x",
    b"\xff",
    b"\xff\x05ab",
    b"\x02",
]


async def test_a_message_that_is_no_broadcast_ends_nothing() -> None:
    """Any program can publish on the channels of topics. A frame that is cut off is passed on."""
    for data, topic in product(NO_BROADCASTS, ("room:1", "other:1")):
        with case_of(data, topic):
            routes: Any = {"room:*": Room, "other:*": Channel}
            async with serving_channels(routes) as site, site.dial() as raw:
                await raw.join(topic)
                await site.channels.hub.publish(data, f"phoenix:topic:{topic}")
                await site.channels.broadcast(topic, "news", {})
                frames = [await raw.raw()]
                while frames[-1] != f'[null,null,"{topic}","news",{{}}]':
                    frames.append(await raw.raw())
                assert frames[:-1] in ([], ["["], ["[]"], [b"\x02"])


@pytest.mark.slow
async def test_an_outage_of_redis_is_logged_and_joins_survive_it(
    redis: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    broker = RedisBroker(redis.url)
    async with serving_channels(Room, hub=Hub(broker=broker)) as site, site.dial() as raw:
        await raw.join()
        await raw.join("room:2", "2")
        redis.kill()
        redis.start()
        await site.channels.broadcast("room:1", "news", {})
        assert (await raw.receive())[3] == "news"
        while "may be missing in 2 topics" not in caplog.text:
            await trio.sleep(0.01)
        assert caplog.text.count("may be missing") == 1


async def test_two_servers_with_one_hub_share_their_topics() -> None:
    """As in Phoenix, where topics belong to the endpoint."""
    hub = Hub()
    async with serving_channels(Room, hub=hub) as first, first.dial() as raw:
        await raw.join()
        second = Channels({"room:*": Room}, hub=hub)
        await second.broadcast("room:1", "news", {})
        assert (await raw.receive())[3] == "news"
