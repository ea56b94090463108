"""The hub within one process: delivery, subscriptions, overflow, listeners, invalid arguments."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.pubsub.helpers import read
from trioglock import InvalidFrame, InvalidOption, SlowConsumer, UsageError
from trioglock.frames import Data
from trioglock.pubsub import (
    BrokerSession,
    Gap,
    Hub,
    MemoryBroker,
    Message,
    SubscriberOverflow,
    Subscription,
    on,
)
from trioglock.pubsub.history import parse_id


async def test_a_message_reaches_its_channel_and_matching_patterns(
    autojump_clock: MockClock,
) -> None:
    async with Hub() as hub:
        news, sports, any_news = map(hub.subscribe, ("news", "sports", "news*"))
        for number in range(3):
            await hub.publish(f"n{number}", channel="news")
        await hub.publish(b"\xff", channel="news/local")
        await hub.publish("goal", channel="sports")
        assert await read(news, 3) == ["n0", "n1", "n2"]
        assert await read(any_news, 4) == ["n0", "n1", "n2", b"\xff"]
        assert await read(sports, 1) == ["goal"]
        assert (len(news), len(any_news), len(sports)) == (0, 0, 0)


async def test_a_message_without_a_channel_is_a_broadcast(autojump_clock: MockClock) -> None:
    async with Hub() as hub:
        subscriptions = [hub.subscribe(name) for name in ("news", "a/*", "x?[yz]")]
        await hub.publish("broadcast")
        for subscription in subscriptions:
            assert await subscription.__anext__() == Message("", "broadcast")


async def test_a_broker_connects_hubs_of_one_name(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with Hub("app", broker) as one, Hub("app", broker) as two, Hub("apple", broker) as other:
        subscriptions = [hub.subscribe("x") for hub in (one, two, other)]
        await one.publish("from one", channel="x")
        assert [len(subscription) for subscription in subscriptions] == [1, 1, 0]


async def test_a_message_can_be_published_without_waiting(autojump_clock: MockClock) -> None:
    """The memory broker delivers it before the call returns; other brokers refuse by default."""
    broker = MemoryBroker(history=10)
    async with Hub(broker=broker) as hub, Hub(broker=broker) as other:
        subscriptions = [one.subscribe("x") for one in (hub, other)]
        assert hub.publish_nowait("text", channel="x")
        assert [len(subscription) for subscription in subscriptions] == [1, 1]
        assert hub.history.last == (await subscriptions[0].__anext__()).id
        with pytest.raises(InvalidOption):
            hub.publish_nowait("text", channel="/x")
    with pytest.raises(UsageError, match="not open"):
        hub.publish_nowait("text")

    class Remote(BrokerSession):
        async def publish(self, channel: str, data: Data) -> None:
            raise AssertionError

    assert not Remote().publish_nowait("x", "text")


async def test_a_buffer_is_copied(autojump_clock: MockClock) -> None:
    async with Hub() as hub:
        subscription = hub.subscribe("x")
        buffer = bytearray(b"before")
        await hub.publish(buffer, channel="x")
        buffer[:] = b"after!"
        assert await read(subscription, 1) == [b"before"]


# Subscriptions.


async def test_a_loop_ends_after_the_last_message_of_a_closed_hub(
    autojump_clock: MockClock,
) -> None:
    hub = Hub()
    async with hub:
        subscription = hub.subscribe("x")
        await hub.publish("last", channel="x")
    assert [message.data async for message in subscription] == ["last"]


async def test_a_waiting_loop_ends_with_the_hub(autojump_clock: MockClock) -> None:
    hub = Hub()

    async def loop() -> None:
        async for _ in subscription:
            pass

    async with trio.open_nursery() as nursery, hub:
        subscription = hub.subscribe("x")
        nursery.start_soon(loop)
        await wait_all_tasks_blocked()


async def test_a_closed_or_collected_subscription_receives_nothing(
    autojump_clock: MockClock,
) -> None:
    async with Hub() as hub:
        with hub.subscribe("x") as subscription:
            assert hub.statistics().subscribers == 1
        await hub.publish("late", channel="x")
        assert [message async for message in subscription] == []
        abandoned = hub.subscribe("y")
        await hub.publish("y", channel="y")
        async for _ in abandoned:
            break
        del abandoned
        gc.collect()
        assert hub.statistics().subscribers == 0


async def test_a_cancelled_wait_loses_nothing(autojump_clock: MockClock) -> None:
    async with Hub() as hub:
        subscription = hub.subscribe("x")
        with trio.move_on_after(1):
            await subscription.__anext__()
        await hub.publish("kept", channel="x")
        with trio.move_on_after(0):
            await subscription.__anext__()
        assert await read(subscription, 1) == ["kept"]


# Overflow.


async def test_drop_oldest(autojump_clock: MockClock) -> None:
    """Other subscribers are not affected."""
    async with Hub(max_queue=3) as hub:
        slow, roomy = hub.subscribe("x"), hub.subscribe("x", max_queue=10)
        for number in range(5):
            await hub.publish(str(number), channel="x")
        assert slow.dropped == hub.statistics().dropped == 2
        assert await read(slow, 3) == ["2", "3", "4"]
        assert await read(roomy, 5) == ["0", "1", "2", "3", "4"]


async def test_drop_newest(autojump_clock: MockClock) -> None:
    async with Hub(max_queue=3, overflow="drop_newest") as hub:
        slow = hub.subscribe("x")
        for number in range(5):
            await hub.publish(str(number), channel="x")
        assert slow.dropped == hub.statistics().dropped == 2
        assert await read(slow, 3) == ["0", "1", "2"]
        await hub.publish("5", channel="x")
        assert await read(slow, 1) == ["5"]


async def test_keep_latest(autojump_clock: MockClock) -> None:
    """The newest message of each channel is kept, in the position of the first."""
    async with Hub(overflow="keep_latest", max_queue=2) as hub:
        slow = hub.subscribe("*")
        for channel, text in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("a", "a3")]:
            await hub.publish(text, channel=channel)
        assert await read(slow, 2) == ["a3", "b1"]
        for channel in "abc":
            await hub.publish(channel, channel=channel)
        assert await read(slow, 2) == ["b", "c"]
        assert slow.dropped == 3


async def test_close_on_overflow(autojump_clock: MockClock) -> None:
    """The loop yields the queued messages before it raises."""
    async with Hub() as hub:
        slow = hub.subscribe("x", overflow="close", max_queue=2)
        for number in range(4):
            await hub.publish(str(number), channel="x")
        assert await read(slow, 2) == ["0", "1"]
        with pytest.raises(SlowConsumer, match="max_queue=2"):
            await slow.__anext__()


LONG = "x" * 1000

LIMITED: dict[SubscriberOverflow, tuple[list[str], int]] = {
    "resume": (["3", "4", "5"], 3),
    "drop_oldest": (["3", "4", "5"], 3),
    "drop_newest": (["0", "1", "2"], 3),
    "close": (["0", "1", "2"], 0),
}


@pytest.mark.parametrize("overflow", LIMITED)
async def test_fault_45_a_queue_is_bounded_in_bytes(
    overflow: SubscriberOverflow, autojump_clock: MockClock
) -> None:
    """It is full at that size as well; one message fits, however long it is."""
    kept, dropped = LIMITED[overflow]
    async with Hub(max_queue_bytes=2500, overflow=overflow) as hub:
        slow = hub.subscribe("x")
        for number in range(6):
            await hub.publish(f"{number}{LONG}", channel="x")
        assert [text[0] for text in await read(slow, len(slow))] == kept
        assert slow.dropped == dropped
        if overflow == "close":
            with pytest.raises(SlowConsumer, match="max_queue_bytes=2500"):
                await slow.__anext__()
            return
        for text in ("short", "y" * 10_000):
            await hub.publish(text, channel="x")
        assert await read(slow, 2) == ["short", "y" * 10_000]


async def test_fault_45_the_latest_messages_are_bounded_in_bytes(
    autojump_clock: MockClock,
) -> None:
    """The newest message of a channel is kept; what it replaces no longer counts."""
    async with Hub(max_queue_bytes=2500, overflow="keep_latest") as hub:
        slow = hub.subscribe("*")
        for _ in range(10):
            for channel in "ab":
                await hub.publish(f"{channel}{LONG}", channel=channel)
        assert slow.dropped == 18
        await hub.publish(f"A{LONG * 3}", channel="a")
        assert [text[0] for text in await read(slow, 1)] == ["A"]
        assert len(slow) == 0
        for channel in "abc":
            await hub.publish(f"{channel}{LONG}", channel=channel)
        assert [text[0] for text in await read(slow, 2)] == ["b", "c"]


GAP = Gap(0.0, channel="x")

DROPPING: dict[SubscriberOverflow, list[object]] = {
    "resume": [GAP, "2", "3", GAP, "6", "7"],
    "drop_oldest": [GAP, "2", "3", GAP, "6", "7"],
    "drop_newest": ["0", "1", GAP, "4", "5", GAP],
    "keep_latest": [GAP, "3", GAP, "7"],
}


@pytest.mark.parametrize("overflow", DROPPING)
async def test_fault_29_a_gap_takes_the_position_of_dropped_messages(
    overflow: SubscriberOverflow, autojump_clock: MockClock
) -> None:
    """Without a history. A gap does not occupy the queue, and several are one."""
    async with Hub() as hub:
        slow = hub.subscribe("x", gaps=True, max_queue=2, overflow=overflow)
        events: list[object] = []
        for first in (0, 4):
            for number in range(first, first + 4):
                await hub.publish(str(number), channel="x")
            events += await read(slow, len(slow))
        assert events == DROPPING[overflow]


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "keep_latest"])
async def test_fault_29_resuming_after_any_id_loses_nothing(
    overflow: SubscriberOverflow, autojump_clock: MockClock
) -> None:
    """Ids only grow, and a gap precedes the next message after each one that was dropped."""
    async with Hub(broker=MemoryBroker(history=100)) as hub:
        slow = hub.subscribe("?", gaps=True, max_queue=2, overflow=overflow)
        sent: list[str] = []
        everything = hub.subscribe("?")
        for number, channel in enumerate("abacbbacaabc"):
            await hub.publish(str(number), channel=channel)
            sent.append(str((await everything.__anext__()).id))
            if number % 5 == 4:
                await check_next_events(slow, sent, 1)
        await check_next_events(slow, sent, len(slow))
        assert slow.dropped


async def check_next_events(
    events: Subscription[Message | Gap], sent: list[str], count: int
) -> None:
    """Check that each message follows the previous event, or there is a gap between them."""
    for _ in range(count):
        event = await events.__anext__()
        assert event.id is not None
        missed = {one for one in sent if parse_id(one) <= parse_id(event.id)}
        sent[:] = [one for one in sent if one not in missed]
        if isinstance(event, Message):
            assert missed == {event.id}


async def test_fault_29_a_slow_loop_resumes_from_the_history(autojump_clock: MockClock) -> None:
    """Nothing is dropped, and what has no history leaves a gap."""
    async with Hub(broker=MemoryBroker(history=100)) as hub:
        slow = hub.subscribe("*", gaps=True, max_queue=4)
        plain = hub.subscribe("x", max_queue=4)
        for number in range(50):
            await hub.publish(str(number), channel="x")
        assert await read(plain, 50) == await read(slow, 50) == [str(n) for n in range(50)]
        await hub.publish("live", channel="x")
        assert await read(slow, 1) == ["live"]
        assert hub.statistics().dropped == 0
        for _ in range(6):
            await hub.publish("lost", channel="incoming")
        assert await read(slow, 5) == [Gap(0.0, channel="incoming"), *["lost"] * 4]


async def test_fault_29_a_loop_slower_than_the_history_has_gaps(autojump_clock: MockClock) -> None:
    async with Hub(broker=MemoryBroker(history=10)) as hub:
        slow = hub.subscribe("x", gaps=True, max_queue=2)
        for number in range(20):
            await hub.publish(str(number), channel="x")
        got = await read(slow, 13)
        gap = got.pop(2)
        assert isinstance(gap, Gap)
        assert gap.id is not None
        assert got == ["0", "1", *(str(number) for number in range(10, 20))]


@pytest.mark.parametrize("history", [None, 10])
async def test_fault_29_a_slow_listener_is_logged(
    history: int | None, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot receive gaps. With a history it misses nothing."""
    hub = Hub(broker=MemoryBroker(history=history), max_queue=2)
    calls: list[Message] = []

    @hub.on("x")
    async def slow(message: Message) -> None:
        await trio.sleep(1)
        calls.append(message)

    async with hub:
        for number in range(10):
            await hub.publish(str(number), channel="x")
        await trio.sleep(20)
    assert (len(calls) == 10) is (history is not None)
    assert caplog.text.count("slow is too slow") == (history is None)


