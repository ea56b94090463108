"""Slow hooks, and what continues or waits meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import (
    URL,
    Scripted,
    SlowHooks,
    delivered,
    linked,
    read_frames,
    wait_for_hooks,
)
from trioglock import Close, ConnectionClosed, MemoryTransport, Ping, Pong, Socket, connect
from trioglock.testing import MemoryLink


class Slow(Socket[int]):
    """Takes five minutes for every message that it receives."""

    async def init_stream(self, info: Any) -> int:
        return 0

    async def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        await trio.sleep(300)
        return frame, state + 1


async def test_a_slow_hook_delays_neither_pings_nor_the_heartbeat(
    autojump_clock: MockClock,
) -> None:
    """Pings are answered immediately, and a peer that answers ours is alive."""

    async def peer(far: MemoryLink) -> None:
        while events := await far.receive():
            for event in events:
                if isinstance(event, Ping):
                    await far.write([Pong(event.payload)])
                elif isinstance(event, Pong):
                    answered.append(trio.current_time())

    answered: list[float] = []
    async with linked(Slow(), ping_interval=20, ping_timeout=20) as (conn, far):
        conn.start_soon(peer, far)
        await far.write(["slow"])
        for _ in range(4):
            await trio.sleep(50)
            await far.write([Ping(b"alive?")])
        message = await conn.receive()
        assert (message, conn.state, trio.current_time()) == ("slow", 1, 300)
    assert answered == [50, 100, 150, 200]


async def test_send_waits_for_a_slow_hook(autojump_clock: MockClock) -> None:
    """Even if handle_send is plain, it runs after the suspended hook."""
    async with linked(Slow()) as (conn, far):
        await far.write(["slow"])
        await wait_for_hooks()
        await conn.send("x")
        assert trio.current_time() == 300
        assert conn.state == 1
        assert await read_frames(far) == ["x"]


async def test_a_send_that_returns_after_the_close(autojump_clock: MockClock) -> None:
    """Its frames are refused; no data follows a Close frame."""
    socket = SlowHooks()
    async with linked(socket, close_timeout=300) as (conn, far):

        async def send() -> None:
            with pytest.raises(ConnectionClosed):
                await conn.send("slow")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(1)
            nursery.start_soon(conn.aclose)
            await trio.sleep(100)
            assert await read_frames(far) == [Close()]
            assert conn.state == 1
            await far.write([Close()])
            await far.send_eof()


async def test_messages_before_the_close_are_handled_first(autojump_clock: MockClock) -> None:
    """All messages are handled, then handle_disconnect and terminate run."""

    class SlowReceive(Scripted):
        async def handle_receive(self, frame: Any, state: int) -> Any:
            await trio.sleep(60)
            return frame, super().handle_receive(frame, state)[1]

    socket = SlowReceive()
    async with linked(socket) as (conn, far):
        await far.write(["a", "b", "c", Close(1000)])
        await far.aclose()
        await conn.wait_closed()
        assert trio.current_time() == 180
        assert await delivered(conn) == ["a", "b", "c"]
    assert [call.hook for call in socket.calls[2:]] == [
        *["handle_receive"] * 3,
        "handle_disconnect",
        "terminate",
    ]


async def test_connections_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    """A slow hook delays only its own connection."""
    transport = MemoryTransport()
    async with linked(Slow()) as (_, slow_far):
        await slow_far.write(["slow"])
        async with connect(URL, transport=transport, close_timeout=1) as conn:
            far = await transport.accept()
            await far.write(["quick"])
            assert await conn.receive() == "quick"
            assert trio.current_time() == 0
