"""An async handle_send that waits in the task of the sender."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import linked, read_frames, wait_for_hooks
from trioglock import ConnectionClosed, Socket


class Waits(Socket[int]):
    """Runs ``wait`` for each message."""

    def __init__(self, wait: Any) -> None:
        self.wait = wait

    def init_stream(self, info: Any) -> int:
        return 0

    async def handle_send(self, message: Any, state: int) -> Any:
        await self.wait()
        return message, state + 1


async def test_it_may_use_scopes_and_nurseries(autojump_clock: MockClock) -> None:
    """Timeouts and child tasks of the hook work as usual."""

    async def wait() -> None:
        with trio.move_on_after(1) as scope:
            await trio.sleep(5)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 2)
            nursery.start_soon(trio.sleep, 3)
        with pytest.raises(ExceptionGroup):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)

    async def fail() -> None:
        await trio.sleep(1)
        raise ValueError("in a child")

    async with linked(Waits(wait)) as (conn, far):
        await conn.send("x")
        assert trio.current_time() == pytest.approx(5)
        assert await read_frames(far) == ["x"]
        assert conn.state == 1


async def test_the_end_of_the_connection_interrupts_it(autojump_clock: MockClock) -> None:
    """Also in a nursery of the hook; the call raises ConnectionClosed."""
    cleaned: list[str] = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append("child")

    async def wait() -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
            await trio.sleep_forever()
        finally:
            # What it does to clean up is left alone.
            await trio.sleep(1)
            cleaned.append("hook")

    async with linked(Waits(wait)) as (conn, _), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(ConnectionClosed):
                await conn.send("x")

        nursery.start_soon(send)
        await wait_for_hooks()
        conn.abort()
        await conn.wait_closed()
    assert cleaned == ["child", "hook"]


async def test_it_may_end_the_connection_and_then_wait(autojump_clock: MockClock) -> None:
    """Also before it has waited for the first time."""

    async def wait() -> None:
        conn.abort()
        await trio.sleep_forever()

    async with linked(Waits(wait)) as (conn, _):
        with trio.fail_after(1), pytest.raises(ConnectionClosed):
            await conn.send("x")


async def test_it_may_catch_exceptions(autojump_clock: MockClock) -> None:
    """An exception raised where it waits can be caught."""
    tries: list[int] = []

    async def wait() -> None:
        while True:
            try:
                with trio.fail_after(1):
                    await trio.sleep(2 - len(tries))
            except trio.TooSlowError:
                tries.append(1)
            else:
                return

    async with linked(Waits(wait)) as (conn, far):
        await conn.send("x")
        assert await read_frames(far) == ["x"]
        assert len(tries) == 2 or trio.current_time() <= 2


async def test_it_may_time_out(autojump_clock: MockClock) -> None:
    """A later wait of the hook is still interrupted."""

    async def wait() -> None:
        with trio.move_on_after(1):
            await trio.sleep_forever()
        await trio.sleep_forever()

    async with linked(Waits(wait)) as (conn, _), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(ConnectionClosed):
                await conn.send("x")

        nursery.start_soon(send)
        await trio.sleep(2)
        conn.abort()
    assert trio.current_time() == 2