# Listeners.


async def test_plain_and_async_listeners(autojump_clock: MockClock) -> None:
    """They may be added before the hub opens and later."""
    hub = Hub()
    calls: list[tuple[str, str]] = []

    @hub.on("echo")
    def plain(message: Message) -> str:
        calls.append(("plain", str(message.data)))
        return "ignored"

    @hub.on("echo")
    async def slow(message: Message) -> None:
        await trio.sleep(1)
        calls.append(("async", str(message.data)))

    async with hub:

        @hub.on("e*")
        def late(message: Message) -> None:
            calls.append(("late", message.channel))

        for text in ("one", "two"):
            await hub.publish(text, channel="echo")
        assert calls == [("plain", "one"), ("late", "echo"), ("plain", "two"), ("late", "echo")]
        calls.clear()
        await trio.sleep(3)
        assert calls == [("async", "one"), ("async", "two")]


class Audit:
    def __init__(self) -> None:
        self.calls: list[str] = []

    @on("echo")
    @on("other")
    def echo(self, message: Message) -> None:
        self.calls.append(f"echo {message.data!s}")

    @on("orders/*")
    async def order(self, message: Message) -> None:
        self.calls.append(f"order {message.channel}")


async def test_marked_methods_of_an_object(autojump_clock: MockClock) -> None:
    hub, audit = Hub(), Audit()
    hub.include(audit)
    async with hub:
        for channel in ("echo", "other", "orders/1"):
            await hub.publish(channel, channel=channel)
        await wait_all_tasks_blocked()
        assert audit.calls == ["echo echo", "echo other", "order orders/1"]


