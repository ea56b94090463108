"""Sharded publishing and subscribing: refused channels, large messages, busy nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.pubsub.helpers import opened, read
from tests.pubsub.redis_cluster import slot_of
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import Backoff, BrokerError, BrokerUnavailable
from trioglock.pubsub import Gap, RedisBroker
from trioglock.pubsub.patterns import ChannelFilter
from trioglock.pubsub.redis.interest import MAX_LOGGED
from trioglock.pubsub.redis.pipeline import MAX_PENDING
from trioglock.pubsub.redis.scripts import SERVER_SCALE

pytestmark = pytest.mark.redis


@contextmanager
def small_cluster(*ranges: tuple[int, int]) -> Iterator[list[RealRedis]]:
    """Masters without replicas, each with a range of slots."""
    with ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
        nodes = [stack.enter_context(real_redis(*options, version=7)) for _ in ranges]
        for number, (node, (first, last)) in enumerate(zip(nodes, ranges, strict=True), 1):
            node.send_plainly(
                f"CLUSTER ADDSLOTSRANGE {first} {last}",
                f"CLUSTER SET-CONFIG-EPOCH {number}",
                f"CLUSTER MEET 127.0.0.1 {nodes[0].port}",
            )
        yield nodes


@pytest.fixture(scope="module")
def single() -> Iterator[RealRedis]:
    with small_cluster((0, 16383)) as [node]:
        yield node


@pytest.fixture
def node(single: RealRedis) -> RealRedis:
    """A node that serves all slots, without data or restrictions."""
    single.ask("ACL SETUSER default allchannels allkeys allcommands")
    single.ask("FLUSHALL")
    return single


def sharded(node: RealRedis, **options: Any) -> RedisBroker:
    backoff = Backoff(initial=0.02, maximum=0.1, max_attempts=None, jitter="none")
    url = f"redis+cluster://127.0.0.1:{node.port}"
    return RedisBroker(url, sharded=True, backoff=backoff, **options)


def subscribers(node: RealRedis, name: str) -> int:
    return int(node.ask(f"PUBSUB SHARDNUMSUB {name}").split()[-1].removeprefix(":"))


async def wait_unsubscribed(node: RealRedis, name: str) -> None:
    """Redis 8.0 refuses to unsubscribe as long as a new cluster is not ready."""
    with trio.fail_after(20):
        while subscribers(node, name):
            await trio.sleep(0.01)


def channel_in(slots: range) -> str:
    names = (f"channel{number}" for number in range(1000))
    return next(name for name in names if slot_of(f"trioglock/{name}") in slots)


async def test_a_subscription_that_ends_twice_before_the_next_batch(node: RealRedis) -> None:
    async with opened(sharded(node, health_interval=0.05)) as hub:
        first = hub.subscribe("news")
        await first.ready()
        first.close()
        hub.subscribe("news").close()
        other = hub.subscribe("other")
        await other.ready()
        await wait_unsubscribed(node, "trioglock/news")
        assert subscribers(node, "trioglock/other") == 1


async def test_a_refused_unsubscription_is_repeated(node: RealRedis) -> None:
    async with opened(sharded(node, health_interval=0.05)) as hub:
        with hub.subscribe("news") as subscription:
            await subscription.ready()
            node.ask("ACL SETUSER default -sunsubscribe")
        other = hub.subscribe("other")
        await other.ready()
        assert subscribers(node, "trioglock/news") == 1
        node.ask("ACL SETUSER default +sunsubscribe")
        await wait_unsubscribed(node, "trioglock/news")
        await wait_unsubscribed(node, "{trioglock/news}")
        assert subscribers(node, "trioglock/other") == 1


@pytest.mark.slow
@pytest.mark.parametrize("history", [None, 10])
async def test_a_channel_that_is_no_longer_permitted(node: RealRedis, history: int | None) -> None:
    """Its subscribers receive a gap, and it is subscribed again when it is permitted again."""
    async with opened(sharded(node, history=history)) as hub:
        loops = {name: hub.subscribe(name, gaps=True) for name in ("news", "other")}
        for loop in loops.values():
            await loop.ready()
        node.send_plainly(
            "ACL SETUSER default resetchannels &trioglock/other &{trioglock/other}",
            "CLIENT KILL TYPE pubsub",
        )
        assert isinstance(await loops["news"].__anext__(), Gap)
        with pytest.raises(BrokerError, match="NOPERM"):
            await loops["news"].ready()
        await loops["other"].ready()
        node.send_plainly("ACL SETUSER default allchannels", "CLIENT KILL TYPE pubsub")
        for name, loop in loops.items():
            while True:
                with suppress(BrokerError):
                    await loop.ready()
                    break
                await trio.sleep(0.01)
            await hub.publish("text", name)
        for loop in loops.values():
            events = await read(loop, 1 if history else 2)
            assert events[-1] == "text"
            assert history or isinstance(events[0], Gap)


async def test_clients_cannot_fill_the_log_with_refused_channels(
    node: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    node.send_plainly("ACL SETUSER default resetchannels")
    async with opened(sharded(node)) as hub:
        for number in (*range(MAX_LOGGED + 10), 0):
            with (
                hub.subscribe(f"secret{number}") as subscription,
                pytest.raises(BrokerError, match="NOPERM"),
            ):
                await subscription.ready()
    assert len(caplog.messages) == MAX_LOGGED


async def test_only_documented_commands_are_necessary(node: RealRedis) -> None:
    node.ask("ACL SETUSER default -echo")
    async with opened(sharded(node)) as hub:
        hub.subscribe("first").close()
        for name in ("second", "third"):
            with hub.subscribe(name) as subscription, trio.fail_after(5):
                await subscription.ready()


@pytest.mark.slow
async def test_missed_messages_are_read_in_small_pages(node: RealRedis) -> None:
    """Redis disconnects a subscriber for whom too much data waits."""
    async with opened(sharded(node, history=100)) as hub:
        loop = hub.subscribe("news", gaps=True)
        await loop.ready()
        texts = [str(number).zfill(50_000) for number in range(40)]
        node.send_plainly(  # blocks this process
            "CONFIG SET client-output-buffer-limit 'pubsub 500kb 500kb 1'",
            "CLIENT KILL TYPE pubsub",
            *(f"XADD {{trioglock/news}} * data {text}" for text in texts),
        )
        gap, *messages = await read(loop, 41)
        assert isinstance(gap, Gap)  # they are not from this package
        assert messages == texts


@pytest.mark.slow
async def test_missed_messages_of_many_channels(node: RealRedis) -> None:
    async with opened(sharded(node, history=10)) as hub:
        loops = [hub.subscribe(f"news{number}", gaps=True) for number in range(16)]
        for loop in loops:
            await loop.ready()
        text = "x" * 50_000
        node.send_plainly(  # blocks this process
            "CONFIG SET client-output-buffer-limit 'pubsub 500kb 500kb 1'",
            "CLIENT KILL TYPE pubsub",
            *(f"XADD {{trioglock/news{number}}} * data {text}" for number in range(16)),
        )
        for loop in loops:
            gap, message = await read(loop, 2)
            assert isinstance(gap, Gap)
            assert message == text


@pytest.mark.slow
@pytest.mark.parametrize("reads", [False, True])
async def test_a_busy_node_does_not_delay_others(*, reads: bool) -> None:
    with small_cluster((0, 8191), (8192, 16383)) as nodes:
        names = [channel_in(range(8192)), channel_in(range(8192, 16384))]
        async with (
            opened(sharded(nodes[1], history=10)) as hub,
            trio.open_nursery() as nursery,
        ):

            async def use(name: str) -> None:
                if reads:
                    await hub.history.latest(ChannelFilter(name), 1)
                else:
                    await hub.publish("text", name)

            for name in names:
                await use(name)
            nodes[0].freeze()
            for _ in range(MAX_PENDING + 1):
                nursery.start_soon(use, names[0])
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(2):
                await use(names[1])
            nodes[0].thaw()


@pytest.mark.slow
async def test_a_slot_that_has_been_moved_away_and_back(node: RealRedis) -> None:
    """The messages of the other node are between gaps."""
    async with opened(sharded(node, history=10)) as hub:
        loop = hub.subscribe("news")
        await loop.ready()
        start = hub.history.last_of("news")
        await hub.publish("one", "news")
        first = await loop.__anext__()
        assert first.id is not None
        milliseconds, number = map(int, first.id.split("-"))
        node.ask(f"XADD {{trioglock/news}} {milliseconds + 1}-{number + SERVER_SCALE} data two")
        await trio.sleep(0.01)
        await hub.publish("three", "news")
        events = await read(hub.subscribe("news", after=start, gaps=True), 5)
        assert [None if isinstance(one, Gap) else one for one in events] == [
            *("one", None, "two", None, "three")
        ]


@pytest.mark.slow
async def test_publishing_fails_when_the_hub_is_closed() -> None:
    with small_cluster((0, 16383)) as [node]:
        failed = list[str]()

        async def publish(channel: str) -> None:
            with pytest.raises(BrokerUnavailable, match="the hub is closed"):
                await hub.publish("text", channel)
            failed.append(channel)

        async with trio.open_nursery() as nursery:
            async with opened(sharded(node, publish_timeout=None)) as hub:
                await hub.publish("text", "any")
                node.freeze()
                loop = hub.subscribe("subscribed")
                for channel in ("other", "subscribed"):
                    nursery.start_soon(publish, channel)
                await trio.testing.wait_all_tasks_blocked()
                loop.close()
            with trio.fail_after(300):
                while len(failed) < 2:
                    await trio.sleep(0.01)
        node.thaw()


async def test_publishing_does_not_wait_for_a_subscription_that_has_ended(
    node: RealRedis,
) -> None:
    async with opened(sharded(node)) as hub, trio.open_nursery() as nursery:
        for number in range(3):  # with and without a connection to the node
            channel = f"channel{number}"
            with hub.subscribe(channel):
                nursery.start_soon(hub.publish, "text", channel)
                for _ in range(number):
                    await trio.sleep(0)
        with trio.fail_after(300):
            while nursery.child_tasks:
                await trio.sleep(0.01)
