"""Presence in two processes that share a Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import trio

from tests.channels.presence_helpers import (
    PresenceSite,
    StrictPresence,
    received,
    refs_of,
    serving_presence,
    synced,
)
from tests.pubsub.redis_server import RealRedis, real_redis
from trioglock.pubsub import Hub

pytestmark = [pytest.mark.redis, pytest.mark.slow]

SECONDS = 300
"""Time limit of a test."""


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """A Redis server for one test."""
    with real_redis() as server:
        yield server


async def agreed(*sites: PresenceSite, count: int) -> None:
    """Wait until all processes have the same list of this length."""
    while True:
        first, *others = [refs_of(site.presence.list("room:1")) for site in sites]
        if len(first) == count and all(other == first for other in others):
            return
        await trio.sleep(0.01)


async def test_a_burst_of_joins_in_both_processes_loses_none(redis: RealRedis) -> None:
    """All lists and all clients agree."""
    with trio.fail_after(SECONDS):
        async with (
            serving_presence(Hub(broker=redis.broker())) as one,
            serving_presence(Hub(broker=redis.broker())) as two,
            AsyncExitStack() as stack,
        ):
            clients = [
                await stack.enter_async_context(site.dial())
                for _ in range(30)
                for site in (one, two)
            ]
            for number, client in enumerate(clients):
                await client.send("1", "1", "room:1", "phx_join", {"key": f"user {number}"})
            presences: list[StrictPresence] = []
            for client in clients:
                assert (await client.receive())[3] == "phx_reply"
                _, _, _, event, state = await client.receive()
                assert event == "presence_state"
                presences.append(StrictPresence(state))
            await agreed(one, two, count=60)
            for client, presence in zip(clients, presences, strict=True):
                while len(presence.refs) < 60:
                    presence.receive([await client.receive()])
            for client in clients[::2]:
                await client.send("1", "2", "room:1", "phx_leave", {})
            await agreed(one, two, count=30)


@pytest.mark.parametrize("history", [None, 100])
async def test_processes_agree_again_after_an_outage_of_redis(
    redis: RealRedis, history: int | None
) -> None:
    """Changes meanwhile reach the clients of their own process immediately."""
    with trio.fail_after(SECONDS):
        async with (
            serving_presence(Hub(broker=redis.broker(publish_timeout=0.5, history=history))) as one,
            serving_presence(Hub(broker=redis.broker(publish_timeout=0.5, history=history))) as two,
            one.dial() as al,
            two.dial() as bo,
        ):
            presence, other = await synced(al, "al"), await synced(bo, "bo")
            await agreed(one, two, count=2)
            redis.kill()
            await al.send("1", "2", "room:1", "status", "away")
            presence.receive(await received(al, 1))
            await bo.send("1", "2", "room:1", "untrack", None)
            other.receive(await received(bo, 1))
            assert one.keys() == {"al": ["away"], "bo": ["here"]}
            assert two.keys() == {"al": ["here"]}
            redis.start()
            await agreed(one, two, count=1)
            presence.receive(await received(al, 0.2))
            other.receive(await received(bo, 0.2))
            for entries in (presence.presence.state, other.presence.state):
                assert entries == one.presence.list("room:1")
            assert one.keys() == {"al": ["away"]}


async def test_a_process_that_starts_asks_the_others(redis: RealRedis) -> None:
    """It receives the state of the others in several messages."""
    topics = [f"room:{number}" for number in range(50)]
    with trio.fail_after(SECONDS):
        async with (
            serving_presence(Hub(broker=redis.broker())) as one,
            AsyncExitStack() as stack,
        ):
            for number in range(4):
                client = await stack.enter_async_context(one.dial())
                for topic in topics:
                    payload = {"key": f"{number} {'x' * 1_000}"}
                    await client.send(topic, topic, topic, "phx_join", payload)
            while any(len(one.keys(topic)) < 4 for topic in topics):
                await trio.sleep(0.01)
            async with serving_presence(Hub(broker=redis.broker())) as two:
                while any(two.keys(topic) != one.keys(topic) for topic in topics):
                    await trio.sleep(0.01)
