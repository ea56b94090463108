"""Histories in Redis: several processes, outages, and a rolling restart under load."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.channels.helpers import ChannelsSite, RawPhoenix, serving_channels
from tests.channels.history_server import ROUTES
from tests.pubsub.redis_server import RealRedis
from tests.scripts import ROOT
from trioglock import Backoff
from trioglock.channels import Answer, Broadcast, Channel, Channels, History, broadcast
from trioglock.protocols import phoenix
from trioglock.pubsub import Broker, Hub, RedisBroker
from trioglock.testing import FaultProxy

pytestmark = [pytest.mark.redis]


class Room(Channel[None]):
    history = History(size=3)

    async def join(self, topic: str, payload: Any, user: Any) -> Any:
        await trio.sleep(0)
        return {}, None

    def handle_in(self, event: str, payload: Any, state: None) -> Any:
        return (Broadcast(event, payload), Answer("ok")), state


class Long(Room):
    history = History(size=1000)


class Short(Room):
    history = History(size=3, seconds=0.3)


class Forever(Room):
    history = History(size=3, seconds=None)


class Plain(Channel[None]):
    pass


ALL: dict[str, type[Channel[Any]]] = {
    "room:*": Room,
    "long:*": Long,
    "short:*": Short,
    "forever:*": Forever,
    "plain:*": Plain,
}


@asynccontextmanager
async def serving(broker: Broker) -> AsyncIterator[ChannelsSite]:
    async with serving_channels(ALL, hub=Hub(broker=broker)) as site:
        yield site


async def send(site: ChannelsSite, *numbers: float, topic: str = "room:1") -> None:
    for number in numbers:
        await site.channels.broadcast(topic, "news", {"n": number})


async def join(raw: RawPhoenix, after: Any, topic: str = "room:1", ref: str = "1") -> Any:
    reply = await raw.ask(ref, ref, topic, "phx_join", {"after": after})
    assert reply[4]["status"] == "ok", reply
    return reply[4]["response"]


async def read(raw: RawPhoenix, *numbers: int, topic: str = "room:1") -> str:
    """Receive events with these numbers, and return the id of the last one."""
    received = [await raw.receive() for _ in numbers]
    assert [(one[2], one[3], one[4]["n"]) for one in received] == [
        (topic, "news", number) for number in numbers
    ]
    last: str = received[-1][4]["id"]
    return last


@pytest.mark.slow
async def test_ids_are_valid_in_every_process_and_after_a_restart(redis: RealRedis) -> None:
    async with (
        serving(redis.broker()) as one,
        serving(redis.broker()) as two,
        one.dial() as here,
        two.dial() as there,
    ):
        await join(here, None)
        await join(there, None)
        await send(one, 1)
        assert await read(here, 1) == await read(there, 1)
        await send(two, 2, 3)
        first = await read(here, 2)
        await read(here, 3)
        async with two.dial() as again:
            assert await join(again, first) == {}
            await read(again, 3)
            await send(one, 4)
            await read(again, 4)
    async with serving(redis.broker()) as one, one.dial() as again:
        assert await join(again, first) == {}
        last = await read(again, 3, 4)
        await send(one, 5, 6, 7)
        await read(again, 5, 6, 7)
        async with one.dial() as late:
            assert await join(late, first) == {"gap": True}
            await read(late, 5, 6, 7)
        async with one.dial() as late:
            assert await join(late, last) == {}
            await read(late, 5, 6, 7)


async def test_only_broadcasts_to_topics_with_a_history_are_kept(redis: RealRedis) -> None:
    async with serving(redis.broker()) as site:
        await send(site, 1, topic="plain:1")
        await site.channels.hub.publish("entry", "phoenix:presence")
        await site.channels.hub.publish("hello", "news")
        assert "phoenix" not in redis.ask("KEYS *")
        await send(site, 1)
        assert redis.ask("KEYS *phoenix*").count("phoenix") == 1


@pytest.mark.parametrize("history", [None, 10])
async def test_events_that_are_not_kept_do_not_end_channels_after_an_outage(
    history: int | None, redis: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """They may be missing, but nothing else is."""
    async with serving(redis.broker(history=history)) as site, site.dial() as raw:
        await join(raw, None)
        await site.channels.broadcast("room:1", "typing", {"n": 5}, keep=False)
        assert await raw.receive() == [None, None, "room:1", "typing", {"n": 5}]
        assert redis.ask("KEYS *phoenix*").count("phoenix") == 0
        redis.send_plainly("CLIENT KILL TYPE pubsub")
        await send(site, 1)
        await site.channels.broadcast("room:1", "typing", {}, keep=False)
        await read(raw, 1)
        assert await raw.receive() == [None, None, "room:1", "typing", {}]
        await raw.alive()
    assert "history" not in caplog.text


@pytest.mark.slow
async def test_expired_topics_are_removed_although_others_are_kept_without_a_limit(
    redis: RealRedis,
) -> None:
    async with serving(redis.broker()) as site:
        await send(site, 1, topic="forever:1")
        for number in range(100):
            await send(site, number, topic=f"short:{number}")
        await trio.sleep(1.4)
        for number in range(300):
            await send(site, number, topic=f"forever:{number}")
        names = redis.ask("ZRANGE {trioglock}:channels 0 -1")
        assert names.count("phoenix:topic:short:") < 50
        assert names.count("phoenix:topic:forever:") == 300


@pytest.mark.slow
async def test_topics_are_kept_for_different_times(redis: RealRedis) -> None:
    async with serving(redis.broker(history=10)) as site, site.dial() as raw:
        await join(raw, 0, "short:1")
        await join(raw, 0, "long:1", "2")
        await send(site, 1, topic="short:1")
        await send(site, 1, topic="long:1")
        expired, kept = await read(raw, 1, topic="short:1"), await read(raw, 1, topic="long:1")
        await send(site, 1.5, topic="short:1")
        await send(site, *range(2, 300), topic="long:1")
        await trio.sleep(0.4)
        await send(site, 2, topic="short:1")
        async with site.dial() as again:
            assert await join(again, expired, "short:1") == {"gap": True}
            await read(again, 2, topic="short:1")
            assert await join(again, kept, "long:1", "2") == {}
            await read(again, *range(2, 300), topic="long:1")


async def test_another_program_broadcasts_with_the_same_history(redis: RealRedis) -> None:
    async with serving(redis.broker()) as site, site.dial() as raw:

        def send_blocking() -> None:
            for number in range(5):
                broadcast("room:1", "news", {"n": number}, url=redis.url, history=Room.history)
            with pytest.raises(phoenix.InvalidMessage, match="payload must be a dict"):
                broadcast("room:1", "news", [], url=redis.url, history=Room.history)

        await trio.to_thread.run_sync(send_blocking)
        await join(raw, 0)
        await read(raw, 2, 3, 4)


@pytest.mark.slow
async def test_an_outage_ends_only_the_topics_whose_events_are_no_longer_kept(
    redis: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Because there are too many, or because they are too old."""
    async with FaultProxy(("127.0.0.1", redis.port)) as proxy:
        backoff = Backoff(initial=0.05, maximum=0.05, max_attempts=None)
        broker = RedisBroker(proxy.url.replace("ws", "redis", 1), backoff=backoff)
        async with serving(broker) as site, serving(redis.broker()) as other, site.dial() as raw:
            topics = ["room:1", "room:2", "long:1", "short:1", "plain:1"]
            for ref, topic in enumerate(topics):
                await join(raw, 0, topic, str(ref))
            await send(other, 0)
            last = await read(raw, 0)
            proxy.refuse(None)
            proxy.disconnect()
            for topic, count in zip(topics, [10, 2, 50, 1, 1], strict=True):
                await send(other, *range(1, count + 1), topic=topic)
            await trio.sleep(0.4)
            await send(other, 2, topic="short:1")
            proxy.reset()
            received = [await raw.receive() for _ in range(2 + 2 + 50)]
            errors = [one[:2] for one in received if one[3] == "phx_error"]
            assert errors == [["0", "0"], ["3", "3"]]
            events = [(one[2], one[4]["n"]) for one in received if one[3] == "news"]
            long = [("long:1", number) for number in range(1, 51)]
            assert events == [("room:2", 1), ("room:2", 2), *long]
            assert await join(raw, last, "room:1", "5") == {"gap": True}
            await read(raw, 8, 9, 10)
            await send(other, 11)
            await read(raw, 11)
            await raw.alive()
    for text in ("the topic 'room:1'", "the topic 'short:1'", "in 5 topics"):
        assert caplog.text.count(text) == 1


