"""Outages of Redis: reconnecting, gaps, publishing in the meantime, bounded memory."""

from __future__ import annotations

import itertools
import random
import re
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from tests.pubsub.helpers import joined, opened
from tests.pubsub.redis_server import RealRedis
from trioglock import Backoff, BrokerUnavailable, connect
from trioglock.pubsub import Gap, Hub, Message, RedisBroker
from trioglock.server import serve

pytestmark = pytest.mark.slow

SECONDS = 300

QUICK = {"health_interval": 0.2, "health_timeout": 0.3}
"""Options of a broker that soon detects a silent server."""


async def wait_gaps(hub: Hub, number: int) -> None:
    while hub.statistics().gaps < number:
        await trio.sleep(0.005)


async def test_restarts_under_load(redis: RealRedis) -> None:
    """Scenario 41: publishers wait and continue; subscribers of every kind receive each gap."""
    hub = Hub(broker=redis.broker(), max_queue=5000)
    gaps: list[Gap] = []
    async_gaps: list[Gap] = []
    received: list[str] = []
    hub.on(Gap)(gaps.append)
    hub.on("load")(lambda message: received.append(str(message.data)))

    @hub.on(Gap)
    async def record(gap: Gap) -> None:
        async_gaps.append(gap)

    published: list[str] = []

    async def publish_until(stop: trio.Event) -> None:
        while not stop.is_set():
            text = f"message {len(published)}"
            await hub.publish(text, channel="load")
            published.append(text)

    began = trio.current_time()
    with trio.fail_after(SECONDS):
        async with hub, serve(hub.socket, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.port}/load?after="
            async with connect(url, max_queue=None) as client:
                loop = hub.subscribe("load", gaps=True)
                await joined(hub, 5)
                for outage in range(1, 4):
                    stop = trio.Event()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(publish_until, stop)
                        await trio.sleep(0.05)
                        redis.kill()
                        await trio.sleep(0.1)
                        redis.start()
                        await wait_gaps(hub, outage)
                        await trio.sleep(0.05)
                        stop.set()
                await hub.publish("the end", channel="load")
                in_loop = []
                while (event := await loop.__anext__()) != Message("load", "the end"):
                    in_loop.append(event)
                in_client = []
                while "the end" not in (frame := await client.receive()):
                    in_client.append(frame)
    assert len(gaps) == len(async_gaps) == 3
    assert all(gap.seconds > 0 for gap in gaps)
    assert sum(gap.seconds for gap in gaps) < trio.current_time() - began
    assert [event for event in in_loop if isinstance(event, Gap)] == gaps
    assert sum('"gap"' in frame for frame in in_client) == 3
    # Published messages arrive, except those that Redis had accepted when it was killed.
    assert len(set(published) - set(received)) <= 3
    in_order = [event.data for event in in_loop if isinstance(event, Message)]
    assert in_order == received[:-1]
    assert len(in_client) == 1 + len(in_loop)  # the first frame is the confirmation


async def test_a_frozen_redis_is_detected(redis: RealRedis) -> None:
    """Scenario 41: it keeps its connections but does not respond. The gap has the right length."""
    began = trio.current_time()
    async with opened(redis.broker(**QUICK)) as hub:
        subscription = hub.subscribe("x", gaps=True)
        await subscription.ready()
        redis.freeze()
        while hub.statistics().broker_up:
            await trio.sleep(0.01)
        detected = trio.current_time()
        await trio.sleep(0.5)
        redis.thaw()
        thawed = trio.current_time()
        gap = await subscription.__anext__()
        assert isinstance(gap, Gap)
        assert thawed - detected < gap.seconds < trio.current_time() - began
        await hub.publish("after", channel="x")
        assert await subscription.__anext__() == Message("x", "after")


async def test_silence_is_not_an_outage(redis: RealRedis) -> None:
    """The connection survives many health checks."""
    async with opened(redis.broker(health_interval=0.05)) as hub:
        subscription = hub.subscribe("x")
        await trio.sleep(0.5)
        await hub.publish("x", channel="x")
        assert await subscription.__anext__() == Message("x", "x")
        assert hub.statistics().gaps == 0


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_publish_timeout(redis: RealRedis, how: str) -> None:
    """The hub keeps reconnecting, and publishes when Redis is back."""
    async with opened(redis.broker(publish_timeout=0.5, health_timeout=20)) as hub:
        subscription = hub.subscribe("x")
        if how == "killed":
            redis.kill()
        else:
            redis.freeze()
        began = trio.current_time()
        with pytest.raises(BrokerUnavailable, match=r"within 0\.5 seconds") as caught:
            await hub.publish("lost", channel="x")
        assert 0.4 < trio.current_time() - began < 20  # less than health_timeout
        if how == "killed":
            assert isinstance(caught.value.__cause__, Exception)
            redis.start()
        else:
            redis.thaw()
        await hub.publish("found", channel="x")
        while (await subscription.__anext__()).data != "found":
            pass  # the frozen server received the first one, and delivers it later


