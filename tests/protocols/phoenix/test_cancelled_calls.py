"""Joins, pushes and leaves that are cancelled, or run out of time, leave nothing behind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.test_cancel_at_every_step import CancelAtStep
from tests.protocols.phoenix.helpers import connected
from trioglock.protocols.phoenix import JoinTimeout, PhoenixSocket
from trioglock.testing import MockPhoenixServer


async def keep_mailbox_busy(socket: PhoenixSocket, rounds: int) -> None:
    """Queue requests of the socket's hooks that do nothing, so that calls wait behind them."""
    for _ in range(rounds):
        socket.connection.cast(list)
        await trio.lowlevel.checkpoint()


async def slow_payload() -> dict[str, Any]:
    for _ in range(random.randrange(4)):
        await trio.lowlevel.checkpoint()
    return {}


async def expect_nothing_left(
    server: MockPhoenixServer, socket: PhoenixSocket, *, late: bool = False
) -> None:
    client = await server.client()
    with trio.fail_after(20):
        while client.channels or socket.statistics().pending:
            await trio.sleep(0.01)
    assert socket.channels == 0
    assert late or socket.statistics().ignored == 0


async def cancel_after(rounds: int, scope: trio.CancelScope) -> None:
    for _ in range(rounds):
        await trio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.parametrize("at", ["join", "push", "leave"])
async def test_fault_21_cancelling_at_every_step(autojump_clock: MockClock, at: str) -> None:
    """Also in the batch of the scheduler in which the mailbox runs the request."""
    finished = 0
    async with connected() as (server, socket):
        for step in range(1, 75):
            channel = None if at == "join" else await socket.join("room:1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_mailbox_busy, socket, 8)
                with trio.CancelScope() as scope, cancelling(scope, step):
                    if channel is None:
                        channel = await socket.join("room:1", slow_payload)
                    elif at == "push":
                        await channel.push("echo")
                        await channel.send("silent")
                    else:
                        await channel.leave()
                    finished += 1
                nursery.cancel_scope.cancel()
            if channel is not None:
                await channel.leave()
            await (await socket.join("room:1")).leave()
            await expect_nothing_left(server, socket, late=at == "push")
    assert 0 < finished < 74


@contextmanager
def cancelling(scope: trio.CancelScope, step: int) -> Iterator[None]:
    instrument = CancelAtStep(scope, step)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)


@pytest.mark.parametrize("own_timeout", [False, True])
async def test_fault_21_random_cancellations(own_timeout: bool) -> None:
    """By a scope or by the join's own timeout: the topic can be joined again."""
    joined = failed = 0
    async with connected() as (server, socket):

        async def join_often(topic: str) -> None:
            nonlocal joined, failed
            for _ in range(25):
                channel = None
                if own_timeout:
                    seconds = random.uniform(1e-6, 0.01)
                    try:
                        channel = await socket.join(topic, slow_payload, timeout=seconds)
                    except JoinTimeout:
                        failed += 1
                else:
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(cancel_after, random.randrange(100), scope)
                            channel = await socket.join(topic, slow_payload)
                            nursery.cancel_scope.cancel()
                    failed += scope.cancelled_caught
                if channel is not None:
                    joined += 1
                    await channel.leave(timeout=10)

        async with trio.open_nursery() as busy:
            busy.start_soon(keep_mailbox_busy, socket, 10**9)
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(join_often, f"room:{number}")
            busy.cancel_scope.cancel()
        await expect_nothing_left(server, socket)
    assert joined + failed == 6 * 25
    assert failed or own_timeout  # replies may be fast
