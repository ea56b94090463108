"""Subscriptions of a connection with a ``send_rate``, whose requests wait in the send queue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trioglock import Backoff, Close, ConnectionClosed, Gap, MemoryTransport, Rate, connect
from trioglock.client import ConnectOptions

from .feeds import CODEC, Feed, FeedServer, SilentFeed

RATE = Rate(1, margin=0)


class Single(Feed):
    """A feed with one key per message."""

    batch = 1


class SilentSingle(SilentFeed):
    """A feed with one key per message, which confirms nothing."""

    batch = 1


def options(transport: MemoryTransport, feed: Any, rate: Rate = RATE) -> ConnectOptions:
    return {
        "transport": transport,
        "codec": CODEC,
        "subscriptions": feed,
        "reconnect": Backoff(initial=1, jitter="none", max_attempts=None),
        "ping_interval": None,
        "send_rate": rate,
    }


async def test_the_timeout_starts_with_the_write(autojump_clock: MockClock) -> None:
    """Not while the request waits: a key that was sent just now gets the whole time."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport, Single())) as conn:
        server = await FeedServer.accept(transport)
        async with trio.open_nursery() as nursery:

            async def confirm(keys: Sequence[str]) -> None:
                await trio.sleep(9)
                await server.send({"subscribed": keys})

            async def serve() -> None:
                while True:
                    nursery.start_soon(confirm, (await server.receive())["subscribe"])

            nursery.start_soon(serve)
            async with conn.subscribe(*map(str, range(25))):
                assert trio.current_time() == 24 + 9
                nursery.cancel_scope.cancel()
        conn.abort()


async def test_gaps_of_a_silent_feed(autojump_clock: MockClock) -> None:
    """A key is active, and its gap is reported, when its message has been written."""
    transport = MemoryTransport()
    keys = [str(number) for number in range(5)]
    async with connect("ws://feed/", **options(transport, SilentSingle())) as conn:
        server = await FeedServer.accept(transport)
        times: dict[str, float] = {}
        entered: dict[str, float] = {}
        gaps: dict[str, float] = {}

        async def receive_all() -> None:
            for _ in keys:
                [key] = (await server.receive())["subscribe"]
                times[key] = trio.current_time()

        async def consume(key: str) -> None:
            async with conn.subscribe(key) as updates:
                entered[key] = trio.current_time()
                assert isinstance(await anext(updates), Gap)
                gaps[key] = trio.current_time()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(consume, key)
            await receive_all()
            await trio.testing.wait_all_tasks_blocked()
            assert entered == times
            await server.link.aclose()
            server = await FeedServer.accept(transport)
            await receive_all()
            await trio.testing.wait_all_tasks_blocked()
            assert gaps == times
            assert len(set(times.values())) == 5
            nursery.cancel_scope.cancel()
        conn.abort()


async def test_flush_waits_for_requests_that_are_removed(autojump_clock: MockClock) -> None:
    """It returns when the end of the link has removed them."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport, Single())) as conn:
        server = await FeedServer.accept(transport)
        async with trio.open_nursery() as nursery:

            async def consume() -> None:
                with scope:
                    async with conn.subscribe("a", "b", "c"):
                        raise AssertionError

            async def flush() -> None:
                with trio.fail_after(60):
                    await conn.flush()

            scope = trio.CancelScope()
            nursery.start_soon(consume)
            await trio.sleep(0.5)
            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await server.link.aclose()
            await FeedServer.accept(transport)
        conn.abort()


async def test_closing_removes_requests(autojump_clock: MockClock) -> None:
    """They neither delay the data of the program and the Close frame, nor are they unsent."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport, Single())) as conn:
        server = await FeedServer.accept(transport)
        async with trio.open_nursery() as nursery:

            async def consume() -> None:
                with pytest.raises(ConnectionClosed):
                    async with conn.subscribe(*map(str, range(100))):
                        raise AssertionError

            nursery.start_soon(consume)
            await trio.sleep(0.5)
            conn._session.writer.put("last")
            nursery.start_soon(conn.aclose)
            assert await server.receive() == {"subscribe": ["0"]}
            assert await server.link.receive() == [["last"], Close(1000)]
            assert trio.current_time() == 1
            await server.link.aclose()
        with pytest.raises(ConnectionClosed) as closed:
            await conn.send({})
        assert closed.value.unsent == ()


@pytest.mark.parametrize("silent", [False, True])
async def test_leaving_many_keys_does_not_delay_the_end(
    silent: bool, autojump_clock: MockClock
) -> None:
    """Keys are not unsubscribed one by one if the block of the connection ends as well."""
    transport, count = MemoryTransport(), 100
    feed = SilentSingle() if silent else Single()
    keys = [str(number) for number in range(count)]
    async with trio.open_nursery() as nursery:
        async with connect("ws://feed/", **options(transport, feed)) as conn:
            server = await FeedServer.accept(transport)

            async def serve() -> None:
                for _ in keys:
                    await server.send({"subscribed": (await server.receive())["subscribe"]})
                await server.receive_until_closed()

            nursery.start_soon(serve)
            async with trio.open_nursery() as body:

                async def consume(key: str) -> None:
                    async with conn.subscribe(key) as updates:
                        async for _ in updates:
                            raise AssertionError

                for key in keys:
                    body.start_soon(consume, key)
                await trio.sleep(2 * count)
                body.cancel_scope.cancel()
            ended = trio.current_time()
        assert conn.close_code == 1000
        assert trio.current_time() - ended < 1


async def test_closing_during_a_reconnect(autojump_clock: MockClock) -> None:
    """Requests of the link that reconnect() is closing are not unsent messages."""
    transport = MemoryTransport()
    async with connect("ws://feed/", **options(transport, Single())) as conn:
        await FeedServer.accept(transport)
        async with trio.open_nursery() as nursery:

            async def fails(method: Any) -> None:
                with pytest.raises(ConnectionClosed) as closed:
                    await method()
                assert closed.value.unsent == ()

            nursery.start_soon(fails, conn.subscribe("a", "b", "c").__aenter__)
            await trio.sleep(0.5)
            nursery.start_soon(fails, conn.reconnect)
            await trio.testing.wait_all_tasks_blocked()
            await conn.aclose()


@pytest.mark.slow
async def test_many_queued_requests() -> None:
    """The work for each request does not grow with the number of others."""
    transport, count = MemoryTransport(), 1000
    async with connect("ws://feed/", **options(transport, SilentSingle(), Rate(1, per=60))) as conn:
        async with trio.open_nursery() as nursery:

            async def consume(key: str) -> None:
                async with conn.subscribe(key):
                    raise AssertionError

            began = time.process_time()
            await consume_first(conn)
            for number in range(count):
                nursery.start_soon(consume, str(number))
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
            seconds = time.process_time() - began
            assert len(conn._session.send_queue) >= count
            nursery.cancel_scope.cancel()
        conn.abort()
    assert seconds < 3


async def consume_first(conn: Any) -> None:
    """Use up the only slot."""
    async with conn.subscribe("first"):
        pass
