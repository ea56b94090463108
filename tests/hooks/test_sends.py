"""Sends through slow hooks: cancelled, refused, whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import Scripted, delivered, linked, settled, taken
from trioglock import (
    UsageError,
)


class Slow(Scripted):
    """Takes a minute for every cast, call and send that asks for it."""

    async def handle_cast(self, message: Any, state: int) -> Any:
        await self._minute(message)
        return super().handle_cast(message, state)

    async def handle_call(self, request: Any, state: int) -> Any:
        await self._minute(request)
        return super().handle_call(request, state)

    async def handle_send(self, message: Any, state: int) -> Any:
        await self._minute(message)
        return super().handle_send(message, state)

    async def _minute(self, what: Any) -> None:
        if what == "slow":
            await trio.sleep(60)


async def test_a_cancelled_send_that_runs_queues_nothing(autojump_clock: MockClock) -> None:
    """Cancelled inside its async hook, a send leaves the state and sends nothing."""
    socket = Slow()
    async with linked(socket) as (conn, far):
        with trio.move_on_after(5) as scope:
            await conn.send("slow")
        assert scope.cancelled_caught
        await trio.sleep(120)
        assert conn.state == 1
        assert await taken(far) == []
        await conn.send("next")
        assert await taken(far) == ["next"]


async def test_a_cancelled_send_that_waits_queues_nothing(autojump_clock: MockClock) -> None:
    """Cancelled while it waits for its turn, a send is withdrawn."""
    socket = Slow()
    async with linked(socket) as (conn, far):
        conn.cast("slow")
        await settled()
        with trio.move_on_after(5) as scope:
            await conn.send("withdrawn")
        assert scope.cancelled_caught
        await trio.sleep(120)
        assert socket.ran("handle_send") == 0
        assert await taken(far) == []


async def test_a_cancelled_send_in_the_mailbox_is_whole_or_nothing(
    autojump_clock: MockClock,
) -> None:
    """Cancelled while the mailbox runs its hook: state and frames agree, whichever way it went."""
    socket = Slow(handle_send=("a", "b"))
    async with linked(socket) as (conn, far):
        conn.cast("slow")
        await settled()
        with trio.move_on_after(90) as scope:
            await conn.send("slow")
        assert scope.cancelled_caught
        await trio.sleep(120)
        frames = await taken(far)
        assert (conn.state, frames) in [(2, []), (3, ["a", "b"])]


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    """Messages that come as receivers are cancelled go to the next receiver, in order."""
    async with linked() as (conn, far):
        got: list[str] = []
        for number in range(20):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(far.write, [str(number)])
                    for _ in range(number % 4):
                        await trio.lowlevel.checkpoint()
                    nursery.start_soon(cancel, scope)
                    got.append(await conn.receive())
        got += await delivered(conn)
        assert got == [str(number) for number in range(20)]


async def cancel(scope: trio.CancelScope) -> None:
    await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_send_nowait_would_block_when_the_outbox_is_full(autojump_clock: MockClock) -> None:
    """At write_limit bytes it raises WouldBlock and leaves the state; later there is room."""
    socket = Scripted()
    async with linked(socket, write_limit=10) as (conn, far):
        conn.send_nowait("on the spot")
        conn.send_nowait("12345")
        conn.send_nowait("67890")
        with pytest.raises(trio.WouldBlock):
            conn.send_nowait("x")
        assert (socket.ran("handle_send"), conn.state) == (3, 4)
        assert await taken(far) == ["on the spot", "12345", "67890"]
        conn.send_nowait("x")
        assert await taken(far) == ["x"]


async def test_send_nowait_needs_a_plain_hook(autojump_clock: MockClock) -> None:
    """With an async handle_send it raises UsageError and says what to use."""
    async with linked(Slow()) as (conn, far):
        with pytest.raises(UsageError, match=r"Slow\.handle_send is async; use await send\(\)"):
            conn.send_nowait("x")
        assert await taken(far) == []
