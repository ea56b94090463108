"""Redis dies, freezes and comes back: nobody is lost, everybody is told, memory stays bounded."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import suppress

import pytest
import trio

from tests.pubsub.helpers import joined
from tests.pubsub.redis_server import RealRedis
from trioglock import Backoff, BrokerUnavailable, connect
from trioglock.pubsub import Gap, Hub, Message, RedisBroker
from trioglock.server import serve

SECONDS = 20


async def gap_of(hub: Hub, number: int = 1) -> None:
    """Wait for so many gaps."""
    while hub.statistics().gaps < number:
        await trio.sleep(0.005)


async def test_scenario_41_killed_and_started_under_load(redis: RealRedis) -> None:
    """Publishers wait and go on; browsers, loops and listeners hear the rest, and of each gap."""
    hub = Hub(broker=redis.broker(health_timeout=5), max_queue=5000)
    gaps: list[Gap] = []
    async_gaps: list[Gap] = []
    heard: list[str] = []
    hub.on(Gap)(gaps.append)
    hub.on("load")(lambda message: heard.append(str(message.data)))

    @hub.on(Gap)
    async def note(gap: Gap) -> None:
        async_gaps.append(gap)

    published: list[str] = []

    async def publish_on(stop: trio.Event) -> None:
        while not stop.is_set():
            text = f"message {len(published)}"
            await hub.publish(text, channel="load")
            published.append(text)

    with trio.fail_after(SECONDS):
        async with hub, serve(hub.socket, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.port}/load?after="
            async with connect(url, max_queue=None) as browser:
                loop = hub.subscribe("load", gaps=True)
                await joined(hub, 5)
                for outage in range(1, 4):
                    stop = trio.Event()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(publish_on, stop)
                        await trio.sleep(0.05)
                        redis.kill()
                        await trio.sleep(0.1)
                        redis.start()
                        await gap_of(hub, outage)
                        await trio.sleep(0.05)
                        stop.set()
                await hub.publish("the end", channel="load")
                in_loop = []
                while (event := await loop.__anext__()) != Message("load", "the end"):
                    in_loop.append(event)
                in_browser = []
                while "the end" not in (frame := await browser.receive()):
                    in_browser.append(frame)
    assert len(gaps) == len(async_gaps) == 3
    assert all(0 < gap.seconds < 5 for gap in gaps)
    assert [event for event in in_loop if isinstance(event, Gap)] == gaps
    assert sum('"gap"' in frame for frame in in_browser) == 3
    # What publish() said was published has arrived, except what Redis had and lost as it died.
    assert len(set(published) - set(heard)) <= 3
    in_order = [event.data for event in in_loop if isinstance(event, Message)]
    assert in_order == heard[:-1]
    assert len(in_browser) == len(in_loop)


async def test_scenario_41_frozen_is_found_out(redis: RealRedis) -> None:
    """A server that holds its connections and says nothing is left; the gap has its length."""
    hub = Hub(broker=redis.broker())
    with trio.fail_after(SECONDS):
        async with hub:
            subscription = hub.subscribe("x", gaps=True)
            redis.freeze()
            await trio.sleep(1)
            redis.thaw()
            gap = await subscription.__anext__()
            assert isinstance(gap, Gap)
            assert 0.8 < gap.seconds < 5
            await hub.publish("after", channel="x")
            assert await subscription.__anext__() == Message("x", "after")


async def test_silence_is_no_outage(redis: RealRedis) -> None:
    """Nothing is published for many health checks: the connection stays."""
    with trio.fail_after(SECONDS):
        async with Hub(broker=redis.broker(health_interval=0.05, health_timeout=5)) as hub:
            subscription = hub.subscribe("x")
            await trio.sleep(0.5)
            await hub.publish("x", channel="x")
            assert await subscription.__anext__() == Message("x", "x")
            assert hub.statistics().gaps == 0


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_publishing_waits_up_to_its_deadline(redis: RealRedis, how: str) -> None:
    """Then it raises; the hub goes on trying, and publishes when Redis is back."""
    hub = Hub(broker=redis.broker(publish_timeout=0.5, health_timeout=5))
    with trio.fail_after(SECONDS):
        async with hub:
            subscription = hub.subscribe("x")
            if how == "killed":
                redis.kill()
            else:
                redis.freeze()
            began = trio.current_time()
            with pytest.raises(BrokerUnavailable, match=r"within 0\.5 seconds") as caught:
                await hub.publish("lost", channel="x")
            assert 0.4 < trio.current_time() - began < 4  # less than health_timeout
            if how == "killed":
                assert isinstance(caught.value.__cause__, Exception)
                redis.start()
            else:
                redis.thaw()
            await hub.publish("found", channel="x")
            while (await subscription.__anext__()).data != "found":
                pass  # the frozen server got the first one, and hands it on in the end


async def test_a_message_published_during_an_outage_arrives(redis: RealRedis) -> None:
    """Publishing waits until its own hub listens again, so no subscriber of it is left out."""
    hub = Hub(broker=redis.broker())
    with trio.fail_after(SECONDS):
        async with hub, trio.open_nursery() as nursery:
            subscription = hub.subscribe("x", gaps=True)
            redis.kill()
            nursery.start_soon(hub.publish, "patience", "x")
            await trio.sleep(0.2)
            redis.start()
            assert isinstance(await subscription.__anext__(), Gap)
            assert await subscription.__anext__() == Message("x", "patience")


async def test_a_message_that_a_frozen_redis_does_not_answer_is_sent_again(
    redis: RealRedis,
) -> None:
    """Its connection is left for a new one, and the message arrives there, at least once."""
    hub = Hub(broker=redis.broker())
    with trio.fail_after(SECONDS):
        async with hub, trio.open_nursery() as nursery:
            subscription = hub.subscribe("x")
            redis.freeze()
            nursery.start_soon(hub.publish, "patience" * 10, "x")
            nursery.start_soon(hub.publish, "x" * 10_000_000, "x")
            await trio.sleep(1)
            redis.thaw()
            while (await subscription.__anext__()).data != "patience" * 10:
                pass


async def test_cancelled_in_the_middle_of_an_outage(redis: RealRedis) -> None:
    """Nothing holds the program back: no task, no connection is left."""
    with trio.fail_after(SECONDS):
        async with Hub(broker=redis.broker()) as hub:
            redis.freeze()
            with trio.move_on_after(0.1) as scope:
                await hub.publish("x")
            assert scope.cancelled_caught
        with trio.move_on_after(0.1):
            async with Hub(broker=redis.broker()):
                pass


async def test_a_flood_stays_bounded(redis: RealRedis) -> None:
    """30 MB arrive faster than anybody takes them; what waits in this process stays small."""
    hub = Hub(broker=redis.broker(), max_queue=64)
    message = b"x" * 1024
    command = b"*3\r\n$7\r\nPUBLISH\r\n$11\r\ntrioglock/x\r\n$1024\r\n" + message + b"\r\n"
    count = 30_000

    async def take_answers(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    with trio.fail_after(SECONDS):
        stream = await trio.open_tcp_stream("127.0.0.1", redis.port)
        async with hub, stream, trio.open_nursery() as nursery:
            subscription = hub.subscribe("x")
            nursery.start_soon(take_answers, stream)
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


async def test_what_was_cancelled_and_has_not_left_never_leaves() -> None:
    """It waited behind one that a frozen server does not take; neither fills memory."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"redis://127.0.0.1:{listener.socket.getsockname()[1]}"
    server = Scripted()
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, server.serve, [listener])
            async with Hub(broker=RedisBroker(url)) as hub, trio.open_nursery() as publishers:
                await wait_streams(server, 2)
                server.deaf = True
                publishers.start_soon(hub.publish, b"x" * 50_000_000)
                await trio.sleep(0.1)
                tracemalloc.start()
                for _ in range(100):
                    with trio.move_on_after(0.001):
                        await hub.publish(b"y" * 1_000_000)
                left = tracemalloc.get_traced_memory()[0]
                tracemalloc.stop()
                publishers.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    assert left < 10_000_000


