"""The history of brokers, and resuming from it."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.pubsub.address import address_of
from tests.pubsub.helpers import SECONDS, joined, opened, read, served
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock import BrokerError, Connection, InvalidOption, connect
from trioglock.pubsub import Broker, Gap, Hub, MemoryBroker, Message, RedisBroker, publish
from trioglock.pubsub.history import MemoryHistory, Retention, id_before, parse_id
from trioglock.pubsub.patterns import ChannelFilter

Maker = Callable[..., Broker]

FUTURE = f"{2**62}-1"


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def broker(request: pytest.FixtureRequest) -> Maker:
    """Return a function that makes a broker with a history of so many messages."""
    if request.param == "memory":
        return lambda history, **options: MemoryBroker(history=history, **options)
    redis: RealRedis = request.getfixturevalue("redis")
    return lambda history, **options: redis.broker(history=history, **options)


async def receive_json(client: Connection[Any], count: int = 1) -> list[Any]:
    return [json.loads(await client.receive()) for _ in range(count)]


async def delivered(hub: Hub, message_id: str | None = None) -> None:
    """Wait until the hub has received a message, by default all that it has published."""
    if message_id is None:
        marker = hub.subscribe("marker")
        await hub.publish("", channel="marker")
        message_id = (await marker.__anext__()).id
        assert message_id is not None
    while parse_id(hub.history.last) < parse_id(message_id):
        await trio.sleep(0.001)


async def test_resuming_after_an_id(broker: Maker) -> None:
    """Missed messages on the channel and missed broadcasts precede new messages."""
    async with opened(broker(100)) as hub:
        first = hub.subscribe("x")
        for number in range(3):
            await hub.publish(f"x{number}", channel="x")
        await hub.publish("other", channel="y")
        await hub.publish("all")
        seen = await first.__anext__()
        await read(first, 3)
        again = hub.subscribe("x", after=seen.id, gaps=True)
        await hub.publish("now", channel="x")
        assert await read(again, 4) == ["x1", "x2", "all", "now"]
        by_pattern = hub.subscribe("?", after=seen.id)
        assert await read(by_pattern, 5) == ["x1", "x2", "other", "all", "now"]
        nothing_missed = hub.subscribe("x", after=hub.history.last, gaps=True)
        await hub.publish("next", channel="x")
        assert await read(nothing_missed, 1) == ["next"]


async def test_a_gap_where_the_history_is_too_short(broker: Maker) -> None:
    """The history follows it, even if it is longer than the queue of the subscriber."""
    async with opened(broker(5), max_queue=2) as hub:
        first = hub.subscribe("x", max_queue=100)
        for number in range(8):
            await hub.publish(str(number), channel="x")
        seen = await first.__anext__()
        await read(first, 7)
        again = hub.subscribe("x", after=seen.id, gaps=True)
        gap, third = await again.__anext__(), await again.__anext__()
        assert third.id is not None
        assert gap == Gap(0.0, id_before(third.id))
        assert await read(again, 4) == ["4", "5", "6", "7"]
        after_gap = hub.subscribe("x", after=gap.id, gaps=True)
        without = hub.subscribe("x", after=seen.id)
        for subscription in (after_gap, without):
            assert await read(subscription, 5) == ["3", "4", "5", "6", "7"]
        with pytest.raises(InvalidOption, match="'nonsense' is not the id"):
            hub.subscribe("x", after="nonsense")


async def test_many_missed_messages_are_read_in_portions(broker: Maker) -> None:
    """Of several channels, in order, and followed by new ones without a gap or duplicates."""
    async with opened(broker(1000), max_queue=8) as hub, trio.open_nursery() as nursery:
        start = hub.history.last
        sent = [f"{number}" for number in range(500)]
        for number in sent[:350]:
            await hub.publish(number, channel=f"c{int(number) % 3}")
        late = hub.subscribe("c?", after=start, gaps=True)

        async def publish_rest() -> None:
            for number in sent[350:]:
                await hub.publish(number, channel=f"c{int(number) % 3}")

        nursery.start_soon(publish_rest)
        assert await read(late, 500) == sent


@pytest.mark.slow
async def test_interrupted_loops_lose_nothing(
    broker: Maker, request: pytest.FixtureRequest
) -> None:
    """Slow loops that are cancelled and resume, new channels, and lost connections to Redis.

    Only those that receive are lost: a message that is published again would arrive twice.
    """
    random, count = Random(1), 600
    redis: RealRedis | None = None
    options: dict[str, Any] = {}
    if request.node.callspec.params["broker"] == "redis":
        redis = request.getfixturevalue("redis")
        options["health_timeout"] = 30
    async with (
        opened(broker(5000, **options)) as hub,
        opened(broker(5000, **options), max_queue=6) as other,
    ):
        reading = hub if redis is None else other
        start = reading.history.last

        async def read_all() -> None:
            got: list[int] = []
            last: str | None = start
            while not got or got[-1] != count - 1:
                with reading.subscribe("c*", gaps=True, after=last, max_queue=6) as loop:
                    for _ in range(random.randrange(1, 100)):
                        if got and got[-1] == count - 1:
                            break
                        if random.random() < 0.05:
                            await trio.sleep(0.02 * random.random())
                        with trio.move_on_after(random.choice([0.0005, 0.1])):
                            event = await loop.__anext__()
                            assert isinstance(event, Message)
                            last = event.id
                            got.append(int(event.data))
            assert got == list(range(count))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(read_all)
            for number in range(count):
                await hub.publish(str(number), channel=f"c{number % 7}")
                if redis is not None and number % 150 == 100:
                    await trio.to_thread.run_sync(redis.send_plainly, "CLIENT KILL TYPE pubsub")


async def test_a_client_resumes(broker: Maker) -> None:
    """``?after=`` selects JSON, ``?after=<id>`` also requests missed messages."""
    hub = Hub(broker=broker(4))
    async with served(hub) as url:
        url += "x?after="
        async with connect(url) as client:
            [confirmed] = await receive_json(client)
            assert confirmed == {"subscribed": "x", "id": hub.history.last}
            await hub.publish("one", channel="x")
            await hub.publish(b"\xff", channel="x")
            one, binary = await receive_json(client, 2)
        assert one == {"id": one["id"], "channel": "x", "data": "one"}
        assert binary == {"id": binary["id"], "channel": "x", "base64": "/w=="}
        await joined(hub, 0)
        await hub.publish("missed", channel="x")
        await hub.publish("other", channel="y")
        async with connect(url + one["id"]) as client:
            assert await receive_json(client) == [{"subscribed": "x", "id": one["id"]}]
            await hub.publish("now", channel="x")
            got = await receive_json(client, 3)
            texts = [message.get("data", "binary") for message in got]
            assert texts == ["binary", "missed", "now"]
        for _ in range(2):
            await hub.publish("too many", channel="x")
        await delivered(hub)
        for after in (one["id"], "1-1"):
            async with connect(url + after) as client:
                _, gap, first = await receive_json(client, 3)
                assert gap == {"gap": 0.0, "id": id_before(first["id"])}
                assert first["data"] == "missed"
        async with connect(url + "nonsense") as client:
            now = hub.history.last
            assert await receive_json(client, 2) == [
                {"subscribed": "x", "id": now},
                {"gap": 0.0, "id": now},
            ]


async def test_after_0_all_that_is_kept_comes_first(broker: Maker) -> None:
    """Without a gap, even if older messages are no longer kept: the client has missed none."""
    hub = Hub(broker=broker(2))
    async with served(hub) as url:
        url += "x?after="
        async with connect(url + "0") as client:  # before the first message
            [empty] = await receive_json(client)
            await hub.publish("1", channel="x")
            assert [one["data"] for one in await receive_json(client)] == ["1"]
        await joined(hub, 0)
        for number in range(2, 6):
            await hub.publish(str(number), channel="x")
            await hub.publish(f"all {number}")
        await delivered(hub)
        async with connect(url + "0") as client:
            confirmed, *kept = await receive_json(client, 5)
            assert [one["data"] for one in kept] == ["4", "all 4", "5", "all 5"]
            assert confirmed == {"subscribed": "x", "id": id_before(kept[0]["id"])}
            await hub.publish("6", channel="x")
            assert [one["data"] for one in await receive_json(client)] == ["6"]
        subscription = hub.subscribe("x", after="0", gaps=True)
        assert await read(subscription, 4) == ["all 4", "5", "all 5", "6"]
        # A client that was connected has been promised all that follows.
        async with connect(url + empty["id"]) as client:
            _, gap, first = await receive_json(client, 3)
            assert gap == {"gap": 0.0, "id": id_before(first["id"])}


async def test_after_0_a_client_without_messages_resumes_without_a_gap(broker: Maker) -> None:
    hub = Hub(broker=broker(10))
    async with served(hub) as url:
        await hub.publish("not for it", channel="y")
        await delivered(hub)
        async with connect(f"{url}x?after=0") as client:
            [confirmed] = await receive_json(client)
        await joined(hub, 0)
        await hub.publish("meanwhile", channel="x")
        async with connect(f"{url}x?after={confirmed['id']}") as client:
            _, missed = await receive_json(client, 2)
            assert missed["data"] == "meanwhile"


async def test_after_0_without_a_history_there_is_no_gap() -> None:
    hub = Hub()
    async with served(hub) as url, connect(f"{url}x?after=0") as client:
        assert await receive_json(client) == [{"subscribed": "x", "id": None}]
        await hub.publish("now", channel="x")
        assert (await receive_json(client))[0]["data"] == "now"


async def test_fault_53_a_client_without_messages_has_an_id(broker: Maker) -> None:
    """It resumes where it began to listen, also before the first message of the hub."""
    hub = Hub(broker=broker(10))
    async with served(hub) as url:
        for before in ([], ["not for it"]):
            for text in before:
                await hub.publish(text, channel="x")
                await delivered(hub)
            async with connect(f"{url}x?after=") as client:
                [confirmed] = await receive_json(client)
            await joined(hub, 0)
            await hub.publish("meanwhile", channel="x")
            async with connect(f"{url}x?after={confirmed['id']}") as client:
                _, missed = await receive_json(client, 2)
                assert missed["data"] == "meanwhile"
            await joined(hub, 0)


async def test_fault_54_a_loud_channel_does_not_displace_others(broker: Maker) -> None:
    """Nor do messages that clients send; a quiet channel has no gap, whatever the others do."""
    hub = Hub(broker=broker(5))
    async with served(hub) as url:
        await hub.publish("quiet", channel="quiet")
        async with connect(f"{url}quiet?after=0") as client:
            _, quiet = await receive_json(client, 2)
            for number in range(20):
                await hub.publish(str(number), channel="loud")
                await client.send(str(number))
            await client.ping()
        await joined(hub, 0)
        await delivered(hub)
        assert await hub.history.latest(ChannelFilter("incoming"), 10) == []
        assert await hub.history.latest(ChannelFilter("nothing*"), 10) == []
        for after in (id_before(quiet["id"]), quiet["id"], hub.history.last):
            async with connect(f"{url}quiet?after={after}") as client:
                await hub.publish("now")
                expected = ["quiet", "now"] if after == id_before(quiet["id"]) else ["now"]
                got = await receive_json(client, 1 + len(expected))
                assert [event.get("data") for event in got] == [None, *expected]
            await joined(hub, 0)
            quiet["id"] = hub.history.last


async def test_fault_54_messages_are_kept_for_some_time(broker: Maker) -> None:
    """Longer absence is a gap with an id, which is not repeated."""
    async with opened(broker(5, history_seconds=0.2)) as hub:
        start = hub.history.last
        await hub.publish("old", channel="x")
        await delivered(hub)
        await trio.sleep(0.3)
        await hub.publish("new", channel="y")
        await delivered(hub)
        gap = await hub.subscribe("x", after=start, gaps=True).__anext__()
        assert gap == Gap(0.0, hub.history.last)
        again = hub.subscribe("x", after=gap.id, gaps=True)
        await hub.publish("now", channel="x")
        assert await read(again, 1) == ["now"]


async def test_fault_56_an_id_from_the_future_is_a_gap(broker: Maker) -> None:
    """All new messages follow it."""
    hub = Hub(broker=broker(10))
    async with served(hub) as url:
        for after in (FUTURE, f"{10**20 - 1}-{10**20 - 1}"):
            subscription = hub.subscribe("x", after=after, gaps=True)
            async with connect(f"{url}x?after={after}") as client:
                gap = await subscription.__anext__()
                assert gap == Gap(0.0, hub.history.last)
                _, told = await receive_json(client, 2)
                assert told == {"gap": 0.0, "id": gap.id}
                await hub.publish("now", channel="x")
                assert await read(subscription, 1) == ["now"]
                assert (await receive_json(client))[0]["data"] == "now"


async def test_fault_56_any_number_resumes(broker: Maker) -> None:
    """Also one that is too great for an id of Redis."""
    async with opened(broker(10)) as hub:
        await hub.publish("missed", channel="x")
        await delivered(hub)
        subscription = hub.subscribe("x", after=f"1-{10**20 - 1}")
        assert await read(subscription, 1) == ["missed"]


@pytest.mark.slow
async def test_fault_57_many_clients_resume_quickly(broker: Maker) -> None:
    """The effort depends on what they missed, not on the length of the history."""
    async with opened(broker(10_000)) as hub, trio.open_nursery() as nursery:
        for batch in range(3):
            async with trio.open_nursery() as publishers:
                for number in range(1000):
                    publishers.start_soon(hub.publish, f"{batch} {number}", "x")
        await delivered(hub)
        start = hub.history.last
        await hub.publish("missed", channel="x")
        await delivered(hub)
        began = time.process_time()
        subscriptions = [hub.subscribe("x", after=start, gaps=True) for _ in range(1000)]

        async def read_one(subscription: Any) -> None:
            assert await read(subscription, 1) == ["missed"]

        async with trio.open_nursery() as readers:
            for subscription in subscriptions:
                readers.start_soon(read_one, subscription)
        assert time.process_time() - began < 2
        nursery.cancel_scope.cancel()


async def test_fault_57_a_message_is_sent_to_each_process_without_reading(redis: RealRedis) -> None:
    """Redis executes no command for it but the publisher's."""
    one, two = (redis.broker(history=10, health_interval=60) for _ in range(2))
    async with opened(one) as hub, opened(two) as other:
        subscriptions = [hub.subscribe("x"), other.subscribe("x")]
        redis.send_plainly("CONFIG RESETSTAT")
        for number in range(10):
            await hub.publish(str(number), channel="x")
        for subscription in subscriptions:
            assert await read(subscription, 10) == [str(number) for number in range(10)]
        commands = redis.ask("INFO commandstats")
        assert "cmdstat_xadd:calls=10" in commands
        assert "xread" not in commands
        assert "xrange" not in commands


