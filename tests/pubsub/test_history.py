"""The history of brokers, and resuming from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from tests.pubsub.helpers import SECONDS, joined, opened, read, served
from tests.pubsub.redis_server import RealRedis
from trioglock import BrokerError, InvalidOption, connect
from trioglock.pubsub import Broker, Gap, Hub, MemoryBroker, Message, RedisBroker, publish
from trioglock.pubsub.history import History

Maker = Callable[[int], Broker]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def broker(request: pytest.FixtureRequest) -> Maker:
    """Return a function that makes a broker with a history of so many messages."""
    if request.param == "memory":
        return lambda history: MemoryBroker(history=history)
    redis: RealRedis = request.getfixturevalue("redis")
    return lambda history: redis.broker(history=history)


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
        assert len(nothing_missed) == 0


async def test_a_gap_where_the_history_is_too_short(broker: Maker) -> None:
    """The history follows it, even if it is longer than the queue of the subscriber."""
    async with opened(broker(5), max_queue=2) as hub:
        first = hub.subscribe("x", max_queue=100)
        for number in range(8):
            await hub.publish(str(number), channel="x")
        seen = await first.__anext__()
        await read(first, 7)
        again = hub.subscribe("x", after=seen.id, gaps=True)
        assert await read(again, 6) == [Gap(0.0), "3", "4", "5", "6", "7"]
        without = hub.subscribe("x", after=seen.id)
        assert await read(without, 5) == ["3", "4", "5", "6", "7"]
        with pytest.raises(InvalidOption, match="'nonsense' is not the id"):
            hub.subscribe("x", after="nonsense")


async def test_a_client_resumes(broker: Maker) -> None:
    """``?after=`` selects JSON, ``?after=<id>`` also requests missed messages."""
    hub = Hub(broker=broker(4))
    async with served(hub) as url:
        url += "x?after="
        async with connect(url) as client:
            await joined(hub, 1)
            await hub.publish("one", channel="x")
            await hub.publish(b"\xff", channel="x")
            one, binary = [json.loads(await client.receive()) for _ in range(2)]
        assert one == {"id": one["id"], "channel": "x", "data": "one"}
        assert binary == {"id": binary["id"], "channel": "x", "base64": "/w=="}
        await joined(hub, 0)
        await hub.publish("missed", channel="x")
        await hub.publish("other", channel="y")
        async with connect(url + one["id"]) as client:
            await joined(hub, 1)
            await hub.publish("now", channel="x")
            got = [json.loads(await client.receive()) for _ in range(3)]
            texts = [message.get("data", "binary") for message in got]
            assert texts == ["binary", "missed", "now"]
        await hub.publish("too many", channel="x")
        await wait_newest(hub, "too many")
        for after in (one["id"], "1-1", "nonsense"):
            async with connect(url + after) as client:
                assert json.loads(await client.receive()) == {"gap": 0.0}


async def wait_newest(hub: Hub, data: str) -> None:
    """Wait until this message is the newest of the history."""
    while hub.history.messages[-1].data != data:
        await trio.sleep(0.001)


async def test_resuming_without_a_history_is_a_gap() -> None:
    hub = Hub()
    async with served(hub) as url, connect(url + "x?after=1-1") as client:
        assert json.loads(await client.receive()) == {"gap": 0.0}
        await hub.publish("x", channel="x")
        expected = {"id": None, "channel": "x", "data": "x"}
        assert json.loads(await client.receive()) == expected


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
            assert len(hub.history.messages) == 3


@pytest.mark.slow
async def test_an_outage_of_the_network_loses_nothing(redis: RealRedis) -> None:
    """There is no gap, and no duplicate."""
    with trio.fail_after(SECONDS):
        async with (
            Hub(broker=redis.broker(history=100)) as hub,
            Hub(broker=RedisBroker(redis.url, history=100)) as other,
        ):
            subscription = hub.subscribe("x", gaps=True)
            await other.publish("before", channel="x")
            assert await read(subscription, 1) == ["before"]
            redis.freeze()
            await trio.sleep(0.8)
            redis.thaw()
            for number in range(3):
                await other.publish(str(number), channel="x")
            assert await read(subscription, 3) == ["0", "1", "2"]
            assert hub.statistics().gaps == 0


async def test_a_redis_that_lost_its_stream_is_a_gap(redis: RealRedis) -> None:
    async with opened(redis.broker(history=100)) as hub:
        subscription = hub.subscribe("x", gaps=True)
        await hub.publish("before", channel="x")
        assert await read(subscription, 1) == ["before"]
        redis.kill()
        redis.start()
        assert isinstance(await subscription.__anext__(), Gap)
        await hub.publish("after", channel="x")
        assert await read(subscription, 1) == ["after"]


async def test_other_programs_add_to_the_stream(redis: RealRedis) -> None:
    """With publish(history=...), or with XADD and the two fields."""
    async with opened(redis.broker(history=2)) as hub:
        subscription = hub.subscribe("x")
        for text in ("one", "two", "three"):
            call = partial(publish, text, "x", url=redis.url, history=2)
            await trio.to_thread.run_sync(call)
        assert await read(subscription, 3) == ["one", "two", "three"]
        stream = await trio.open_tcp_stream("127.0.0.1", redis.port)
        async with stream:
            await stream.send_all(b"XADD trioglock * channel x data plain\r\n")
            await stream.send_all(b"XADD trioglock * other fields\r\n")
            assert await read(subscription, 1) == ["plain"]
            assert await subscription.__anext__() == Message("", "", hub.history.last)


async def test_a_key_that_is_not_a_stream_is_an_error(redis: RealRedis) -> None:
    with trio.fail_after(SECONDS):
        stream = await trio.open_tcp_stream("127.0.0.1", redis.port)
        async with stream:
            await stream.send_all(b"SET trioglock mine\r\n")
            await stream.receive_some()
            with pytest.raises(BrokerError, match="WRONGTYPE"):
                async with Hub(broker=redis.broker(history=2)):
                    pass


def test_ids_are_pairs_of_numbers() -> None:
    """They are ordered as in Redis, and the second number is optional."""
    history = History(10)
    for number in (9, 10, 11):
        history.add(Message("x", str(number), f"100-{number}"))
    assert [message.data for message in history.after("100-9").messages] == ["10", "11"]
    assert not history.after("100").complete
    assert history.after("101").messages == ()
    for bad in ("", "-1", "a-b", "1-1-1", "٣-1", "9" * 30):
        with pytest.raises(InvalidOption, match="is not the id"):
            history.after(bad)


def test_resuming_across_an_interruption_is_incomplete() -> None:
    """Before the next message, and after it."""
    history = History(10)
    for number in (1, 2):
        history.add(Message("x", str(number), f"1-{number}"))
    history.interrupt()
    assert not history.after("1-2").complete
    history.add(Message("x", "9", "1-9"))
    assert not history.after("1-2").complete
    assert history.after("1-9").complete


@pytest.mark.parametrize("path", ["%2A", "[p]rivate", "privat%3F"])
async def test_a_path_is_not_a_pattern_in_the_history(path: str) -> None:
    hub = Hub(broker=MemoryBroker(history=10))
    async with served(hub) as url:
        await hub.publish("secret", channel="private")
        await hub.publish("broadcast")
        async with connect(f"{url}{path}?after=0") as client:
            assert json.loads(await client.receive()) == {"gap": 0.0}
            assert json.loads(await client.receive())["data"] == "broadcast"


async def test_a_client_of_a_hub_that_is_ahead_receives_no_duplicates(redis: RealRedis) -> None:
    """This hub skips messages that the client received from the other hub."""
    ahead = 2**62
    hub = Hub(broker=redis.broker(history=100))
    async with served(hub) as url:
        await hub.publish("old", channel="x")
        await wait_newest(hub, "old")
        after = f"{ahead}-2"
        subscription = hub.subscribe("x", after=after, gaps=True)
        async with connect(f"{url}x?after={after}") as client:
            await joined(hub, 2)
            stream = await trio.open_tcp_stream("127.0.0.1", redis.port)
            async with stream:
                for number in range(1, 5):
                    entry = f"XADD trioglock {ahead}-{number} channel x data {number}\r\n"
                    await stream.send_all(entry.encode())
                assert await read(subscription, 2) == ["3", "4"]
                got = [json.loads(await client.receive())["data"] for _ in range(2)]
                assert got == ["3", "4"]


async def test_an_unknown_id_skips_no_messages() -> None:
    """In one process no hub is ahead: the client receives a gap and all new messages."""
    hub = Hub(broker=MemoryBroker(history=10))
    async with served(hub) as url, connect(f"{url}x?after={2**62}-1") as client:
        assert json.loads(await client.receive()) == {"gap": 0.0}
        await hub.publish("now", channel="x")
        assert json.loads(await client.receive())["data"] == "now"


async def test_a_stream_trimmed_before_it_was_read_is_a_gap(redis: RealRedis) -> None:
    """A hub that lags by no more than the extra entries misses nothing."""
    async with opened(redis.broker(history=10), max_queue=5000) as hub:
        subscription = hub.subscribe("x", gaps=True)
        await hub.publish("first", channel="x")
        first = await subscription.__anext__()
        assert isinstance(first, Message)
        assert first.id is not None
        for count in (500, 1500):
            # Blocks, so that the hub cannot read in the meantime.
            redis.send_plainly(
                *(
                    f"XADD trioglock MAXLEN 510 * channel x data {count}-{number}"
                    for number in range(count)
                )
            )
            await wait_newest(hub, f"{count}-{count - 1}")
            got = await read(subscription, len(subscription))
            gaps = [event for event in got if isinstance(event, Gap)]
            assert (len(got) == count) is (not gaps) is (count == 500)
            assert got[-1] == f"{count}-{count - 1}"
        assert not hub.history.after(first.id).complete


async def test_each_name_has_a_history_of_its_own(autojump_clock: MockClock) -> None:
    broker = MemoryBroker(history=5)
    async with Hub("a", broker) as a, Hub("b", broker) as b:
        await a.publish("a")
        assert (len(a.history.messages), len(b.history.messages)) == (1, 0)