async def test_a_message_published_during_an_outage_arrives(redis: RealRedis) -> None:
    """Publishing waits for the hub to be subscribed again, so its own subscribers receive it."""
    async with opened(redis.broker()) as hub, trio.open_nursery() as nursery:
        subscription = hub.subscribe("x", gaps=True)
        redis.kill()
        nursery.start_soon(hub.publish, "patience", "x")
        await trio.sleep(0.2)
        redis.start()
        assert isinstance(await subscription.__anext__(), Gap)
        assert await subscription.__anext__() == Message("x", "patience")


async def test_a_message_without_a_reply_is_sent_again(
    redis: RealRedis,
) -> None:
    """On a new connection; it arrives at least once."""
    async with opened(redis.broker(**QUICK)) as hub, trio.open_nursery() as nursery:
        subscription = hub.subscribe("x")
        redis.freeze()
        nursery.start_soon(hub.publish, "patience" * 10, "x")
        nursery.start_soon(hub.publish, "x" * 10_000_000, "x")
        await trio.sleep(1)
        redis.thaw()
        while (await subscription.__anext__()).data != "patience" * 10:
            pass


async def test_cancelling_during_an_outage(redis: RealRedis) -> None:
    with trio.fail_after(SECONDS):
        async with Hub(broker=redis.broker()) as hub:
            redis.freeze()
            with trio.move_on_after(0.1) as scope:
                await hub.publish("x")
            assert scope.cancelled_caught
        with trio.move_on_after(0.1):
            async with Hub(broker=redis.broker()):
                pass


