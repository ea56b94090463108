"""Subscriptions on real sockets, through a proxy that cuts the connection."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed

from trioglock import Backoff, Gap, connect
from trioglock.codecs import JSON
from trioglock.testing import FaultProxy, MockPeer, MockServer

from .feeds import Feed

pytestmark = pytest.mark.slow

KEYS = [f"key-{number}" for number in range(40)]


class Batched(Feed):
    batch = 7


class Exchange:
    """Publishes numbered updates of all keys to the clients that subscribe."""

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self.clients: dict[trio.MemorySendChannel[Any], set[str]] = {}
        """The outgoing messages and the active keys of each client."""

    async def serve(self, peer: MockPeer) -> None:
        outgoing, messages = trio.open_memory_channel[Any](math.inf)
        active = self.clients[outgoing] = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.write, peer, messages, nursery.cancel_scope)
            while (request := await self.read(peer)) is not None:
                added = set(request.get("subscribe", ()))
                assert not added & active
                active |= added
                active -= set(request.get("unsubscribe", ()))
                for kind, keys in request.items():
                    outgoing.send_nowait({f"{kind}d": keys})
            nursery.cancel_scope.cancel()
        del self.clients[outgoing]

    async def read(self, peer: MockPeer) -> Any:
        with suppress(AssertionError):
            return json.loads(await peer.receive())

    async def write(self, peer: MockPeer, messages: Any, scope: trio.CancelScope) -> None:
        try:
            async for message in messages:
                await peer.send(json.dumps(message))
        except (ConnectionClosed, trio.BrokenResourceError):
            scope.cancel()

    async def publish(self) -> None:
        random = Random(1)
        while True:
            await trio.sleep(0.001)
            for key in random.choices(KEYS, k=10):
                self.numbers[key] += 1
                for outgoing, active in self.clients.items():
                    if key in active:
                        outgoing.send_nowait({"key": key, "n": self.numbers[key]})


async def check(updates: Any, statistics: Counter[str]) -> None:
    """Every update arrives, or a gap is reported."""
    last: dict[str, int] = {}
    async for update in updates:
        if isinstance(update, Gap):
            statistics["gaps"] += 1
            for key in updates.keys if update.channel is None else [update.channel]:
                last.pop(key, None)
            continue
        key, number = update["key"], update["n"]
        assert number == last.get(key, number - 1) + 1
        last[key] = number
        statistics["updates"] += 1


async def test_no_unreported_gap() -> None:
    """Tasks join and leave while the connection is cut ten times."""
    exchange, statistics, random = Exchange(), Counter[str](), Random(2)

    async def come_and_go(conn: Any) -> None:
        while True:
            keys = random.sample(KEYS, 3)
            with trio.move_on_after(random.uniform(0.005, 0.2)):
                async with conn.subscribe(*keys) as updates:
                    await check(updates, statistics)

    async def stay(conn: Any, keys: list[str]) -> None:
        async with conn.subscribe(*keys) as updates:
            await check(updates, statistics)

    async with (
        MockServer(exchange.serve) as server,
        FaultProxy(server) as proxy,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(exchange.publish)
        backoff = Backoff(initial=0.02, maximum=0.05, max_attempts=None)
        async with (
            connect(proxy.url, codec=JSON(), subscriptions=Batched(), reconnect=backoff) as conn,
            trio.open_nursery() as consumers,
        ):
            for start in range(0, 20, 4):
                consumers.start_soon(stay, conn, KEYS[start : start + 4])
            with trio.move_on_after(3):
                async with trio.open_nursery() as visitors:
                    for _ in range(5):
                        visitors.start_soon(come_and_go, conn)
                    for cut in range(10):
                        await trio.sleep(0.2)
                        (proxy.reset_peer if cut % 2 else proxy.disconnect)()
                    visitors.cancel_scope.cancel()
            await trio.sleep(0.5)
            assert [keys for keys in exchange.clients.values() if keys] == [set(KEYS[:20])]
            consumers.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert statistics["gaps"] >= 10
    assert statistics["updates"] > 100
