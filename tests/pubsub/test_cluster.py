"""Redis Cluster: a slot that moves and nodes that fail under load, URLs, errors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import trio

from tests.pubsub.failover_load import loaded
from tests.pubsub.helpers import expect_both, opened, read
from tests.pubsub.redis_cluster import RealCluster, name_in, real_cluster, slot_of
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import BrokerError, BrokerUnavailable, InvalidOption
from trioglock.pubsub import RedisBroker, publish

pytestmark = pytest.mark.redis


@pytest.fixture
def cluster() -> Iterator[RealCluster]:
    """Three masters and their replicas."""
    with real_cluster() as nodes:
        yield nodes


@pytest.mark.slow
async def test_slots_and_nodes_under_load(cluster: RealCluster) -> None:
    """A slot is moved, and a node is killed: each subscriber receives each message, or a gap."""
    plain, kept = name_in(0), name_in(1)
    await check_streams(cluster)
    async with loaded(cluster.url, plain, kept) as loads:
        first, second = cluster.master_of(plain), cluster.master_of(kept)
        for _ in cluster.move_slot(slot_of(kept), second, first):
            await trio.sleep(0.2)
        assert first.ask(f"XLEN {{{kept}}}/x").startswith(":")
        for load in loads:
            await load.wait_published()
            await load.add_hub()
        cluster.set_node_timeout(1000)
        first.kill()  # serves both hubs
        for load in loads:
            await load.wait_published()
            await load.add_hub()


async def check_streams(cluster: RealCluster) -> None:
    """The history of each hub is on the node that serves its slot; PUBLISH reaches all nodes."""
    for number in range(3):
        name, other = name_in(number), name_in((number + 1) % 3)
        node = cluster.master_of(name)
        async with opened(RedisBroker(cluster.url, history=10), name) as hub:
            loop = hub.subscribe("x")
            await hub.publish("one", channel="x")
            call = partial(publish, "two", "x", name=name, url=cluster.url, history=10)
            await trio.to_thread.run_sync(call)
            cluster.master_of(other).publish_plainly(f"{name}/x", b"three")
            assert await read(loop, 3) == ["one", "two", "three"]
            assert node.ask(f"XLEN {{{name}}}/x").startswith(":2")
            again = hub.subscribe("x", after="0-0", gaps=True)
            assert (await read(again, 3))[1:] == ["one", "two"]


async def test_a_server_that_is_not_in_a_cluster(redis: RealRedis) -> None:
    for text in await expect_both(BrokerError, f"redis+cluster://127.0.0.1:{redis.port}"):
        assert f"127.0.0.1:{redis.port} does not belong to a cluster: use redis://" in text


@pytest.mark.slow
async def test_a_cluster_without_slots() -> None:
    with real_redis("--cluster-enabled", "yes") as redis:
        url = f"redis+cluster://127.0.0.1:{redis.port}"
        for text in await expect_both(BrokerUnavailable, url):
            assert "no node of the cluster serves slot" in text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+cluster://h/1", "has no databases"),
        ("redis+cluster://h?db=1", "has no databases"),
        ("redis+cluster://h:port", "valid hosts and ports"),
        ("redis+cluster://h,a..b", "valid hosts and ports"),
        ("redis+cluster://h?timeout=1", "takes no parameter 'timeout'"),
    ],
)
def test_invalid_urls(url: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        RedisBroker(url)


def test_the_address_in_the_repr() -> None:
    broker = RedisBroker("rediss+cluster://u:secret@One.test,[::1]:5/0")
    assert repr(broker) == "<RedisBroker at the cluster of one.test:6379, [::1]:5>"