async def test_a_flood_uses_bounded_memory(redis: RealRedis) -> None:
    """30 MB arrive faster than they are read."""
    hub = Hub(broker=redis.broker(), max_queue=64)
    message = b"x" * 1024
    command = b"*3\r\n$7\r\nPUBLISH\r\n$11\r\ntrioglock/x\r\n$1024\r\n" + message + b"\r\n"
    count = 30_000

    async def read_replies(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    with trio.fail_after(SECONDS):
        stream = await trio.open_tcp_stream("127.0.0.1", redis.port)
        async with hub, stream, trio.open_nursery() as nursery:
            subscription = hub.subscribe("x")
            await subscription.ready()
            nursery.start_soon(read_replies, stream)
            tracemalloc.start()
            began = time.perf_counter()
            batch = command * 1000
            for _ in range(count // 1000):
                await stream.send_all(batch)
            while hub.statistics().received < count:
                await trio.sleep(0.01)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            nursery.cancel_scope.cancel()
    assert peak < 8 * 2**20, f"{peak} bytes, {time.perf_counter() - began:.1f} s"
    assert hub.statistics().dropped == count - 64
    assert len(subscription) == 64


class ScriptedRedis:
    """A server that answers PUBLISH with given replies, and other commands as Redis does."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.streams: list[trio.SocketStream] = []
        self.confirming = trio.Event()
        self.confirming.set()
        self.reading = True
        self.exclusive = False  # whether a new connection ends the others

    @asynccontextmanager
    async def hub(self, **options: Any) -> AsyncIterator[Hub]:
        """Serve, and open a hub that reconnects quickly."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        url = f"redis://127.0.0.1:{listener.socket.getsockname()[1]}"
        quick = Backoff(initial=0.01, max_attempts=None, jitter="none")
        options = {"backoff": quick, **options}
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                await nursery.start(trio.serve_listeners, self.serve, [listener])
                async with Hub(broker=RedisBroker(url, **options)) as hub:
                    yield hub
                nursery.cancel_scope.cancel()

    async def serve(self, stream: trio.SocketStream) -> None:
        for other in self.streams if self.exclusive else ():
            await trio.aclose_forcefully(other)
        self.streams.append(stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await stream.receive_some():
                if not self.reading:
                    await trio.sleep_forever()
                if b"SUBSCRIBE" in data:
                    await self.confirming.wait()
                await stream.send_all(self.reply_to(data))

    def reply_to(self, data: bytes) -> bytes:
        replies = b""
        for name in re.findall(rb"\n(\{?trioglock\}?/[^\r]*)", data.partition(b"SUBSCRIBE")[2]):
            replies += b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n" % (len(name), name)
        for command in re.findall(rb"PUBLISH|ROLE|PING|INFO", data):
            replies += self.replies.pop(0) if command == b"PUBLISH" else b"+PONG\r\n"
        return replies

    async def wait_streams(self, count: int) -> None:
        """Wait for so many connections."""
        while len(self.streams) < count:
            await trio.sleep(0.005)


READ_ONLY = b"-READONLY You can't write against a read only replica.\r\n"


async def test_cancelled_messages_use_no_memory() -> None:
    """They wait behind a large one that the server does not read, and are never sent."""
    server = ScriptedRedis()
    async with server.hub() as hub, trio.open_nursery() as publishers:
        await server.wait_streams(2)
        server.reading = False
        publishers.start_soon(hub.publish, b"x" * 50_000_000)
        await trio.sleep(0.1)
        tracemalloc.start()
        for _ in range(100):
            with trio.move_on_after(0.001):
                await hub.publish(b"y" * 1_000_000)
        left = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        publishers.cancel_scope.cancel()
    assert left < 10_000_000


@pytest.mark.parametrize(
    "replies",
    [
        (READ_ONLY, READ_ONLY, b":1\r\n"),
        (b":1\r\n:1\r\n", b":1\r\n"),
        (b"nonsense\r\n", b":1\r\n"),
    ],
    ids=["temporary error", "reply without a command", "not RESP"],
)
async def test_publishing_survives_unexpected_replies(replies: tuple[bytes, ...]) -> None:
    """A temporary error is retried; any other unexpected reply costs only the connection."""
    server = ScriptedRedis(*replies)
    async with server.hub() as hub:
        for _ in range(len(replies) if replies[0].startswith(b":") else 1):
            await hub.publish("x")
            await trio.sleep(0.02)
    assert server.replies == []


async def test_fault_30_readonly_ends_both_connections() -> None:
    """Also if the server does not tell its role."""
    server = ScriptedRedis(READ_ONLY, b":1\r\n")
    async with server.hub() as hub:
        await server.wait_streams(2)
        loop = hub.subscribe("x", gaps=True)
        await hub.publish("x")
        assert isinstance(await loop.__anext__(), Gap)
        assert len(server.streams) == 4


async def test_publishing_waits_for_the_subscription() -> None:
    """Otherwise the subscribers of the same hub would miss the message."""
    server = ScriptedRedis(b":1\r\n")
    async with server.hub() as hub:
        await server.wait_streams(2)
        server.confirming = trio.Event()
        for stream in server.streams:
            await trio.aclose_forcefully(stream)
        await server.wait_streams(4)
        with trio.move_on_after(0.2):
            await hub.publish("x")
        assert server.replies
        server.confirming.set()
        await hub.publish("x")
        assert not server.replies


async def test_a_persistent_error_is_the_cause_of_the_timeout() -> None:
    async with ScriptedRedis(*[READ_ONLY] * 1000).hub(publish_timeout=0.2) as hub:
        with pytest.raises(BrokerUnavailable) as caught:
            await hub.publish("x")
        assert "READONLY" in str(caught.value.__cause__)


@dataclass(frozen=True, kw_only=True)
class UnevenBackoff(Backoff):
    """One connection makes its next attempts soon, and the other one in a minute."""

    soon: list[float]

    def delays(self, rng: random.Random | None = None) -> Iterator[float]:
        first, self.soon[:] = list(self.soon), []
        return itertools.chain(first, itertools.repeat(60))


@pytest.mark.parametrize("history", [None, 10])
async def test_an_open_hub_accepts_clients_although_redis_started_late(
    redis: RealRedis, history: int | None
) -> None:
    """Entering waits for both connections, and the second one does not wait any longer."""
    redis.kill()
    backoff = UnevenBackoff(soon=[0.02] * 2000)
    broker = redis.broker(history=history, open_timeout=None, backoff=backoff)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, redis.start)
            async with Hub(broker=broker) as hub:
                assert hub.statistics().broker_up


async def test_connections_that_are_lost_soon_wait_before_they_reconnect() -> None:
    """Otherwise one would reconnect the other, and so on."""
    server = ScriptedRedis()
    async with server.hub(backoff=UnevenBackoff(soon=[0.02])):
        await server.wait_streams(2)
        server.exclusive = True
        for stream in server.streams:
            await trio.aclose_forcefully(stream)
        await trio.sleep(0.5)
    assert 2 < len(server.streams) < 8
