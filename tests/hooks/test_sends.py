"""Sends through slow hooks: cancellation and errors."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import Scripted, SlowHooks, linked, read_frames, wait_for_hooks
from trioglock import UsageError


async def test_a_send_cancelled_in_its_hook(autojump_clock: MockClock) -> None:
    """It leaves the state and sends nothing."""
    socket = SlowHooks()
    async with linked(socket) as (conn, far):
        with trio.move_on_after(5) as scope:
            await conn.send("slow")
        assert scope.cancelled_caught
        await trio.sleep(120)
        assert conn.state == 1
        assert await read_frames(far) == []
        await conn.send("next")
        assert await read_frames(far) == ["next"]


async def test_a_send_cancelled_while_it_waits(autojump_clock: MockClock) -> None:
    """It is withdrawn."""
    socket = SlowHooks()
    async with linked(socket) as (conn, far):
        conn.cast("slow")
        await wait_for_hooks()
        with trio.move_on_after(5) as scope:
            await conn.send("withdrawn")
        assert scope.cancelled_caught
        await trio.sleep(120)
        assert socket.count("handle_send") == 0
        assert await read_frames(far) == []


async def test_a_send_cancelled_while_the_mailbox_runs_its_hook(autojump_clock: MockClock) -> None:
    """State and frames agree in both cases."""
    socket = SlowHooks(handle_send=("a", "b"))
    async with linked(socket) as (conn, far):
        conn.cast("slow")
        await wait_for_hooks()
        with trio.move_on_after(90) as scope:
            await conn.send("slow")
        assert scope.cancelled_caught
        await trio.sleep(120)
        frames = await read_frames(far)
        assert (conn.state, frames) in [(2, []), (3, ["a", "b"])]


async def test_send_nowait_at_a_full_send_queue(autojump_clock: MockClock) -> None:
    """It raises WouldBlock and leaves the state."""
    socket = Scripted()
    async with linked(socket, write_limit=10) as (conn, far):
        conn.send_nowait("on the spot")
        conn.send_nowait("12345")
        conn.send_nowait("67890")
        with pytest.raises(trio.WouldBlock):
            conn.send_nowait("x")
        assert (socket.count("handle_send"), conn.state) == (3, 4)
        assert await read_frames(far) == ["on the spot", "12345", "67890"]
        conn.send_nowait("x")
        assert await read_frames(far) == ["x"]


async def test_send_nowait_needs_a_plain_hook(autojump_clock: MockClock) -> None:
    """With an async handle_send it raises UsageError with a hint."""
    async with linked(SlowHooks()) as (conn, far):
        with pytest.raises(
            UsageError, match=r"SlowHooks\.handle_send is async; use await send\(\)"
        ):
            conn.send_nowait("x")
        assert await read_frames(far) == []
