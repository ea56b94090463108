"""Subscription by interest: Redis sends a process only the channels with local subscribers."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import pytest
import trio

from tests.pubsub.address import address_of
from tests.pubsub.helpers import SECONDS, opened, read, served
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import BrokerError, HandshakeRefused, connect
from trioglock.pubsub import Gap, Hub, HubSocket, Message, publish
from trioglock.server import serve

pytestmark = pytest.mark.redis


def channels_of(redis: RealRedis) -> set[str]:
    """The channels that any client is subscribed to."""
    return {line for line in redis.ask("PUBSUB CHANNELS").splitlines() if "trioglock" in line}


async def unsubscribed(redis: RealRedis, name: str) -> None:
    while name in channels_of(redis):
        await trio.sleep(0.01)


@pytest.mark.parametrize("history", [None, 10])
async def test_a_process_receives_only_channels_with_subscribers(
    redis: RealRedis, history: int | None
) -> None:
    """Broadcasts in any case; nothing more when the last subscriber has left."""
    async with (
        opened(redis.broker(history=history)) as hub,
        opened(redis.broker(history=history)) as other,
    ):
        one, two = hub.subscribe("news"), hub.subscribe("news")
        await one.ready()
        assert channels_of(redis) == {
            prefix + name for prefix in ("trioglock/", "{trioglock}/") for name in ("", "news")
        }
        assert redis.ask("PUBSUB NUMPAT").startswith(":0")
        for channel in ("news", "busy", ""):
            await other.publish(channel, channel=channel)
        assert await read(one, 2) == await read(two, 2) == ["news", ""]
        assert hub.statistics().received == 2
        one.close()
        await other.publish("again", channel="news")
        assert await read(two, 1) == ["again"]
        two.close()
        await other.publish("unread", channel="news")
        await unsubscribed(redis, "trioglock/news")
        await unsubscribed(redis, "{trioglock}/news")


@pytest.mark.parametrize("history", [None, 10])
async def test_each_subscriber_receives_a_message_once(
    redis: RealRedis, history: int | None
) -> None:
    """Whatever combination of the channel and patterns matches it, and as these come and go."""
    async with (
        opened(redis.broker(history=history), max_queue=10_000) as hub,
        opened(redis.broker(history=history)) as other,
        trio.open_nursery() as nursery,
    ):
        always = [hub.subscribe(pattern) for pattern in ("news/a", "news/*", "by/*", "*/patterns")]
        for subscription in always:
            await subscription.ready()
        done = trio.Event()

        async def come_and_go(pattern: str) -> None:
            while not done.is_set():
                with hub.subscribe(pattern) as subscription:
                    await subscription.ready()
                    numbers = await read(subscription, 3)
                    assert len(set(numbers)) == 3

        for pattern in ("news/?", "*a", "[n]ews/*", "news/a"):
            nursery.start_soon(come_and_go, pattern)
        count = 200
        for number in range(count):
            await other.publish(str(number), channel="by/patterns")
            await other.publish(str(number), channel="news/a")
            redis.publish_plainly("trioglock/news/a", b"plain %d" % number)
        done.set()
        expected = [text for number in range(count) for text in (str(number), f"plain {number}")]
        for subscription in always[:2]:
            assert sorted(await read(subscription, len(expected))) == sorted(expected)
        for subscription in always[2:]:
            assert await read(subscription, count) == [str(number) for number in range(count)]
        for number in range(3):  # for those that are still reading
            await other.publish(f"end {number}", channel="news/a")


async def test_a_pattern_is_a_subscription_of_its_own(redis: RealRedis) -> None:
    """It ends with its last subscriber, also with one that is garbage collected."""
    async with opened(redis.broker(health_interval=0.05)) as hub:
        one, two = hub.subscribe("news/*"), hub.subscribe("news/*")
        await one.ready()
        assert redis.ask("PUBSUB NUMPAT").startswith(":2")  # the other one is for ids
        one.close()
        del two
        gc.collect()
        while not redis.ask("PUBSUB NUMPAT").startswith(":0"):
            await trio.sleep(0.01)


async def test_the_next_subscriber_is_confirmed_again(redis: RealRedis) -> None:
    """An earlier subscription that ends at the same time does not interfere."""
    async with opened(redis.broker()) as hub:
        for number in range(300):
            with hub.subscribe("x") as subscription:
                await subscription.ready()
                assert hub.is_subscribed("x")
                redis.publish_plainly("trioglock/x", b"%d" % number)
                [received] = await read(subscription, 1)
                if received == "unread":  # it was on its way
                    [received] = await read(subscription, 1)
                assert received == str(number)
            if number % 3 == 0:
                await hub.publish("unread", channel="x")  # this ends the subscription at Redis
            if number % 7 == 0:
                await trio.sleep(0.002)


async def test_many_channels_share_commands(redis: RealRedis) -> None:
    async with opened(redis.broker()) as hub, trio.open_nursery() as nursery:
        before = commands(redis, "subscribe")
        subscriptions = [hub.subscribe(f"x{number}") for number in range(2500)]
        for subscription in subscriptions:
            nursery.start_soon(subscription.ready)
        await subscriptions[-1].ready()
        assert commands(redis, "subscribe") - before <= 2 * 4
        assert len(channels_of(redis)) == 2 * 2501


def commands(redis: RealRedis, name: str) -> int:
    """How often a command was called."""
    [line] = [
        line
        for line in redis.ask("INFO commandstats").splitlines()
        if line.startswith(f"cmdstat_{name}:")
    ]
    return int(line.partition("calls=")[2].partition(",")[0])


async def test_listeners_are_subscribed_when_the_hub_is_open(redis: RealRedis) -> None:
    """To channels and patterns; `publish()` in another program reaches them."""
    hub = Hub(broker=redis.broker())
    received: list[Any] = []
    hub.on("x")(received.append)
    hub.on("y/*")(received.append)
    with trio.fail_after(SECONDS):
        async with hub:
            for channel in ("x", "y/1", "z"):
                call = partial(publish, "text", channel, url=redis.url)
                await trio.to_thread.run_sync(call)
            while len(received) < 2:
                await trio.sleep(0.001)
    assert received == [Message("x", "text"), Message("y/1", "text")]


@pytest.mark.slow
@pytest.mark.parametrize("history", [None, 100])
async def test_everything_is_subscribed_again_after_an_outage(
    redis: RealRedis, history: int | None
) -> None:
    """Before a subscriber receives a gap; new subscriptions wait for it."""
    async with opened(redis.broker(history=history)) as hub:
        old = [hub.subscribe(name, gaps=True) for name in ("x", "y*", "quiet")]
        for subscription in old:
            await subscription.ready()
        redis.kill()
        while hub.statistics().broker_up:
            await trio.sleep(0.01)
        new = hub.subscribe("new", gaps=True)
        with trio.move_on_after(0.1) as scope:
            await new.ready()
        assert scope.cancelled_caught
        redis.start()
        await new.ready()
        for subscription in (*old, new):
            assert isinstance(await subscription.__anext__(), Gap)
        for channel in ("x", "y1", "quiet", "new"):
            redis.publish_plainly(f"trioglock/{channel}", channel.encode())
        assert [(await read(one, 1))[0] for one in (*old, new)] == ["x", "y1", "quiet", "new"]


@pytest.mark.slow
async def test_messages_missed_by_each_channel_are_delivered(redis: RealRedis) -> None:
    """From the history: only those of channels with subscribers, and no others are read."""
    async with (
        address_of(redis) as address,
        opened(address.broker(history=2)) as hub,
        opened(redis.broker(history=2)) as other,
    ):
        short, quiet = (hub.subscribe(name, gaps=True) for name in ("short", "quiet"))
        for subscription in (short, quiet):
            await subscription.ready()
        address.cut()
        while hub.statistics().broker_up:
            await trio.sleep(0.001)
        for number in range(4):
            await other.publish(str(number), channel="short")
            await other.publish(str(number), channel="others")
        await other.publish("one", channel="quiet")
        address.release()
        gap, *found = await read(short, 3)
        assert isinstance(gap, Gap)
        assert gap.channel == "short"
        assert found == ["2", "3"]
        assert await read(quiet, 1) == ["one"]
        assert hub.statistics().received == 3


async def test_permission_for_channels_but_not_for_patterns() -> None:
    """The rule of an ACL permits a pattern only if it is the same: then the hub uses that."""
    user = "--user default on nopass resetchannels +@all &trioglock* &{trioglock}* ~{trioglock}*"
    with real_redis(*user.split()) as redis:
        for history in (None, 5):
            async with opened(redis.broker(history=history)) as hub:
                loop, literal = hub.subscribe("news/*"), hub.subscribe("news/a")
                await loop.ready()
                await literal.ready()
                for channel in ("news/a", "other", "news/b"):
                    await hub.publish(channel, channel=channel)
                assert await read(loop, 2) == ["news/a", "news/b"]
                assert await read(literal, 1) == ["news/a"]


async def test_a_channel_without_permission_is_an_error() -> None:
    """Other channels are not affected."""
    user = "--user default on nopass resetchannels +@all &trioglock/ &trioglock/a &trioglock/b"
    with real_redis(*user.split()) as redis:
        hub = Hub(broker=redis.broker())
        async with served(hub) as url:
            one, bad, two = (hub.subscribe(name) for name in ("a", "secret", "b"))
            for subscription in (one, two):
                await subscription.ready()
            with pytest.raises(BrokerError, match="NOPERM"):
                await bad.ready()
            redis.publish_plainly("trioglock/a", b"a")
            assert await read(one, 1) == ["a"]
            with pytest.raises(HandshakeRefused, match="503"):
                async with connect(f"{url}secret"):
                    pass


class Room(HubSocket):
    def channel_of(self, request: Any) -> str:
        return f"rooms/{super().channel_of(request)}"


@pytest.mark.parametrize("history", [None, 10])
async def test_a_client_of_a_subclass_gets_the_next_publish(
    redis: RealRedis, history: int | None
) -> None:
    hub = Hub(broker=redis.broker(history=history))
    with trio.fail_after(SECONDS):
        async with hub, serve(hub.socket_of(Room), "127.0.0.1", 0) as server:
            for number in range(20):
                async with connect(f"ws://127.0.0.1:{server.port}/{number}") as client:
                    redis.publish_plainly(f"trioglock/rooms/{number}", b"text")
                    assert await client.receive() == "text"
