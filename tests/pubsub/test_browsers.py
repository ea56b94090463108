"""Browsers on a hub, over real connections: paths, what they send, slow ones, ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.pubsub.helpers import SECONDS, joined, served
from trioglock import (
    BrokerUnavailable,
    ConnectionClosedError,
    ConnectionClosedOK,
    Reply,
    connect,
)
from trioglock.pubsub import Broker, Hub, HubSocket, Line, Message
from trioglock.server import serve

BIG = 2**16
"""Bytes of a message that soon fills a connection."""


async def test_the_path_is_the_channel() -> None:
    """Percent signs are read, the query is not part of it, and ``/`` hears what is for everyone."""
    hub = Hub()
    async with (
        served(hub) as url,
        connect(url + "news/sp%C3%A4t?x=1") as news,
        connect(url) as everyone,
        connect(url + "n%2A") as no_pattern,
    ):
        await joined(hub, 3)
        await hub.publish("text", channel="news/spät")
        await hub.publish(b"\x00\xff", channel="news/spät")
        await hub.publish("all")
        assert [await news.receive() for _ in range(3)] == ["text", b"\x00\xff", "all"]
        assert await everyone.receive() == "all"
        assert await no_pattern.receive() == "all"
        assert hub.statistics().delivered == 5


async def test_what_browsers_send_is_incoming() -> None:
    """Text and binary, in the order in which they came."""
    hub = Hub()
    heard: list[Message] = []
    hub.on("incoming")(heard.append)
    async with served(hub) as url, connect(url + "x") as conn:
        for message in ("one", b"two", "three"):
            await conn.send(message)
        while len(heard) < 3:
            await trio.sleep(0.001)
    assert heard == [Message("incoming", data) for data in ("one", b"two", "three")]


@pytest.mark.parametrize("path", ["incoming", "%2Fx", "/x"])
async def test_a_path_that_nobody_may_listen_to(path: str) -> None:
    """1008, with a word; nobody can read what others send."""
    hub = Hub()
    async with served(hub) as url:
        with pytest.raises(ConnectionClosedError) as caught:
            async with connect(url + path) as conn:
                await conn.receive()
        assert caught.value.code == 1008
        assert caught.value.reason
        assert hub.statistics().subscribers == 0


async def test_who_leaves_is_forgotten() -> None:
    """However it leaves: a closing handshake, or none."""
    hub = Hub()
    async with served(hub) as url:
        async with connect(url + "x"), connect(url + "x") as lost:
            await joined(hub, 2)
            lost.abort()
            await joined(hub, 1)
        await joined(hub, 0)
        await hub.publish("to nobody", channel="x")
        assert hub.statistics().channels == 0


async def test_scenario_23_a_slow_browser_slows_nobody() -> None:
    """One of two reads nothing: the other gets all, and what waits for the first is bounded."""
    hub = Hub(max_queue=8)
    async with (
        served(hub) as url,
        connect(url + "x", max_queue=1, compression=None) as slow,
        connect(url + "x", max_queue=None, compression=None) as quick,
    ):
        await joined(hub, 2)
        count = 0
        while not hub.statistics().dropped:
            await hub.publish(f"{count:<{BIG}}", channel="x")
            assert int(await quick.receive()) == count
            count += 1
        assert hub.statistics().disconnected == 0
        seen = [int(await slow.receive())]
        while seen[-1] < count - 1:
            seen.append(int(await slow.receive()))
        assert len(seen) == count - hub.statistics().dropped
        assert seen == sorted(set(seen))
        await hub.publish("quick again", channel="x")
        assert await slow.receive() == "quick again"


async def test_a_slow_browser_gets_the_latest() -> None:
    """With keep_latest, the newest message of its channel arrives, others are dropped."""
    hub = Hub(overflow="keep_latest")
    async with (
        served(hub) as url,
        connect(url + "x", max_queue=1, compression=None) as slow,
    ):
        await joined(hub, 1)
        count = 0
        while hub.statistics().dropped < 5:
            await hub.publish(f"{count:<{BIG}}", channel="x")
            count += 1
        seen = -1
        while seen != count - 1:
            seen = int(await slow.receive())


async def test_a_slow_browser_is_disconnected_with_1013() -> None:
    """With that policy; the others stay."""
    hub = Hub(overflow="close", max_queue=4)
    async with (
        served(hub, close_timeout=1) as url,
        connect(url + "x", max_queue=1, compression=None) as slow,
        connect(url + "x", max_queue=None, compression=None) as quick,
    ):
        await joined(hub, 2)
        sent = 0
        while not hub.statistics().disconnected:
            await hub.publish("x" * BIG, channel="x")
            sent += 1
            await quick.receive()
        got = 0
        with pytest.raises(ConnectionClosedError) as caught:
            while True:
                await slow.receive()
                got += 1
        assert (caught.value.code, caught.value.reason) == (1013, "too slow")
        assert 0 < got < sent
        await joined(hub, 1)
        assert hub.statistics().disconnected == 1


async def test_who_is_disconnected_does_not_wait_for_what_was_queued() -> None:
    """The goodbye overtakes megabytes that nobody wants any more."""
    hub = Hub(overflow="close", max_queue=1)
    async with (
        served(hub, write_limit=2**25) as url,
        connect(url + "x", max_queue=1, compression=None) as slow,
    ):
        await joined(hub, 1)
        sent = got = 0
        while not hub.statistics().disconnected:
            await hub.publish("x" * BIG, channel="x")
            sent += 1
        with pytest.raises(ConnectionClosedError, match="1013 too slow"):
            while True:
                await slow.receive()
                got += 1
        assert got < sent - 2**24 // BIG


async def test_a_closing_hub_says_goodbye() -> None:
    """1001 to those who still listen; those who come later get 1013."""
    hub = Hub()
    stop = trio.Event()

    async def open_for_a_while(*, task_status: trio.TaskStatus[None]) -> None:
        async with hub:
            task_status.started()
            await stop.wait()

    with trio.fail_after(SECONDS):
        async with serve(hub.socket, "127.0.0.1", 0) as server, trio.open_nursery() as nursery:
            url = f"ws://127.0.0.1:{server.port}/x"
            await nursery.start(open_for_a_while)
            async with connect(url) as conn:
                await joined(hub, 1)
                stop.set()
                with pytest.raises(ConnectionClosedOK) as caught:
                    await conn.receive()
                assert caught.value.code == 1001
            with pytest.raises(ConnectionClosedError, match="1013 the hub is closed"):
                async with connect(url) as conn:
                    await conn.receive()


class Away(Broker):
    """A broker that takes nothing."""

    def open(self, name: str, deliver: object) -> Any:
        @asynccontextmanager
        async def line() -> AsyncIterator[Line]:
            yield NoLine()

        return line()


class NoLine(Line):
    """See above."""

    async def publish(self, channel: str, data: object) -> None:
        await trio.lowlevel.checkpoint()
        raise BrokerUnavailable("away")


async def test_what_cannot_be_published_is_not_swallowed() -> None:
    """The browser is told to try again later."""
    async with served(Hub(broker=Away())) as url, connect(url + "x") as conn:
        await conn.send("lost?")
        with pytest.raises(ConnectionClosedError, match="1013 not published, try again later"):
            await conn.receive()


class Room(HubSocket):
    """A socket of one's own: it publishes on its channel, also from inside a hook."""

    async def handle_receive(self, frame: Any, state: Any) -> tuple[Any, Any]:
        await self.hub.publish(f"all: {frame}", channel=state.channel)
        return Reply("thanks"), state


async def test_a_socket_of_ones_own() -> None:
    """What is published inside a hook comes to the very browser too."""
    hub = Hub()
    with trio.fail_after(SECONDS):
        async with hub, serve(lambda: Room(hub), "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.port}/"
            async with connect(url + "r") as one, connect(url + "r") as two:
                await joined(hub, 2)
                await one.send("hi")
                assert {await one.receive(), await one.receive()} == {"thanks", "all: hi"}
                assert await two.receive() == "all: hi"