async def test_resuming_without_a_history_is_a_gap() -> None:
    hub = Hub()
    async with served(hub) as url, connect(url + "x?after=1-1") as client:
        expected: list[dict[str, object]] = [
            {"subscribed": "x", "id": None},
            {"gap": 0.0, "id": None},
        ]
        assert await receive_json(client, 2) == expected
        await hub.publish("x", channel="x")
        assert await receive_json(client) == [{"id": None, "channel": "x", "data": "x"}]


async def test_the_history_in_redis_outlives_the_hub(redis: RealRedis) -> None:
    with trio.fail_after(SECONDS):
        async with Hub(broker=redis.broker(history=3)) as hub:
            subscription = hub.subscribe("x")
            for number in range(5):
                await hub.publish(str(number), channel="x")
            await read(subscription, 3)
            seen = await subscription.__anext__()
        async with Hub(broker=redis.broker(history=3)) as hub:
            assert await read(hub.subscribe("x", after=seen.id, gaps=True), 1) == ["4"]
            kept = await hub.history.latest(ChannelFilter("x"), 10)
            assert [message.data for message in kept] == ["2", "3", "4"]


@pytest.mark.slow
async def test_an_outage_of_the_network_loses_nothing(redis: RealRedis) -> None:
    """There is no gap, and no duplicate."""
    with trio.fail_after(SECONDS):
        async with (
            Hub(broker=redis.broker(history=100, health_interval=0.2, health_timeout=0.3)) as hub,
            Hub(broker=redis.broker(history=100)) as other,
        ):
            subscription = hub.subscribe("x", gaps=True)
            await other.publish("before", channel="x")
            assert await read(subscription, 1) == ["before"]
            redis.freeze()
            while hub.statistics().broker_up:
                await trio.sleep(0.01)
            redis.thaw()
            for number in range(3):
                await other.publish(str(number), channel="x")
            assert await read(subscription, 3) == ["0", "1", "2"]
            assert hub.statistics().gaps == 0


