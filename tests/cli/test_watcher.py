"""What a page is told: everything, within bounds; what it missed, and what it will never see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.cli.hubs import HOST, Front, fronted, publication
from trioglock import Connection, ConnectionClosedOK
from trioglock.cli.live import PUBLISH
from trioglock.pubsub import Gap, Hub, MemoryBroker


class Page:
    """A page that watches, without a browser."""

    def __init__(self, conn: Connection[None]) -> None:
        self.conn = conn
        self.events: list[dict[str, Any]] = []
        self.dropped = 0

    async def next(self, kind: str) -> Any:
        """The next frame of that kind; events are kept on the way."""
        while True:
            frame = json.loads(await self.conn.receive())
            if "events" in frame:
                self.events += frame["events"]
                self.dropped = frame["dropped"]
            if kind in frame:
                return frame[kind]


@asynccontextmanager
async def watching(front: Front, after: str = "") -> AsyncIterator[Page]:
    path = f"/?after={after}"
    headers = [("Host", HOST)]
    async with front.site.dial(
        path, additional_headers=headers, subprotocols=["trioglock.live"]
    ) as conn:
        yield Page(conn)


async def test_all_channels_in_one_frame(autojump_clock: MockClock) -> None:
    """What comes at the same time comes together; for everyone, it comes once."""
    async with fronted() as front, watching(front) as page:
        hello = await page.next("hello")
        expected = {"hub": "trioglock", "publish": "open", "process": None, "resumed": False}
        assert hello == expected
        for channel in ("a", "", "b/c*[", "line\nbreak"):
            await front.hub.publish(channel, channel)
        await page.next("numbers")
        channels = ["a", "", "b/c*[", "line\nbreak"]
        assert page.events == [{"channel": one, "data": one} for one in channels]


async def test_numbers_every_second(autojump_clock: MockClock) -> None:
    """How many messages, and how many browsers: neither pages nor publishers count as such."""
    async with (
        fronted() as front,
        watching(front) as page,
        watching(front),
        front.publisher(),
        front.site.dial("/news"),
    ):
        began = trio.current_time()
        for _ in range(30):
            await front.hub.publish("x", "y")
        numbers = await page.next("numbers")
        assert numbers == {"rate": pytest.approx(30, rel=0.1), "received": 30, "browsers": 1}
        numbers = await page.next("numbers")
        assert numbers == {"rate": 0, "received": 30, "browsers": 1}
        assert trio.current_time() - began == pytest.approx(2, rel=0.1)


async def test_a_burst_is_bounded(autojump_clock: MockClock) -> None:
    """The newest 500 wait for a page, and it is told how many it will never see."""
    async with fronted(hub=Hub(overflow="close")) as front, watching(front) as page:
        await page.next("hello")
        for number in range(2000):
            await front.hub.publish(str(number), "x")
        await page.next("numbers")
        shown = [int(event["data"]) for event in page.events]
        assert shown[-500:] == list(range(1500, 2000))
        assert page.dropped == 2000 - len(shown) >= 1000


async def test_long_messages_are_cut(autojump_clock: MockClock) -> None:
    """A page gets as much as it shows; binary in hexadecimal; frames stay small."""
    async with fronted() as front, watching(front) as page:
        await page.next("hello")
        for _ in range(100):
            await front.hub.publish("x" * 10_000, "text")
        await front.hub.publish(bytes(1000), "binary")
        await front.hub.publish(b"", "binary")
        longest = 0
        while len(page.events) < 102:
            frame = await page.conn.receive()
            longest = max(longest, len(frame))
            page.events += json.loads(frame).get("events", ())
        assert longest < 2**18
        assert page.events[0] == {"channel": "text", "data": "x" * 8192, "size": 10_000}
        assert page.events[-2] == {"channel": "binary", "hex": "00 " * 255 + "00", "size": 1000}
        assert page.events[-1] == {"channel": "binary", "hex": "", "size": 0}


async def test_a_history(autojump_clock: MockClock) -> None:
    """First what was there, and after a loss what was missed; or that something may be missing."""
    hub = Hub(broker=MemoryBroker(history=300))
    async with fronted(hub=hub) as front:
        for number in range(250):
            await hub.publish(str(number), "x")
        async with watching(front) as page:
            assert (await page.next("hello"))["resumed"] is False
            await page.next("numbers")
            assert [event["data"] for event in page.events] == [str(n) for n in range(50, 250)]
            last = page.events[-1]["id"]
        await hub.publish("missed", "x")
        async with watching(front, last) as page:
            assert (await page.next("hello"))["resumed"] is True
            await page.next("numbers")
            assert [event["data"] for event in page.events] == ["missed"]
        async with watching(front, "1-1") as page:
            assert (await page.next("hello"))["resumed"] is True
            await page.next("numbers")
            assert page.events[0] == {"gap": 0}
        for nonsense in ("x", "1-1-1", "%00"):
            async with watching(front, nonsense) as page:
                assert (await page.next("hello"))["resumed"] is False


async def test_without_a_history_nothing_is_resumed(autojump_clock: MockClock) -> None:
    """The page is told, so that it can tell its reader."""
    async with fronted() as front, watching(front, "1-1") as page:
        assert (await page.next("hello"))["resumed"] is False


async def test_a_gap_is_told(autojump_clock: MockClock) -> None:
    """The broker was away: messages may be missing."""
    async with fronted() as front, watching(front) as page:
        await page.next("hello")
        front.hub._deliver(Gap(2.5))
        await page.next("numbers")
        assert page.events == [{"gap": 2.5}]


async def test_the_form(autojump_clock: MockClock) -> None:
    """A page publishes over the connection that it watches with; nonsense is told so."""
    async with fronted() as front, watching(front) as page:
        await page.conn.send(publication("x", "y"))
        assert await page.next("answer") == {"published": True, "delivered": 1}
        await page.conn.send("nonsense")
        assert (await page.next("answer"))["published"] is False
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
    """It is told in advance; where it may not, its publications are refused."""
    async with fronted(host, **rules) as front, watching(front) as page:
        assert (await page.next("hello"))["publish"] == expected
        await page.conn.send(publication())
        assert (await page.next("answer"))["published"] is (expected == "open")
        assert front.hub.statistics().received == (expected == "open")


async def test_a_page_by_a_public_name_may_watch_and_not_publish(autojump_clock: MockClock) -> None:
    """Behind a proxy nobody is a neighbour."""
    name = "live.example.org"
    async with fronted(page_hosts=[name]) as front:
        headers = [("Host", name), ("Origin", f"https://{name}")]
        async with front.site.dial(
            additional_headers=headers, subprotocols=["trioglock.live"]
        ) as conn:
            assert (await Page(conn).next("hello"))["publish"] == "off"


async def test_the_hub_closes(autojump_clock: MockClock) -> None:
    """Pages are told that it goes away; they come again."""
    hub = Hub()
    async with fronted(hub=hub) as front, watching(front) as page:
        await page.next("hello")
        hub._registry.end()
        with pytest.raises(ConnectionClosedOK, match="1001"):
            await page.next("nothing")


async def test_pages_and_publishers_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """Each subscription ends with its connection."""
    async with fronted() as front:
        for _ in range(3):
            async with watching(front) as page:
                await page.next("hello")
                assert front.hub.statistics().subscribers == 1
        async with front.publisher() as conn:
            assert conn.subprotocol == PUBLISH
        await trio.testing.wait_all_tasks_blocked()
        assert front.hub.statistics().subscribers == 0