@pytest.mark.slow
async def test_a_history_that_is_lost_is_a_gap(redis: RealRedis) -> None:
    async with serving(redis.broker()) as site, site.dial() as raw:
        await join(raw, 0)
        await send(site, 1)
        last = await read(raw, 1)
        redis.kill()
        redis.start()
        assert (await raw.receive())[3] == "phx_error"
        assert await join(raw, last, ref="2") == {"gap": True}
        await send(site, 2)
        await read(raw, 2)


@pytest.mark.slow
async def test_a_join_during_an_outage_is_refused_until_the_history_can_be_read(
    redis: RealRedis,
) -> None:
    async with serving(redis.broker(publish_timeout=0.5)) as site, site.dial() as raw:
        await send(site, 1)
        redis.freeze()
        reply = await raw.ask("1", "1", "room:1", "phx_join", {"after": 0})
        assert reply[4] == {"response": {"reason": "the history cannot be read"}, "status": "error"}
        redis.thaw()
        assert await join(raw, 0, ref="2") == {}
        await read(raw, 1)


MEMBERS = 50
EVENTS_PER_SECOND = 50


class Servers:
    """Server processes that share a port."""

    def __init__(self, redis: RealRedis, nursery: trio.Nursery) -> None:
        self._redis = redis
        self._nursery = nursery
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self.running: list[trio.Process] = []

    async def start(self) -> None:
        """Start a process, and wait until it listens."""
        command = [
            sys.executable,
            "-m",
            "tests.channels.history_server",
            self._redis.url,
            str(self.port),
        ]
        process: trio.Process = await self._nursery.start(
            lambda **options: trio.run_process(command, stdout=-1, check=False, cwd=ROOT, **options)
        )
        assert process.stdout is not None
        assert (await process.stdout.receive_some()).startswith(b"ready")
        self.running.append(process)

    async def stop(self, number: signal.Signals) -> None:
        """Stop the oldest process."""
        process = self.running.pop(0)
        process.send_signal(number)
        await process.wait()

    def close(self) -> None:
        for process in self.running:
            process.kill()
        self._reserved.close()