async def test_exceptions_of_listeners_are_logged_and_counted(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The listener is called with the next message, and so are the others."""
    hub = Hub()
    calls: list[object] = []

    @hub.on("x")
    def broken(message: Message) -> None:
        calls.append(("broken", message.data))
        raise RuntimeError("bad day")

    @hub.on("x")
    async def broken_too(message: Message) -> None:
        calls.append(("broken too", message.data))
        raise RuntimeError("bad day")

    hub.on("x")(lambda message: calls.append(("fine", message.data)))
    with caplog.at_level(logging.ERROR, "trioglock.pubsub"):
        async with hub:
            for number in range(2):
                await hub.publish(str(number), channel="x")
            await wait_all_tasks_blocked()
            assert hub.statistics().failures == 4
    assert sorted(map(str, calls)) == sorted(
        str((name, number)) for name in ("broken", "broken too", "fine") for number in "01"
    )
    logged = sorted(record.getMessage().split(".")[-1] for record in caplog.records)
    assert logged == ["broken raised"] * 2 + ["broken_too raised"] * 2


async def test_a_listener_for_gaps_is_not_called_with_broadcasts(
    autojump_clock: MockClock,
) -> None:
    hub = Hub()
    calls: list[object] = []

    @hub.on(Gap)
    def plain(gap: Gap) -> None:
        calls.append(gap)

    @hub.on(Gap)
    async def slow(gap: Gap) -> None:
        calls.append(gap)

    async with hub:
        await hub.publish("broadcast")
        await wait_all_tasks_blocked()
        assert calls == []
        assert (hub.statistics().subscribers, hub.statistics().delivered) == (2, 0)


async def test_a_listener_that_returns_a_coroutine_is_an_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    async def real(message: Message) -> None: ...

    hub.on("x")(lambda message: real(message))
    async with hub:
        await hub.publish("x", channel="x")
        assert "async def" in caplog.text
        assert hub.statistics().failures == 1


# Opening, closing, invalid arguments.


async def test_the_exception_of_the_block_has_no_group(autojump_clock: MockClock) -> None:
    """The hub can be opened again."""
    hub = Hub()
    hub.on("x")(trio.sleep)
    for _ in range(2):
        with pytest.raises(LookupError, match="mine"):
            async with hub:
                raise LookupError("mine")


async def test_run_stays_open_until_cancelled(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        hub = await nursery.start(Hub().run)
        subscription = hub.subscribe("x")
        await hub.publish("x", channel="x")
        assert len(subscription) == 1
        nursery.cancel_scope.cancel()
    with pytest.raises(UsageError, match="not open"):
        await hub.publish("x")


async def test_usage_errors_of_a_closed_and_an_open_hub() -> None:
    hub = Hub("mine")
    with pytest.raises(UsageError, match="'mine' is not open"):
        await hub.publish("x")
    with pytest.raises(UsageError, match="'mine' is not open"):
        hub.subscribe("x")
    async with hub:
        with pytest.raises(UsageError, match="already open"):
            await hub.__aenter__()
        await hub.publish("still open")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a/b"}, "a hub's name"),
        ({"name": "a*"}, "a hub's name"),
        ({"name": ""}, "a hub's name"),
        ({"broker": "redis://"}, r"a Broker such as RedisBroker\(url\)"),
        ({"max_queue": 0}, "max_queue must be at least 1"),
        (
            {"overflow": "wait"},
            "'resume', 'drop_oldest', 'drop_newest', 'keep_latest' or 'close', not 'wait'",
        ),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Hub(**arguments)


async def test_invalid_messages_and_channels() -> None:
    """Nothing is published."""
    async with Hub() as hub:
        for message in ({"a": 1}, None, 5):
            with pytest.raises(InvalidFrame, match="str or bytes-like"):
                await hub.publish(message)  # type: ignore[arg-type]
        with pytest.raises(InvalidFrame, match="valid Unicode"):
            await hub.publish("\ud800")
        for channel, text in [("/a", "a slash"), (5, "must be a str"), ("\ud800", "Unicode")]:
            with pytest.raises(InvalidOption, match=text):
                await hub.publish("x", channel=channel)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="max_queue"):
            hub.subscribe("x", max_queue=0)
        with pytest.raises(UsageError, match="no history"):
            hub.subscribe("x", after="1-1")
        assert hub.statistics().received == 0


def test_invalid_listeners() -> None:
    hub = Hub()
    with pytest.raises(InvalidOption, match="a channel, a pattern or the class Gap"):
        hub.on(Message)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="must be a function"):
        hub.on("x")("no function")  # type: ignore[type-var]
    with pytest.raises(InvalidOption, match=r"Audit\(\)"):
        hub.include(Audit)
    with pytest.raises(InvalidOption, match="no method marked"):
        hub.include(object())
