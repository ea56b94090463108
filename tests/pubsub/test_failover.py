"""Failover to another Redis server, and servers that are not masters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.pubsub.address import Address, address_of
from tests.pubsub.helpers import SECONDS, opened, read
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import BrokerError, BrokerUnavailable
from trioglock.pubsub import Gap, Hub, Message, RedisBroker, Subscription, publish

pytestmark = [pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
def servers() -> Iterator[tuple[RealRedis, RealRedis]]:
    """A master and its replica."""
    fast = ("--repl-diskless-sync-delay", "0")
    with real_redis(*fast) as master, real_redis(*fast) as replica:
        replica.follow(master)
        yield master, replica


def fail_over(address: Address, old: RealRedis, new: RealRedis) -> None:
    """The old master is demoted and stays up; the address leads to the new one."""
    new.promote()
    address.target = new
    old.follow(new)


async def read_until(events: Subscription[Message | Gap], data: str) -> list[Message | Gap]:
    found = [await events.__anext__()]
    while not (isinstance(found[-1], Message) and found[-1].data == data):
        found.append(await events.__anext__())
    return found


Servers = tuple[RealRedis, RealRedis]


@pytest.mark.parametrize("history", [None, 100])
async def test_fault_30_a_demoted_master_is_left(servers: Servers, history: int | None) -> None:
    """By publishers and by hubs that only listen; each gets a gap and all later messages."""
    old, new = servers
    async with (
        address_of(old) as address,
        opened(address.broker(history=history)) as hub,
        opened(address.broker(history=history)) as other,
    ):
        loops = [one.subscribe("x", gaps=True) for one in (hub, other)]
        await hub.publish("before", channel="x")
        for loop in loops:
            assert await read(loop, 1) == ["before"]
        fail_over(address, old, new)
        await hub.publish("published", channel="x")
        while not (hub.statistics().gaps and other.statistics().gaps):
            await trio.sleep(0.01)
        await hub.publish("after", channel="x")
        for loop in loops:
            events = await read_until(loop, "after")
            [gap] = [event for event in events if isinstance(event, Gap)]
            assert (gap.id is None) is (history is None)
            texts = [event.data for event in events if isinstance(event, Message)]
            assert texts[0] == "published"
        assert "name=" not in remove_replication(old.ask("CLIENT LIST"))


def remove_replication(clients: str) -> str:
    """The clients that are neither replicas nor masters, nor the one that asks."""
    lines = clients.splitlines()
    return "\n".join(
        line
        for line in lines
        if "cmd=client" not in line and "flags=S" not in line and "flags=M" not in line
    )


@pytest.mark.parametrize("history", [None, 100])
async def test_fault_30_publish_without_trio_finds_the_master(
    servers: Servers, history: int | None
) -> None:
    """Also if the old one accepts the message; without a master it is an error."""
    old, new = servers
    async with address_of(old) as address:
        call = partial(publish, channel="x", url=address.url, history=history)
        await trio.to_thread.run_sync(call, "before")
        async with opened(new_broker(new, history)) as hub:
            fail_over(address, old, new)
            loop = hub.subscribe("x")
            await trio.to_thread.run_sync(call, "after")
            assert await read(loop, 1) == ["after"]
        address.target = old
        with pytest.raises(BrokerUnavailable, match="not a master"):
            await trio.to_thread.run_sync(
                partial(publish, "x", "x", url=old.url, history=history, timeout=0.3)
            )


def new_broker(server: RealRedis, history: int | None) -> RedisBroker:
    server.promote()
    return server.broker(history=history)


@pytest.mark.parametrize("history", [None, 100])
async def test_fault_55_a_replica_is_no_broker(servers: Servers, history: int | None) -> None:
    """The hub waits until it is the master, and then says why it is not."""
    old, new = servers
    with pytest.raises(BrokerUnavailable) as caught:
        async with Hub(broker=new.broker(history=history, open_timeout=0.3)):
            pass
    assert f"is a replica of 127.0.0.1:{old.port}" in str(caught.value.__cause__)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            broker = new.broker(history=history, open_timeout=5)
            nursery.start_soon(hold_open, Hub(broker=broker), nursery.cancel_scope)
            await trio.sleep(0.2)
            new.promote()


async def hold_open(hub: Hub, scope: trio.CancelScope) -> None:
    async with hub:
        await hub.publish("x")
    scope.cancel()


async def test_fault_55_messages_of_a_split_are_delivered_or_a_gap(servers: Servers) -> None:
    """What only the new master has follows a gap; there is one after ids of the old master too."""
    old, new = servers
    async with address_of(old) as address, opened(address.broker(history=100)) as hub:
        loop = hub.subscribe("x", gaps=True)
        await hub.publish("before", channel="x")
        assert await read(loop, 1) == ["before"]
        new.promote()
        await hub.publish("lost", channel="x")  # the new master never gets it
        lost = await loop.__anext__()
        await trio.sleep(0.01)  # ids are times
        for number in range(6):
            await trio.to_thread.run_sync(
                partial(publish, str(number), "x", url=new.url, history=100)
            )
        address.target = new
        old.follow(new)
        await hub.publish("after", channel="x")
        events = await read_until(loop, "after")
        assert isinstance(events[0], Gap)
        assert [event.data for event in events[1:] if isinstance(event, Message)] == [
            *map(str, range(6)),
            "after",
        ]
        assert isinstance(lost, Message)
        again = hub.subscribe("x", after=lost.id, gaps=True)
        assert isinstance(await again.__anext__(), Gap)


async def test_connections_lead_to_one_server(redis: RealRedis) -> None:
    """If one of them is opened again and leads to another server, so must the other."""
    with real_redis() as second:
        async with address_of(redis) as address, opened(address.broker()) as hub:
            loop = hub.subscribe("x", gaps=True)
            address.target = second
            redis.send_plainly("CLIENT KILL TYPE normal")
            assert isinstance(await loop.__anext__(), Gap)
            await hub.publish("here", channel="x")
            assert await read(loop, 1) == ["here"]


@pytest.mark.parametrize("history", [None, 100])
async def test_a_user_who_may_not_ask_for_the_role(history: int | None) -> None:
    user = "--user default on nopass +@all -role -info allchannels ~*"
    with real_redis(*user.split()) as redis:
        async with opened(redis.broker(history=history, health_interval=0.2)) as hub:
            loop = hub.subscribe("x")
            await hub.publish("one", channel="x")
            await trio.sleep(0.3)
            await hub.publish("two", channel="x")
            assert await read(loop, 2) == ["one", "two"]
            call = partial(publish, "three", "x", url=redis.url, history=history)
            await trio.to_thread.run_sync(call)
            assert await read(loop, 1) == ["three"]


async def test_fault_58_a_cluster_is_refused_with_a_history(tmp_path: Path) -> None:
    """Without one, any of its servers carries the messages."""
    options = ("--cluster-enabled", "yes", "--cluster-config-file", str(tmp_path / "nodes.conf"))
    with real_redis(*options) as redis, trio.fail_after(SECONDS):
        with pytest.raises(BrokerError, match=r"requires .* for a history: redis\+cluster://"):
            async with Hub(broker=redis.broker(history=10)):
                pass
        with pytest.raises(BrokerError, match=r"requires .* for a history: redis\+cluster://"):
            await trio.to_thread.run_sync(partial(publish, "x", url=redis.url, history=10))
        async with Hub(broker=redis.broker()) as hub:
            loop = hub.subscribe("x")
            await hub.publish("one", channel="x")
            await trio.to_thread.run_sync(partial(publish, "two", "x", url=redis.url))
            assert await read(loop, 2) == ["one", "two"]


@pytest.mark.parametrize("history", [None, 10])
async def test_fault_58_a_sentinel_is_refused(tmp_path: Path, history: int | None) -> None:
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text("")
    with (
        real_redis("--sentinel", configuration=configuration) as sentinel,
        trio.fail_after(SECONDS),
    ):
        with pytest.raises(BrokerError, match="is a Redis Sentinel: use redis"):
            async with Hub(broker=sentinel.broker(history=history)):
                pass
        with pytest.raises(BrokerError, match="is a Redis Sentinel"):
            await trio.to_thread.run_sync(partial(publish, "x", url=sentinel.url, history=history))
