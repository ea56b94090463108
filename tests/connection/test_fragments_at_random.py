"""Many tasks send in fragments and as a whole, over links that break at random."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.hooks.helpers import URL
from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionClosed,
    MemoryTransport,
    MessageInterrupted,
    Ping,
    Pong,
    broadcast,
    connect,
)
from trioglock.frames import Fragment
from trioglock.testing import MemoryLink
from trioglock.transports import LinkBroken

FAST = Backoff(initial=0.01, jitter="none", max_attempts=None)


class Failed(Exception):
    """Raised by an iterable."""


class World:
    """What was sent completely, and what has arrived."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.completed: list[str] = []
        self.arrived: list[str] = []
        self.interrupted = 0

    async def sleep(self) -> None:
        await trio.sleep(self.rng.choice([0, 0, 0.001, 0.01, 0.1]))

    async def items(self, name: str) -> AsyncIterator[str]:
        for number in range(self.rng.randrange(1, 6)):
            await self.sleep()
            if self.rng.random() < 0.02:
                raise Failed
            yield f"{name}." if not number else "x" * self.rng.randrange(300)

    async def sender(self, conn: Connection[Any], name: int) -> None:
        for number in range(20):
            await self.sleep()
            whole = self.rng.random() < 0.5
            message = f"{name}/{number}"
            with trio.move_on_after(self.rng.choice([0.05, 100])), suppress(Failed):
                try:
                    await conn.send(f"{message}." if whole else self.items(message))
                except MessageInterrupted:
                    self.interrupted += 1
                else:
                    self.completed.append(message)

    async def disturber(self, conn: Connection[Any]) -> None:
        for _ in range(20):
            await self.sleep()
            match self.rng.randrange(4):
                case 0:
                    with suppress(trio.WouldBlock):
                        conn.send_frame_nowait(Ping(b"x"))
                case 1:
                    broadcast([conn], "b.")
                case 2:
                    with trio.move_on_after(0.1):
                        await conn.flush()
                case _:
                    await conn.send_frame("f.")

    async def peer(self, transport: MemoryTransport) -> None:
        while True:
            far = await transport.accept()
            far.fragments = True
            with trio.move_on_after(self.rng.choice([0.05, 0.3, 2])), suppress(LinkBroken):
                await self.read(far)
            await far.aclose()

    async def read(self, far: MemoryLink) -> None:
        """Check that nothing but control frames is between the fragments of a message."""
        parts: list[Any] = []
        is_open = False
        while events := await far.receive():
            for event in events:
                match event:
                    case Fragment(data, first, final):
                        assert first != is_open
                        is_open = not final
                        parts.append(data)
                        if final:
                            self.arrived.append("".join(parts).partition(".")[0])
                            parts = []
                    case Close():
                        await far.write([Close(1000)])
                        return
                    case _:
                        assert isinstance(event, Ping | Pong)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.slow
async def test_messages_are_never_mixed(seed: int, autojump_clock: MockClock) -> None:
    world = World(seed)
    transport = MemoryTransport(capacity=2)
    with trio.fail_after(10_000):
        async with trio.open_nursery() as peers:
            peers.start_soon(world.peer, transport)
            async with connect(
                URL, transport=transport, reconnect=FAST, write_limit=500, ping_interval=None
            ) as conn:
                async with trio.open_nursery() as nursery:
                    for name in range(5):
                        nursery.start_soon(world.sender, conn, name)
                    nursery.start_soon(world.disturber, conn)
                with suppress(ConnectionClosed):
                    await conn.flush()
                assert conn.statistics().send_queue_bytes == 0
                in_doubt = conn.statistics().in_doubt
            peers.cancel_scope.cancel()
    arrived = [name for name in world.arrived if "/" in name]
    assert len(arrived) == len(set(arrived))
    # The far end may close with frames in its channel, which count as written.
    assert len(world.completed) > 20
    assert in_doubt < 40
