"""Deadlines of the close, with scenarios that fail in other libraries."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    CLOSE,
    PING,
    Ends,
    MakeTransport,
    RawFrame,
    every_transport,
    lockstep,
    raw_connection,
    texts,
)
from trioglock import (
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HeartbeatTimeout,
    LocalClose,
    Socket,
    Status,
)


@every_transport
async def test_a_trickling_peer_does_not_extend_the_close(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The peer sends valid frames indefinitely, one byte per second."""
    async with raw_connection(transport=transport(), close_timeout=5) as (conn, peer):

        async def trickle() -> None:
            stream = b"".join([texts("drop")] * 1000)
            with suppress(trio.BrokenResourceError):
                for at in range(len(stream)):
                    await peer.send(stream[at : at + 1])
                    await trio.sleep(1)

        async with trio.open_nursery() as tasks:
            tasks.start_soon(trickle)
            await trio.sleep(3)
            began = trio.current_time()
            await conn.aclose()
            assert trio.current_time() - began == pytest.approx(5)
            assert conn.close_code == 1006
            tasks.cancel_scope.cancel()
        assert conn.status is Status.CLOSED


@every_transport
async def test_a_peer_that_keeps_the_stream_open_does_not_extend_the_close(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The peer sends a Close frame, but does not end the stream."""
    async with raw_connection(transport=transport(), close_timeout=5) as (conn, peer):
        began = trio.current_time()
        await peer.close(1000)
        with pytest.raises(ConnectionClosedOK):
            await conn.receive()
        assert trio.current_time() - began <= 5


@every_transport
async def test_a_dead_peer_does_not_extend_the_close(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Nothing can be written, not even the Close frame; the messages are unsent."""
    socket = Ends()
    async with raw_connection(
        socket, streams=lockstep, transport=transport(), close_timeout=5, write_limit=2**20
    ) as (conn, _):
        for _ in range(5):
            await conn.send("x" * 70_000)
        await trio.sleep(1)
        began = trio.current_time()
        await conn.aclose()
        assert trio.current_time() - began == pytest.approx(5)
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.send("late")
        assert len(caught.value.unsent) == 4
    assert socket.ends == [LocalClose(clean=False)]


async def test_two_tasks_close(autojump_clock: MockClock) -> None:
    """One Close frame is sent, with the code of the first; both calls return."""
    async with raw_connection() as (conn, peer):
        async with trio.open_nursery() as tasks:

            async def first() -> None:
                await conn.aclose(4001, "first")

            async def second() -> None:
                await trio.sleep(1)
                await conn.aclose(4002, "second")

            async def serve() -> None:
                await trio.sleep(2)
                frames.extend(await peer.answer())

            frames: list[RawFrame] = []
            tasks.start_soon(first)
            tasks.start_soon(second)
            tasks.start_soon(serve)
        assert [(frame.opcode, frame.code) for frame in frames] == [(CLOSE, 4001)]
        assert conn.close_code == 4001


@every_transport
async def test_both_sides_close(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """Both codes are kept, and the reason is our close, which came first."""
    socket = Ends()
    async with raw_connection(socket, transport=transport(), close_timeout=math.inf) as (
        conn,
        peer,
    ):
        async with trio.open_nursery() as tasks:
            tasks.start_soon(conn.aclose, 4001, "ours")
            await trio.testing.wait_all_tasks_blocked()
            # The peer has not read our Close yet: the two cross.
            await peer.close(4009, "yours")
            frame = await peer.next()
            await peer.drop()
        assert (frame.opcode, frame.code) == (CLOSE, 4001)
        assert (conn.close_code, conn.close_reason) == (4009, "yours")
    assert socket.ends == [LocalClose(code=4001, reason="ours", clean=True)]


class Stuck(Socket[None]):
    """Never answers a call."""

    async def handle_call(self, request: Any, state: None) -> tuple[Any, None]:
        await trio.sleep_forever()
        return None, state


def waits() -> dict[str, Callable[[Connection[None]], Awaitable[Any]]]:
    """Everything in which a task can be blocked."""
    return {
        "receive": lambda conn: conn.receive(),
        "receive_batch": lambda conn: conn.receive_batch(),
        "iteration": lambda conn: anext(conn),
        "send": lambda conn: conn.send("y"),
        "send_frame": lambda conn: conn.send_frame("y"),
        "flush": lambda conn: conn.flush(),
        "ping": lambda conn: conn.ping(),
        "call": lambda conn: conn.call("?"),
    }


@pytest.mark.parametrize("name", waits())
async def test_a_heartbeat_timeout_wakes_every_waiter(name: str, autojump_clock: MockClock) -> None:
    """Every blocked call raises ConnectionClosed, and the status is CLOSED."""
    async with raw_connection(
        Stuck() if name == "call" else None,
        streams=lockstep,
        ping_interval=2,
        ping_timeout=2,
        close_timeout=1,
        write_limit=10,
    ) as (conn, _):
        await conn.send("x" * 10)
        # A hook that never returns is given ``close_timeout``.
        with trio.fail_after(5.5), pytest.raises(ConnectionClosed) as caught:
            await waits()[name](conn)
        assert isinstance(caught.value.cause, HeartbeatTimeout)
        assert conn.status is Status.CLOSED
        assert conn.close_code == 1006


@every_transport
async def test_a_heartbeat_timeout_skips_the_closing_handshake(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The link is dropped immediately, whatever ``close_timeout`` is."""
    socket = Ends()
    async with raw_connection(
        socket, transport=transport(), ping_interval=3, ping_timeout=2, close_timeout=math.inf
    ) as (conn, peer):
        began = trio.current_time()
        with trio.fail_after(10):
            await conn.wait_closed()
        assert trio.current_time() - began == pytest.approx(5)
        assert [frame.opcode for frame in await peer.read_all()] == [PING]
    assert socket.ends == [HeartbeatTimeout(silence=2)]
