"""The hub within one process: who gets what, listeners, and what it refuses."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioglock import InvalidFrame, InvalidOption, SlowConsumer, UsageError
from trioglock.pubsub import Gap, Hub, MemoryBroker, Message, on


async def taken(subscription: Any, count: int) -> list[Any]:
    """The data of so many messages."""
    return [(await subscription.__anext__()).data for _ in range(count)]


async def test_a_message_reaches_those_who_listen_to_its_channel(autojump_clock: MockClock) -> None:
    """Its own channel and matching patterns, in the order of publishing; nobody else."""
    async with Hub() as hub:
        news, sports, any_news = map(hub.subscribe, ("news", "sports", "news*"))
        for number in range(3):
            await hub.publish(f"n{number}", channel="news")
        await hub.publish(b"\xff", channel="news/local")
        await hub.publish("goal", channel="sports")
        assert await taken(news, 3) == ["n0", "n1", "n2"]
        assert await taken(any_news, 4) == ["n0", "n1", "n2", b"\xff"]
        assert await taken(sports, 1) == ["goal"]
        assert (len(news), len(any_news), len(sports)) == (0, 0, 0)


async def test_a_message_without_a_channel_is_for_everyone(autojump_clock: MockClock) -> None:
    """Whatever they listen to."""
    async with Hub() as hub:
        subscriptions = [hub.subscribe(name) for name in ("news", "a/*", "x?[yz]")]
        await hub.publish("all of you")
        for subscription in subscriptions:
            assert await subscription.__anext__() == Message("", "all of you")


@pytest.mark.parametrize(
    ("pattern", "channel", "fits"),
    [
        ("a*c", "a/b/c", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("[ab]x", "bx", True),
        ("[ab]x", "cx", False),
        ("A", "a", False),
        ("a.c", "abc", False),
    ],
)
async def test_patterns_are_those_of_redis(pattern: str, channel: str, fits: bool) -> None:
    """A star is anything, slashes included; a dot is a dot; case counts."""
    async with Hub() as hub:
        subscription = hub.subscribe(pattern)
        await hub.publish("x", channel=channel)
        assert len(subscription) == fits


async def test_hubs_of_one_name_meet_at_a_broker(autojump_clock: MockClock) -> None:
    """Those of another name do not."""
    broker = MemoryBroker()
    async with Hub("app", broker) as one, Hub("app", broker) as two, Hub("apple", broker) as other:
        subscriptions = [hub.subscribe("x") for hub in (one, two, other)]
        await one.publish("from one", channel="x")
        assert [len(subscription) for subscription in subscriptions] == [1, 1, 0]


async def test_a_buffer_is_copied(autojump_clock: MockClock) -> None:
    """What is changed after publishing is not changed for those who listen."""
    async with Hub() as hub:
        subscription = hub.subscribe("x")
        buffer = bytearray(b"before")
        await hub.publish(buffer, channel="x")
        buffer[:] = b"after!"
        assert await taken(subscription, 1) == [b"before"]


# Iterating.


async def test_a_loop_ends_with_the_hub(autojump_clock: MockClock) -> None:
    """What waited comes first."""
    hub = Hub()
    async with hub:
        subscription = hub.subscribe("x")
        await hub.publish("last", channel="x")
    assert [message.data async for message in subscription] == ["last"]


async def test_a_waiting_loop_ends_with_the_hub(autojump_clock: MockClock) -> None:
    """Nobody waits for a hub that has closed."""
    hub = Hub()

    async def read() -> None:
        async for _ in subscription:
            pass

    async with trio.open_nursery() as nursery, hub:
        subscription = hub.subscribe("x")
        nursery.start_soon(read)
        await wait_all_tasks_blocked()


async def test_a_closed_subscription_gets_nothing(autojump_clock: MockClock) -> None:
    """Leaving its block ends it; forgetting it does so too."""
    async with Hub() as hub:
        with hub.subscribe("x") as subscription:
            assert hub.statistics().subscribers == 1
        await hub.publish("late", channel="x")
        assert [message async for message in subscription] == []
        forgotten = hub.subscribe("y")
        await hub.publish("y", channel="y")
        async for _ in forgotten:
            break
        del forgotten
        gc.collect()
        assert hub.statistics().subscribers == 0


async def test_a_cancelled_wait_loses_nothing(autojump_clock: MockClock) -> None:
    """A message that comes at the very moment is there for the next wait."""
    async with Hub() as hub:
        subscription = hub.subscribe("x")
        with trio.move_on_after(1):
            await subscription.__anext__()
        await hub.publish("kept", channel="x")
        with trio.move_on_after(0):
            await subscription.__anext__()
        assert await taken(subscription, 1) == ["kept"]


# Slow ones.


async def test_drop_oldest(autojump_clock: MockClock) -> None:
    """The newest messages are kept, the others counted; the next subscriber is not concerned."""
    async with Hub(max_queue=3) as hub:
        slow, roomy = hub.subscribe("x"), hub.subscribe("x", max_queue=10)
        for number in range(5):
            await hub.publish(str(number), channel="x")
        assert slow.dropped == hub.statistics().dropped == 2
        assert await taken(slow, 3) == ["2", "3", "4"]
        assert await taken(roomy, 5) == ["0", "1", "2", "3", "4"]


async def test_latest(autojump_clock: MockClock) -> None:
    """One message of each channel waits: the newest, and no channel pushes another back."""
    async with Hub(overflow="keep_latest", max_queue=2) as hub:
        slow = hub.subscribe("*")
        for channel, text in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("a", "a3")]:
            await hub.publish(text, channel=channel)
        assert await taken(slow, 2) == ["a3", "b1"]
        for channel in "abc":
            await hub.publish(channel, channel=channel)
        assert await taken(slow, 2) == ["b", "c"]
        assert slow.dropped == 3


async def test_disconnect(autojump_clock: MockClock) -> None:
    """The loop gets what waited, and then an error that says so."""
    async with Hub() as hub:
        slow = hub.subscribe("x", overflow="close", max_queue=2)
        for number in range(4):
            await hub.publish(str(number), channel="x")
        assert await taken(slow, 2) == ["0", "1"]
        with pytest.raises(SlowConsumer, match="2 messages waited"):
            await slow.__anext__()


# Listeners.


async def test_listeners_plain_and_async(autojump_clock: MockClock) -> None:
    """Several may listen to one channel, before the hub opens and after."""
    hub = Hub()
    heard: list[tuple[str, str]] = []

    @hub.on("echo")
    def plain(message: Message) -> str:
        heard.append(("plain", str(message.data)))
        return "ignored"

    @hub.on("echo")
    async def slow(message: Message) -> None:
        await trio.sleep(1)
        heard.append(("async", str(message.data)))

    async with hub:

        @hub.on("e*")
        def late(message: Message) -> None:
            heard.append(("late", message.channel))

        for text in ("one", "two"):
            await hub.publish(text, channel="echo")
        assert heard == [("plain", "one"), ("late", "echo"), ("plain", "two"), ("late", "echo")]
        del heard[:]
        await trio.sleep(3)
        assert heard == [("async", "one"), ("async", "two")]


class Audit:
    """Listens with its methods."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @on("echo")
    @on("other")
    def echo(self, message: Message) -> None:
        self.heard.append(f"echo {message.data!s}")

    @on("orders/*")
    async def order(self, message: Message) -> None:
        self.heard.append(f"order {message.channel}")