@pytest.mark.slow
async def test_messages_missed_while_disconnected_are_delivered(redis: RealRedis) -> None:
    """Also more than one portion of them; a gap only for ``incoming``, which has no history."""
    async with opened(redis.broker(history=1000), max_queue=2000) as hub:
        events, clients = hub.subscribe("x", gaps=True), hub.subscribe("incoming", gaps=True)
        await hub.publish("before", channel="x")
        assert await read(events, 1) == ["before"]
        call = partial(publish, channel="x", url=redis.url, history=1000)
        redis.send_plainly("MULTI", "CLIENT KILL TYPE pubsub", "CLIENT PAUSE 100 ALL", "EXEC")
        for number in range(600):
            await trio.to_thread.run_sync(call, str(number))
        assert await read(events, 600) == [str(number) for number in range(600)]
        gap = await clients.__anext__()
        assert isinstance(gap, Gap)
        assert gap.channel == "incoming"
        assert hub.statistics().gaps == 1


async def test_a_redis_that_lost_its_history_is_a_gap(redis: RealRedis) -> None:
    async with opened(redis.broker(history=100)) as hub:
        subscription = hub.subscribe("x", gaps=True)
        await hub.publish("before", channel="x")
        before = await subscription.__anext__()
        redis.kill()
        redis.start()
        gap = await subscription.__anext__()
        assert isinstance(gap, Gap)
        assert gap.id == hub.history.last
        await hub.publish("after", channel="x")
        assert await read(subscription, 1) == ["after"]
        assert isinstance(before, Message)
        again = hub.subscribe("x", after=before.id, gaps=True)
        assert [type(await again.__anext__()) for _ in range(2)] == [Gap, Message]
        redis.send_plainly("FLUSHALL")
        deleted = hub.subscribe("x", after=hub.history.last, gaps=True)
        assert isinstance(await deleted.__anext__(), Gap)
        await hub.publish("new", channel="x")
        for one in (subscription, deleted):
            got = await read(one, 1)
            while got[-1] != "new":
                got += await read(one, 1)
            assert all(isinstance(event, Gap) for event in got[:-1])