class Scripted:
    """A server that answers PUBLISH by a script, and everything else as Redis does."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.streams: list[trio.SocketStream] = []
        self.confirming = trio.Event()
        self.confirming.set()
        self.deaf = False

    async def serve(self, stream: trio.SocketStream) -> None:
        self.streams.append(stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await stream.receive_some():
                if self.deaf:
                    await trio.sleep_forever()
                if b"PSUBSCRIBE" in data:
                    await self.confirming.wait()
                await stream.send_all(self.answer(data))

    def answer(self, data: bytes) -> bytes:
        if b"PSUBSCRIBE" in data:
            return b"*3\r\n$10\r\npsubscribe\r\n$10\r\ntrioglock*\r\n:1\r\n"
        if b"PUBLISH" in data:
            return self.answers.pop(0)
        return b"+PONG\r\n"


READ_ONLY = b"-READONLY You can't write against a read only replica.\r\n"


@pytest.mark.parametrize(
    "answers",
    [
        (READ_ONLY, READ_ONLY, b":1\r\n"),
        (b":1\r\n:1\r\n", b":1\r\n"),
        (b"nonsense\r\n", b":1\r\n"),
    ],
    ids=["changes its role", "answers twice", "says nonsense"],
)
async def test_a_redis_that_is_not_itself(answers: tuple[bytes, ...]) -> None:
    """What passes is waited for, what is wrong costs its connection; publishing succeeds."""
    server = Scripted(*answers)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"redis://127.0.0.1:{listener.socket.getsockname()[1]}"
    quick = Backoff(initial=0.05, max_attempts=None, jitter="none")
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, server.serve, [listener])
            async with Hub(broker=RedisBroker(url, backoff=quick)) as hub:
                for _ in range(len(answers) if answers[0].startswith(b":") else 1):
                    await hub.publish("x")
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
    assert server.answers == []


async def test_nothing_is_published_while_the_hub_does_not_hear() -> None:
    """Its own subscribers would miss it: publishing waits for the subscription, too."""
    server = Scripted(b":1\r\n")
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"redis://127.0.0.1:{listener.socket.getsockname()[1]}"
    quick = Backoff(initial=0.01, max_attempts=None, jitter="none")
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, server.serve, [listener])
            async with Hub(broker=RedisBroker(url, backoff=quick)) as hub:
                await wait_streams(server, 2)
                server.confirming = trio.Event()
                for stream in server.streams:
                    await trio.aclose_forcefully(stream)
                await wait_streams(server, 4)
                with trio.move_on_after(0.2):
                    await hub.publish("x")
                assert server.answers
                server.confirming.set()
                await hub.publish("x")
                assert not server.answers
            nursery.cancel_scope.cancel()


async def wait_streams(server: Scripted, count: int) -> None:
    """Wait until so many connections were made."""
    while len(server.streams) < count:
        await trio.sleep(0.005)


async def test_a_redis_that_stays_read_only() -> None:
    """In the end the publisher is told, with Redis's own words."""
    server = Scripted(*[READ_ONLY] * 1000)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"redis://127.0.0.1:{listener.socket.getsockname()[1]}"
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, server.serve, [listener])
            async with Hub(broker=RedisBroker(url, publish_timeout=0.2)) as hub:
                with pytest.raises(BrokerUnavailable) as caught:
                    await hub.publish("x")
                assert "READONLY" in str(caught.value.__cause__)
            nursery.cancel_scope.cancel()
