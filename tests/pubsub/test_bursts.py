"""Messages of one chunk from a broker, or published in one turn, leave in one write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.pubsub.helpers import SECONDS, joined, served
from tests.pubsub.redis_server import RealRedis
from tests.server.writes import CountingClient, counting_clients, counts_writes, writes_immediately
from trioglock import connect
from trioglock.pubsub import Hub, MemoryBroker, Message
from trioglock.server import Server, serve

NUMBERS = [str(number) for number in range(8)]


@asynccontextmanager
async def subscribed(
    hub: Hub, count: int = 1, **options: Any
) -> AsyncIterator[tuple[Server, list[CountingClient]]]:
    """A server of a hub, and some clients of the channel ``x``."""
    with trio.fail_after(SECONDS):
        async with (
            hub,
            serve(hub.socket, "127.0.0.1", 0, **options) as server,
            counting_clients(server, count, "/x") as clients,
        ):
            yield server, clients


async def assert_one_write(clients: list[CountingClient]) -> None:
    """Each client receives the numbers in one write."""
    for client in clients:
        assert await client.texts(8) == NUMBERS
        assert client.writes() == 1


@counts_writes
async def test_a_loop_that_publishes() -> None:
    """To a memory broker. The second burst as well, after a pause."""
    hub = Hub()
    async with subscribed(hub, 3) as (_, clients):
        for _ in range(2):
            for number in NUMBERS:
                await hub.publish(number, "x")
            await assert_one_write(clients)
            await trio.sleep(0.02)


@counts_writes
async def test_tasks_that_publish_in_one_turn() -> None:
    """Each one a message."""
    hub = Hub()
    async with subscribed(hub, 2) as (_, clients), trio.open_nursery() as nursery:
        for number in NUMBERS:
            nursery.start_soon(hub.publish, number, "x")
        for client in clients:
            assert sorted(await client.texts(8)) == NUMBERS
            assert client.writes() == 1


@counts_writes
@pytest.mark.parametrize("target", ["broadcast", "publish"])
async def test_a_listener_that_republishes(target: str) -> None:
    """An async one and a plain one."""
    hub = Hub()
    async with subscribed(hub, 2) as (server, clients):
        if target == "broadcast":

            @hub.on("in")
            def plain(message: Message) -> None:
                server.broadcast(message.data)
        else:

            @hub.on("in")
            async def relay(message: Message) -> None:
                await hub.publish(message.data, "x")

        for number in NUMBERS:
            await hub.publish(number, "in")
        await assert_one_write(clients)


@counts_writes
@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("history", [None, 100])
async def test_a_chunk_from_redis(redis: RealRedis, history: int | None, listens: bool) -> None:
    """With and without a history, to clients directly and through a listener."""
    hub = Hub(broker=redis.broker(history=history))
    async with subscribed(hub, 2) as (server, clients):

        @hub.on("in")
        async def relay(message: Message) -> None:
            server.broadcast(message.data)

        channel = "in" if listens else "x"
        born = hub.history.last if history else ""
        await hub.wait_subscribed(channel)
        commands = [
            f"PUBLISH trioglock/{channel} {number}"
            if history is None
            else f'PUBLISH {{trioglock}}/{channel} "{born[:-1]}1{number} {born} {number}"'
            for number in NUMBERS
        ]
        redis.send_plainly("MULTI", *commands, "EXEC")
        await assert_one_write(clients)


@counts_writes
async def test_missed_messages() -> None:
    """To a client that returns: one write for them, besides the confirmation of its return."""
    hub = Hub(broker=MemoryBroker(history=8))
    async with subscribed(hub, 0) as (server, _):
        before = hub.history.last
        for number in NUMBERS:
            await hub.publish(number, "x")
        async with counting_clients(server, 1, f"/x?after={before}") as [client]:
            texts = await client.texts(9)
            assert [json.loads(text).get("data") for text in texts] == [None, *NUMBERS]
            assert client.writes() <= 2


async def test_a_client_that_has_missed_no_message(redis: RealRedis) -> None:
    """Its return does not read the history in Redis."""
    hub = Hub(broker=redis.broker(history=8))
    async with served(hub) as url:
        async with connect(url + "x?after=") as client:
            after = json.loads(await client.receive())["id"]
        for reads in (False, True):
            async with connect(f"{url}x?after={after}") as client:
                assert json.loads(await client.receive())["id"] == after
                if not reads:
                    await hub.publish("missed by the next one", "x")
                assert json.loads(await client.receive())["data"] == "missed by the next one"
            assert ("cmdstat_xlen" in redis.ask("INFO commandstats")) is reads


@writes_immediately
async def test_a_burst_larger_than_write_limit_is_not_dropped() -> None:
    """A client that reads is not slow because its messages are held back."""
    hub = Hub(max_queue=1, overflow="close")
    async with subscribed(hub, write_limit=1000) as (_, [client]):
        sent = [f"{number:100}" for number in range(50)]
        for text in sent:
            await hub.publish(text, "x")
        assert await client.texts(50) == sent
        assert hub.statistics().disconnected == 0


@pytest.mark.parametrize("max_queue", [4, 256])
async def test_a_loop_that_publishes_does_not_overflow_subscriptions(max_queue: int) -> None:
    """It lets them run before their queues are full."""
    hub = Hub(max_queue=max_queue)
    with trio.fail_after(SECONDS):
        async with hub, trio.open_nursery() as nursery:
            subscription = hub.subscribe("x")
            received: list[object] = []

            async def read() -> None:
                while True:
                    received.append((await anext(subscription)).data)

            nursery.start_soon(read)
            sent = [str(number) for number in range(1000)]
            for number in sent:
                await hub.publish(number, "x")
            while len(received) + subscription.dropped < 1000:
                await trio.lowlevel.checkpoint()
            assert subscription.dropped == 0
            assert received == sent
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("clients", [0, 1])
async def test_a_loop_that_only_publishes_lets_other_tasks_run(clients: int) -> None:
    """With and without clients."""
    hub = Hub()
    async with subscribed(hub, clients), trio.open_nursery() as nursery:
        await joined(hub, clients)
        others: list[None] = []

        async def other() -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            others.append(None)

        nursery.start_soon(other)
        while not others:
            await hub.publish("x", "x")