class Member:
    """A client that counts, and joins again with the last id."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.joins = 0

    async def run(self, port: int) -> None:
        reconnect = Backoff(initial=0.05, maximum=0.1, max_attempts=None)
        url = f"ws://127.0.0.1:{port}/socket"
        async with phoenix.connect(url, reconnect=reconnect) as client:
            room = await client.join("room:1", {"after": 0}, id_field="id")
            async for event, payload in room:
                assert event == "news"
                assert room.response == {}
                self.numbers.append(payload["n"])
                self.joins = room.join_count


@pytest.mark.slow
async def test_a_rolling_restart_under_load_loses_nothing(redis: RealRedis) -> None:
    """One of two processes is stopped, and the other one is killed."""
    count = 0
    members = [Member() for _ in range(MEMBERS)]
    channels = Channels(ROUTES, hub=Hub(broker=redis.broker()))

    async def send_forever() -> None:
        nonlocal count
        while True:
            with trio.CancelScope(shield=True):  # a broadcast that is cancelled may arrive
                await channels.broadcast("room:1", "news", {"n": count})
            count += 1
            await trio.sleep(1 / EVENTS_PER_SECOND)

    with trio.fail_after(120):
        async with channels.hub, trio.open_nursery() as nursery:
            servers = Servers(redis, nursery)
            try:
                async with trio.open_nursery() as starting:
                    starting.start_soon(servers.start)
                    starting.start_soon(servers.start)
                sending = trio.CancelScope()

                async def send() -> None:
                    with sending:
                        await send_forever()

                nursery.start_soon(send)
                for member in members:
                    nursery.start_soon(member.run, servers.port)
                while not all(member.numbers for member in members):
                    await trio.sleep(0.01)
                await servers.stop(signal.SIGTERM)
                await servers.start()
                await servers.stop(signal.SIGKILL)
                await trio.sleep(0.3)
                sending.cancel()
                while not all(member.numbers[-1] == count - 1 for member in members):
                    await trio.sleep(0.01)
                for member in members:
                    assert member.numbers == list(range(count))
                assert min(member.joins for member in members) >= 1
                assert sum(member.joins for member in members) >= MEMBERS * 1.5
            finally:
                servers.close()
                nursery.cancel_scope.cancel()
