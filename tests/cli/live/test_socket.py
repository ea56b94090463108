"""What a page receives: all messages within limits, what it missed, and what was dropped."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.cli.serving import open_hub, publish_request
from trioglock import ConnectionClosedOK
from trioglock.cli.live import PUBLISH
from trioglock.pubsub import Gap, Hub, MemoryBroker
from trioglock.pubsub.history import id_before


async def test_all_channels_in_one_frame(autojump_clock: MockClock) -> None:
    """Messages at the same time are sent in one frame; a message for all channels is sent once."""
    async with open_hub() as server, server.page() as page:
        hello = await page.next("hello")
        expected = {"hub": "trioglock", "publish": "open", "process": None, "resumed": False}
        assert hello == expected
        for channel in ("a", "", "b/c*[", "line\nbreak"):
            await server.hub.publish(channel, channel)
        await page.next("numbers")
        channels = ["a", "", "b/c*[", "line\nbreak"]
        assert page.events == [{"channel": one, "data": one} for one in channels]


async def test_numbers_every_second(autojump_clock: MockClock) -> None:
    """The rate of messages, and the number of browsers without pages and publishers."""
    async with (
        open_hub() as server,
        server.page() as page,
        server.page(),
        server.publisher(),
        server.site.dial("/news"),
    ):
        started = trio.current_time()
        for _ in range(30):
            await server.hub.publish("x", "y")
        numbers = await page.next("numbers")
        assert numbers == {"rate": pytest.approx(30, rel=0.1), "received": 30, "browsers": 1}
        numbers = await page.next("numbers")
        assert numbers == {"rate": 0, "received": 30, "browsers": 1}
        assert trio.current_time() - started == pytest.approx(2, rel=0.1)


async def test_burst(autojump_clock: MockClock) -> None:
    """The latest 500 messages wait for a page, which also gets the number of dropped ones."""
    async with open_hub(hub=Hub(overflow="close")) as server, server.page() as page:
        await page.next("hello")
        for number in range(2000):
            await server.hub.publish(str(number), "x")
        await page.next("numbers")
        shown = [int(event["data"]) for event in page.events]
        assert shown[-500:] == list(range(1500, 2000))
        assert page.dropped == 2000 - len(shown) >= 1000


async def test_fault_45_a_stalled_page_keeps_no_long_messages(autojump_clock: MockClock) -> None:
    """It keeps the beginnings that it shows, and not the messages."""
    async with open_hub() as server, server.page() as page:
        await page.next("hello")
        tracemalloc.start()
        try:
            for number in range(200):
                await server.hub.publish(f"{number} {'x' * 2**20}", "news")
            await trio.testing.wait_all_tasks_blocked()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 10 * 2**20
        while len(page.events) < 200:
            await page.next("events")
        shown = [int(event["data"].partition(" ")[0]) for event in page.events]
        assert shown == list(range(200))
        assert page.dropped == 0


async def test_long_messages_are_truncated(autojump_clock: MockClock) -> None:
    """A page gets as much as it shows, binary as hexadecimal; frames stay small."""
    async with open_hub() as server, server.page() as page:
        await page.next("hello")
        for _ in range(100):
            await server.hub.publish("x" * 10_000, "text")
        await server.hub.publish(bytes(1000), "binary")
        await server.hub.publish(b"", "binary")
        longest = 0
        while len(page.events) < 102:
            frame = await page.conn.receive()
            longest = max(longest, len(frame))
            page.events += json.loads(frame).get("events", ())
        assert longest < 2**18
        assert page.events[0] == {"channel": "text", "data": "x" * 8192, "size": 10_000}
        assert page.events[-2] == {"channel": "binary", "hex": "00 " * 255 + "00", "size": 1000}
        assert page.events[-1] == {"channel": "binary", "hex": "", "size": 0}


async def test_history(autojump_clock: MockClock) -> None:
    """A page starts with the history; after a reconnect it gets what it missed, or a gap."""
    hub = Hub(broker=MemoryBroker(history=300))
    async with open_hub(hub=hub) as server:
        for number in range(250):
            await hub.publish(str(number), "x")
        async with server.page() as page:
            assert (await page.next("hello"))["resumed"] is False
            await page.next("numbers")
            assert [event["data"] for event in page.events] == [str(n) for n in range(50, 250)]
            last = page.events[-1]["id"]
        await hub.publish("missed", "x")
        async with server.page(last) as page:
            assert (await page.next("hello"))["resumed"] is True
            await page.next("numbers")
            assert [event["data"] for event in page.events] == ["missed"]
        async with server.page("1-1") as page:
            assert (await page.next("hello"))["resumed"] is True
            await page.next("numbers")
            assert page.events[0] == {"gap": 0, "id": id_before(page.events[1]["id"])}
        for invalid in ("x", "1-1-1", "%00"):
            async with server.page(invalid) as page:
                assert (await page.next("hello"))["resumed"] is False


async def test_without_a_history_nothing_is_resumed(autojump_clock: MockClock) -> None:
    """The page then shows that messages may be missing."""
    async with open_hub() as server, server.page("1-1") as page:
        assert (await page.next("hello"))["resumed"] is False


async def test_gap(autojump_clock: MockClock) -> None:
    """The broker was unavailable: messages may be missing."""
    async with open_hub() as server, server.page() as page:
        await page.next("hello")
        server.hub._deliver(Gap(2.5))
        await page.next("numbers")
        assert page.events == [{"gap": 2.5}]


async def test_publishing(autojump_clock: MockClock) -> None:
    """A page publishes on its own connection; an invalid request gets a reason."""
    async with open_hub() as server, server.page() as page:
        await page.conn.send(publish_request("x", "y"))
        assert await page.next("response") == {"published": True, "delivered": 1}
        await page.conn.send("nonsense")
        assert (await page.next("response"))["published"] is False
        assert page.events == [{"channel": "x", "data": "y"}]


@pytest.mark.parametrize(
    ("host", "rules", "expected"),
    [
        ("127.0.0.1", {}, "open"),
        ("127.0.0.1", {"token": "open-sesame"}, "token"),
        ("0.0.0.0", {"page": True}, "off"),
        ("0.0.0.0", {"page": True, "token": "open-sesame"}, "token"),
    ],
)
async def test_whether_a_page_may_publish(
    host: str, rules: dict[str, Any], expected: str, autojump_clock: MockClock
) -> None:
    """The page knows in advance; where it may not, its requests are refused."""
    async with open_hub(host, **rules) as server, server.page() as page:
        assert (await page.next("hello"))["publish"] == expected
        await page.conn.send(publish_request())
        assert (await page.next("response"))["published"] is (expected == "open")
        assert server.hub.statistics().received == (expected == "open")


async def test_page_under_a_public_name(autojump_clock: MockClock) -> None:
    """Behind a proxy, a page may watch but not publish."""
    name = "live.example.org"
    headers = (("Host", name), ("Origin", f"https://{name}"))
    async with open_hub(page_hosts=[name]) as server, server.page("", *headers) as page:
        assert (await page.next("hello"))["publish"] == "off"


async def test_closed_hub(autojump_clock: MockClock) -> None:
    """Pages are closed with 1001, after which they reconnect."""
    hub = Hub()
    async with open_hub(hub=hub) as server, server.page() as page:
        await page.next("hello")
        hub._registry.end()
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await page.next("nothing")


async def test_subscriptions_end(autojump_clock: MockClock) -> None:
    """The subscription of a page ends with its connection."""
    async with open_hub() as server:
        for _ in range(3):
            async with server.page() as page:
                await page.next("hello")
                assert server.hub.statistics().subscribers == 1
        async with server.publisher() as conn:
            assert conn.subprotocol == PUBLISH
        await trio.testing.wait_all_tasks_blocked()
        assert server.hub.statistics().subscribers == 0