async def test_other_programs_publish_with_a_history(redis: RealRedis) -> None:
    async with opened(redis.broker(history=2)) as hub:
        subscription = hub.subscribe("x")
        start = hub.history.last
        for text in ("one", "two", "three"):
            call = partial(publish, text, "x", url=redis.url, history=2)
            await trio.to_thread.run_sync(call)
        assert await read(subscription, 3) == ["one", "two", "three"]
        again = hub.subscribe("x", after=start)
        assert await read(again, 2) == ["two", "three"]


async def test_publishers_with_and_without_a_history(
    redis: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Hubs receive the messages of both; those that are not kept are logged, once."""
    async with opened(redis.broker(history=2)) as hub, opened(redis.broker()) as other:
        subscriptions = [hub.subscribe("x"), other.subscribe("x")]
        for subscription in subscriptions:
            await subscription.ready()
        for text in ("one", "two"):
            redis.publish_plainly("trioglock/x", text.encode())
        redis.publish_plainly("{trioglock}/x", b"not from this package")
        await hub.publish("three", channel="x")
        for subscription in subscriptions:
            assert await read(subscription, 3) == ["one", "two", "three"]
        assert caplog.text.count("is not in the history") == 1
        redis.send_plainly("CLIENT KILL TYPE pubsub")
        gaps = hub.subscribe("x", gaps=True)
        gap = await gaps.__anext__()
        assert isinstance(gap, Gap)
        assert gap.channel is None


async def test_a_key_that_is_not_a_stream_is_an_error(redis: RealRedis) -> None:
    with trio.fail_after(SECONDS):
        redis.send_plainly("SET {trioglock} mine")
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            async with Hub(broker=redis.broker(history=2)):
                pass


@pytest.mark.slow
async def test_a_restart_of_redis_is_one_gap_of_a_subscriber_far_behind(tmp_path: Path) -> None:
    """It reads several pages. All messages are there, but Redis may have lost others."""
    configuration = tmp_path / "redis.conf"
    configuration.write_text('appendonly yes\nsave ""\n')
    with real_redis(configuration=configuration) as redis:
        async with opened(redis.broker(history=1000)) as hub:
            start = hub.history.last
            for number in range(200):
                await hub.publish(str(number), channel="news")
            redis.kill()
            redis.start()
            await hub.publish("new", channel="news")
            news = hub.subscribe("news", after=start, gaps=True)
            events = [await news.__anext__() for _ in range(202)]
    data = [event.data for event in events if isinstance(event, Message)]
    assert data == [*map(str, range(200)), "new"]
    assert sum(isinstance(event, Gap) for event in events) == 1


async def test_a_history_that_cannot_be_read_is_a_gap(redis: RealRedis) -> None:
    """New messages follow it."""
    async with opened(redis.broker(history=10)) as hub:
        start = hub.history.last
        await hub.publish("before", channel="x")
        redis.send_plainly("ACL SETUSER default -xrange")
        again = hub.subscribe("x", after=start, gaps=True)
        assert await again.__anext__() == Gap(0.0, start)
        await hub.publish("now", channel="x")
        assert "now" in await read(again, 1)


async def test_a_subscription_that_is_behind_ends_with_the_hub(broker: Maker) -> None:
    """It does not wait for a broker that is no longer there."""
    with trio.fail_after(SECONDS):
        async with Hub(broker=broker(10)) as hub:
            await hub.publish("before", channel="x")
            subscription = hub.subscribe("x", after=hub.history.last, gaps=True)
            await hub.publish("behind", channel="x")
        assert len([event async for event in subscription]) <= 2


async def test_the_channels_that_were_quiet_longest_are_forgotten(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond ``history_bytes``, also those that are kept without a time limit."""
    broker = MemoryBroker(history=10, history_seconds=None, history_bytes=2**18)
    async with Hub(broker=broker) as hub:
        start = hub.history.last
        await hub.publish("one", channel="quiet")
        await hub.publish("one", channel="busy")
        tracemalloc.start()
        for number in range(2000):
            await hub.publish("one", channel=f"channel {number}")
            if number % 20 == 0:
                await hub.publish(str(number), channel="busy")
        assert tracemalloc.get_traced_memory()[0] < 2**20
        tracemalloc.stop()
        missed = await hub.history.after(start, ChannelFilter("quiet"), 10)
        assert (missed.messages, missed.complete) == ((), False)
        latest = await hub.history.latest(ChannelFilter("busy"), 10)
        assert [one.data for one in latest] == [str(number) for number in range(1800, 2000, 20)]
        assert latest[0].id is not None
        assert (await hub.history.after(latest[0].id, ChannelFilter("busy"), 10)).complete
        for _ in range(10):
            await hub.publish("x" * 25_000, channel="loud")
        assert len(await hub.history.latest(ChannelFilter("loud"), 10)) == 5
        assert (await hub.history.latest(ChannelFilter("channel 1999"), 10)) != []
    assert caplog.text.count("the history has reached 256 KiB") == 1


@pytest.mark.parametrize("options", [{"history": 0}, {"history": 5, "history_seconds": 0}])
def test_invalid_arguments(options: dict[str, Any]) -> None:
    for make in (MemoryBroker, RedisBroker):
        with pytest.raises(InvalidOption, match="history"):
            make(**options)


async def test_ids_are_pairs_of_numbers(autojump_clock: MockClock) -> None:
    """They are ordered as in Redis, and the second number is optional."""
    assert parse_id("100-9") < parse_id("100-10") < parse_id("101")
    assert [id_before(one) for one in ("5-3", "5-0", "0-0")] == ["5-2", f"4-{2**64 - 1}", "0-0"]
    history = MemoryHistory()
    for bad in ("", "-1", "a-b", "1-1-1", "٣-1", "9" * 30):
        with pytest.raises(InvalidOption, match="is not the id"):
            await history.after(bad, ChannelFilter("x"), 10)


async def test_channels_are_removed_after_their_own_time(autojump_clock: MockClock) -> None:
    """Whatever is kept longer than they are, and was published before."""
    history = MemoryHistory()
    first = history.add("long", "one", Retention(10, 1000))
    history.add("unlimited", "one", Retention(10, None))
    for number in range(100):
        history.add(f"short {number}", "one", Retention(10, 1))
        await trio.sleep(0.5)
    last = history.add("long", "two", Retention(10, 1000))
    assert len(history._others.by_channel) <= 5
    assert (await history.after("0", ChannelFilter("short 5", everyone=False), 9)).complete is False
    assert first.id is not None
    missed = await history.after(first.id, ChannelFilter("long", everyone=False), 9)
    assert (missed.messages, missed.complete) == ((last,), True)


@pytest.mark.redis
async def test_messages_that_redis_has_not_removed_yet_are_not_delivered(redis: RealRedis) -> None:
    """Redis removes messages that are too old when others are published."""
    async with opened(redis.broker(history=1000, history_seconds=60)) as hub:
        now, _ = parse_id(hub.history.last)
        redis.send_plainly(
            *(
                f"XADD {{trioglock}}/x {now - 100_000}-{number} data old"
                for number in range(1, 600)
            ),
            *(f"XADD {{trioglock}}/x {now}-{number} data new" for number in range(1, 4)),
            f"XADD {{trioglock}}/y {now}-4 data newer",
            f"HSET {{trioglock}} born 1-0 last {now}-4",
            f"ZADD {{trioglock}}:channels {now} x {now} y",
        )
        for pattern, expected in {"x": ["new"] * 3, "*": ["new"] * 3 + ["newer"]}.items():
            for after in (f"{now - 100_000}-0", f"{now - 100_000}-300"):
                gap, *found = await read(
                    hub.subscribe(pattern, after=after, gaps=True), 1 + len(expected)
                )
                assert gap == Gap(0.0, f"{now}-0")
                assert found == expected
            kept = hub.subscribe(pattern, after=f"{now - 50_000}-0", gaps=True)
            assert await read(kept, len(expected)) == expected
            latest = await hub.history.latest(ChannelFilter(pattern), 100)
            assert [message.data for message in latest] == expected
        everything = await hub.history.after(f"{now - 100_000}-0", ChannelFilter("x"), 16)
        assert (len(everything.messages), everything.more) == (3, False)


@pytest.mark.redis
async def test_a_pattern_whose_messages_have_all_expired_is_a_gap(redis: RealRedis) -> None:
    """Redis then knows the channel no longer. The newest message of the hub is never missing."""
    async with opened(redis.broker(history=10, history_seconds=60)) as hub:
        now, _ = parse_id(hub.history.last)
        redis.send_plainly(f"HSET {{trioglock}} born 1-0 last {now}-1 kept 60000")
        complete = [
            (await hub.history.after(after, ChannelFilter("x*"), 10)).complete
            for after in (f"{now - 100_000}-0", f"{now - 30_000}-0")
        ]
        assert complete == [False, True]
        redis.send_plainly(f"HSET {{trioglock}} last {now - 100_000}-1")
        assert (await hub.history.after(f"{now - 100_000}-1", ChannelFilter("x*"), 10)).complete


@pytest.mark.redis
async def test_an_outage_of_an_idle_hub_is_no_gap(redis: RealRedis) -> None:
    """The last message is older than history_seconds, but the connection was lost only now."""
    broker = redis.broker(history=10, history_seconds=60)
    async with opened(broker) as hub:
        now, _ = parse_id(hub.history.last)
    old = f"{now - 100_000}-1"
    redis.send_plainly(f"HSET {{trioglock}} born 1-0 last {old} kept 60000")
    async with opened(broker) as hub:
        assert hub.history.last == old
        subscription = hub.subscribe("x", gaps=True)
        await subscription.ready()
        redis.send_plainly(
            "MULTI",
            "CLIENT KILL TYPE pubsub",
            f"XADD {{trioglock}}/x {now}-7 data missed",
            f"HSET {{trioglock}} last {now}-7",
            f"ZADD {{trioglock}}:channels {now} x",
            "EXEC",
        )
        assert await read(subscription, 1) == ["missed"]


@pytest.mark.redis
async def test_a_message_need_not_wait_for_all_that_read_the_history(redis: RealRedis) -> None:
    async with opened(redis.broker(history=10)) as hub, trio.open_nursery() as nursery:
        done = list[None]()

        async def read_history() -> None:
            await hub.history.latest(ChannelFilter("x"), 1)
            done.append(None)

        for _ in range(2000):
            nursery.start_soon(read_history)
        await trio.lowlevel.checkpoint()
        await hub.publish("message", channel="x")
        assert len(done) < 500


def test_a_broker_keeps_its_messages_from_one_run_to_the_next() -> None:
    """The clock of each run begins at a random time."""
    broker = MemoryBroker(history=100, history_seconds=3600)

    async def count(number: int, seconds: float = 0) -> int:
        async with Hub(broker=broker) as hub:
            await trio.sleep(seconds)
            await hub.publish(f"message {number}")
            return len(await hub.history.latest(ChannelFilter("x"), 100))

    assert [trio.run(count, number) for number in range(10)] == list(range(1, 11))
    assert trio.run(count, 10, 1800, clock=MockClock(autojump_threshold=0)) == 11
    assert trio.run(count, 11) == 12


def test_messages_also_become_old_between_two_runs() -> None:
    broker = MemoryBroker(history=100, history_seconds=0.05)

    async def publish(data: str) -> list[Any]:
        async with Hub(broker=broker) as hub:
            await hub.publish(data)
            return [one.data for one in await hub.history.latest(ChannelFilter("x"), 100)]

    trio.run(publish, "first")
    time.sleep(0.06)
    assert "first" not in trio.run(publish, "second")


@pytest.mark.parametrize("path", ["%2A", "[p]rivate", "privat%3F"])
async def test_a_path_is_not_a_pattern_in_the_history(path: str) -> None:
    hub = Hub(broker=MemoryBroker(history=10))
    async with served(hub) as url:
        await hub.publish("secret", channel="private")
        await hub.publish("broadcast")
        async with connect(f"{url}{path}?after=0") as client:
            _, message = await receive_json(client, 2)
            assert message["data"] == "broadcast"


async def test_a_client_of_a_hub_that_is_ahead_receives_no_duplicates(redis: RealRedis) -> None:
    """This hub skips messages that the client received from the other hub."""
    hub = Hub(broker=redis.broker(history=100))
    async with served(hub) as url:
        born = hub.history.last
        ahead = parse_id(born)[0] + 1_000_000
        for number in range(1, 5):  # in the history, but this hub has not received them yet
            redis.send_plainly(f"XADD {{trioglock}}/x {ahead}-{number} data {number}")
        redis.send_plainly(f"HSET {{trioglock}} last {ahead}-4")
        after = f"{ahead}-2"
        subscription = hub.subscribe("x", after=after, gaps=True)
        async with connect(f"{url}x?after={after}") as client:
            assert await read(subscription, 2) == ["3", "4"]
            assert [one.get("data") for one in await receive_json(client, 3)] == [None, "3", "4"]
            for number in range(1, 6):
                payload = f"{ahead}-{number} {born} {number}"
                redis.publish_plainly("{trioglock}/x", payload.encode())
            assert await read(subscription, 1) == ["5"]
            assert (await receive_json(client))[0]["data"] == "5"


async def test_each_name_has_a_history_of_its_own(autojump_clock: MockClock) -> None:
    broker = MemoryBroker(history=5)
    async with Hub("a", broker) as a, Hub("b", broker) as b:
        await a.publish("a")
        kept = [await hub.history.latest(ChannelFilter("*"), 10) for hub in (a, b)]
        assert [len(messages) for messages in kept] == [1, 0]


@pytest.mark.redis
async def test_a_gap_does_not_precede_messages_that_are_read_later(redis: RealRedis) -> None:
    """A slow loop receives a gap of an outage: it may resume after any id and misses nothing."""
    async with address_of(redis) as address:
        async with opened(address.broker(history=100), max_queue=3, overflow="resume") as hub:
            slow, other = hub.subscribe("x", gaps=True), hub.subscribe("x")
            await slow.ready()
            redis.publish_plainly("trioglock/x", b"has no id")
            await read(other, 1)
            for number in range(5):
                await hub.publish(f"{number}", channel="x")
            await read(other, 5)
            address.cut()
            while hub.statistics().broker_up:
                await trio.sleep(0.001)
            address.release()
            while not hub.statistics().broker_up:
                await trio.sleep(0.001)
            await hub.publish("5", channel="x")
            await read(other, 1)
            events = [await slow.__anext__() for _ in range(8)]
        found = [event.data for event in events if isinstance(event, Message)]
        assert found == ["has no id", *"012345"]
        assert [event.id for event in events if isinstance(event, Gap)] == [None]