async def test_a_class_with_listeners(autojump_clock: MockClock) -> None:
    """The marked methods of an object listen, one of them to two channels."""
    hub, audit = Hub(), Audit()
    hub.include(audit)
    async with hub:
        for channel in ("echo", "other", "orders/1"):
            await hub.publish(channel, channel=channel)
        await wait_all_tasks_blocked()
        assert audit.heard == ["echo echo", "echo other", "order orders/1"]


async def test_a_listener_that_raises_harms_nobody(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged by name and counted, hears the next message, and so do the others."""
    hub = Hub()
    heard: list[object] = []

    @hub.on("x")
    def broken(message: Message) -> None:
        heard.append(("broken", message.data))
        raise RuntimeError("bad day")

    @hub.on("x")
    async def broken_too(message: Message) -> None:
        heard.append(("broken too", message.data))
        raise RuntimeError("bad day")

    hub.on("x")(lambda message: heard.append(("fine", message.data)))
    with caplog.at_level(logging.ERROR, "trioglock.pubsub"):
        async with hub:
            for number in range(2):
                await hub.publish(str(number), channel="x")
            await wait_all_tasks_blocked()
            assert hub.statistics().failures == 4
    assert sorted(map(str, heard)) == sorted(
        str((name, number)) for name in ("broken", "broken too", "fine") for number in "01"
    )
    logged = sorted(record.getMessage().split(".")[-1] for record in caplog.records)
    assert logged == ["broken raised"] * 2 + ["broken_too raised"] * 2


async def test_a_listener_to_gaps_hears_gaps_only(autojump_clock: MockClock) -> None:
    """A message to everyone is none of its business, plain or async."""
    hub = Hub()
    heard: list[object] = []

    @hub.on(Gap)
    def plain(gap: Gap) -> None:
        heard.append(gap)

    @hub.on(Gap)
    async def slow(gap: Gap) -> None:
        heard.append(gap)

    async with hub:
        await hub.publish("all of you")
        await wait_all_tasks_blocked()
        assert heard == []
        assert (hub.statistics().subscribers, hub.statistics().delivered) == (2, 0)


async def test_a_plain_function_that_returns_a_coroutine_is_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A forgotten ``async def`` does not go unnoticed."""
    hub = Hub()

    async def real(message: Message) -> None: ...

    hub.on("x")(lambda message: real(message))
    async with hub:
        await hub.publish("x", channel="x")
        assert "async def" in caplog.text
        assert hub.statistics().failures == 1


# Ends, and what is refused.


async def test_the_body_raises_as_it_was(autojump_clock: MockClock) -> None:
    """No group around it, and the hub can be opened again."""
    hub = Hub()
    hub.on("x")(trio.sleep)
    for _ in range(2):
        with pytest.raises(LookupError, match="mine"):
            async with hub:
                raise LookupError("mine")


async def test_run_stays_open_until_cancelled(autojump_clock: MockClock) -> None:
    """For ``nursery.start``."""
    async with trio.open_nursery() as nursery:
        hub = await nursery.start(Hub().run)
        subscription = hub.subscribe("x")
        await hub.publish("x", channel="x")
        assert len(subscription) == 1
        nursery.cancel_scope.cancel()
    with pytest.raises(UsageError, match="not open"):
        await hub.publish("x")


async def test_a_closed_hub_says_so() -> None:
    """Before and after, and it opens once at a time."""
    hub = Hub("mine")
    with pytest.raises(UsageError, match="'mine' is not open"):
        await hub.publish("x")
    with pytest.raises(UsageError, match="'mine' is not open"):
        hub.subscribe("x")
    async with hub:
        with pytest.raises(UsageError, match="open already"):
            await hub.__aenter__()
        await hub.publish("still open")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": "a/b"}, "a hub's name"),
        ({"name": "a*"}, "a hub's name"),
        ({"name": ""}, "a hub's name"),
        ({"broker": "redis://"}, r"a Broker such as RedisBroker\(url\)"),
        ({"max_queue": 0}, "max_queue must be at least 1"),
        ({"policy": "wait"}, "'drop_oldest', 'latest', 'disconnect', not 'wait'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], complaint: str) -> None:
    """Each is refused at once, with what is allowed."""
    with pytest.raises(InvalidOption, match=complaint):
        Hub(**arguments)


async def test_bad_messages_and_channels() -> None:
    """Each is refused at the call that brought it; nothing is published."""
    async with Hub() as hub:
        for message in ({"a": 1}, None, 5):
            with pytest.raises(InvalidFrame, match="str or bytes-like"):
                await hub.publish(message)  # type: ignore[arg-type]
        with pytest.raises(InvalidFrame, match="valid Unicode"):
            await hub.publish("\ud800")
        for channel, complaint in [("/a", "without a slash"), (5, "is a str"), ("\ud800", "Unic")]:
            with pytest.raises(InvalidOption, match=complaint):
                await hub.publish("x", channel=channel)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="max_queue"):
            hub.subscribe("x", max_queue=0)
        with pytest.raises(UsageError, match="no history"):
            hub.subscribe("x", after="1-1")
        assert hub.statistics().received == 0


def test_bad_listeners() -> None:
    """A topic that is none, a class in place of an object, an object without marked methods."""
    hub = Hub()
    with pytest.raises(InvalidOption, match="a channel, a pattern or Gap"):
        hub.on(Message)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="is a function"):
        hub.on("x")("no function")  # type: ignore[type-var]
    with pytest.raises(InvalidOption, match=r"Audit\(\)"):
        hub.include(Audit)
    with pytest.raises(InvalidOption, match="no method that is marked"):
        hub.include(object())
    assert Gap(1.0).seconds == 1.0
