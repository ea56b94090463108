"""Sending, receiving and pinging on a Connection."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, Scripted, close_from_peer, linked, read_frames
from trioglock import (
    Close,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Deliver,
    InvalidFrame,
    LocalClose,
    MemoryTransport,
    Ping,
    RemoteClose,
    connect,
)

# Sending.


async def test_messages_leave_in_the_order_of_the_calls(autojump_clock: MockClock) -> None:
    """send, send_nowait and send_frame share one queue."""
    async with linked() as (conn, far):
        await conn.send("a")
        conn.send_nowait("b")
        await conn.send_frame("c")
        conn.send_nowait(b"d")
        await conn.send("e")
        assert await read_frames(far) == ["a", "b", "c", b"d", "e"]


async def test_pings_and_pongs_are_sent_before_data(autojump_clock: MockClock) -> None:
    """Close frames are sent after data."""
    async with linked() as (conn, far):
        conn.send_nowait("a")
        await conn.send_frame(Ping(b"p"))
        conn.send_nowait("b")
        await conn.send_frame(Close(4000))
        frames = await read_frames(far)
        assert sorted(map(str, frames[:-1])) == sorted(map(str, ["a", Ping(b"p"), "b"]))
        assert frames[-1] == Close(4000)


@pytest.mark.parametrize("frame", [1, None, {"a": 1}, ["a"], object(), "\ud800"])
async def test_send_frame_checks_the_frame(frame: Any, autojump_clock: MockClock) -> None:
    """InvalidFrame is raised at the call, and the connection stays open."""
    async with linked() as (conn, far):
        with pytest.raises(InvalidFrame):
            await conn.send_frame(frame)
        await conn.send_frame("fine")
        assert await read_frames(far) == ["fine"]


async def test_flush_of_a_lost_connection_raises(autojump_clock: MockClock) -> None:
    """Messages that cannot be written any more are not reported as written."""
    transport = MemoryTransport(capacity=0)
    async with connect(URL, transport=transport, write_timeout=None, ping_interval=None) as conn:
        await transport.accept()
        conn.send_nowait("never")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raises_closed, conn.flush)
            await trio.sleep(1)
            conn.abort()


async def raises_closed(use: Any, *args: Any) -> None:
    with pytest.raises(ConnectionClosed):
        await use(*args)


async def test_four_ways_to_receive(autojump_clock: MockClock) -> None:
    """All take from the same queue."""
    async with linked() as (conn, far):
        with pytest.raises(trio.WouldBlock):
            conn.receive_nowait()
        await far.write([str(number) for number in range(6)])
        assert await conn.receive() == "0"
        await trio.testing.wait_all_tasks_blocked()
        assert conn.receive_nowait() == "1"
        async for message in conn:
            assert message == "2"
            break
        assert await conn.receive_batch() == ["3", "4", "5"]
        with trio.move_on_after(1) as scope:
            await conn.receive_batch()
        assert scope.cancelled_caught


async def test_many_receivers_share_the_messages(autojump_clock: MockClock) -> None:
    """Each message goes to one receiver, and all receivers end with the connection."""
    got: list[Any] = []

    async def receiver(conn: Connection[None]) -> None:
        got.extend([message async for message in conn])

    async with linked() as (conn, far), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(receiver, conn)
        for number in range(50):
            await far.write([f"{number:02}"])
        await close_from_peer(far)
    assert sorted(got) == [f"{number:02}" for number in range(50)]


async def test_receivers_are_served_in_turn(autojump_clock: MockClock) -> None:
    """The one that has waited longest comes first; cancelled ones are skipped."""
    got: list[tuple[int, Any]] = []

    async def receiver(conn: Connection[None], number: int, patience: float) -> None:
        with trio.move_on_after(patience):
            got.append((number, await conn.receive()))

    async with linked() as (conn, far), trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(receiver, conn, number, 1 if number % 3 else 100)
            await trio.sleep(0.001)
        await trio.sleep(2)
        for number in range(0, 30, 3):
            await far.write([f"{number}"])
            await trio.sleep(0.001)
    assert got == [(number, f"{number}") for number in range(0, 30, 3)]


@pytest.mark.parametrize("code", [1000, 1001, 1005])
async def test_fault_32_the_loop_ends_on_a_normal_close(
    code: int, autojump_clock: MockClock
) -> None:
    """1000, 1001 and no code end ``async for``; ``receive`` raises ConnectionClosedOK."""
    async with linked() as (conn, far):
        await far.write(["a"])
        await close_from_peer(far, code)
        assert [message async for message in conn] == ["a"]
        for use in (conn.receive, conn.receive_batch):
            with pytest.raises(ConnectionClosedOK):
                await use()
        with pytest.raises(ConnectionClosedOK):
            conn.receive_nowait()


@pytest.mark.parametrize("code", [1002, 1011, 3000, 4999])
async def test_the_loop_raises_on_any_other_close(code: int, autojump_clock: MockClock) -> None:
    """Earlier messages are received first; the exception has the code and reason."""
    async with linked() as (conn, far):
        await far.write(["a"])
        await close_from_peer(far, code, "why")
        assert await conn.receive() == "a"
        with pytest.raises(ConnectionClosedError) as caught:
            async for _ in conn:
                raise AssertionError("there was one message only")
        assert (caught.value.code, caught.value.reason) == (code, "why")
        assert caught.value.received == Close(code, "why")
        assert caught.value.cause == RemoteClose(code=code, reason="why")


@pytest.mark.parametrize(("ours", "theirs"), [(1000, 1005), (1000, 1001), (4000, 1005)])
async def test_fault_32_the_codes_of_both_sides_decide(
    ours: int, theirs: int, autojump_clock: MockClock
) -> None:
    """The loop ends and ``receive`` raises ConnectionClosedOK if both are normal."""
    async with linked() as (conn, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.aclose, ours)
            await trio.testing.wait_all_tasks_blocked()
            await close_from_peer(far, theirs)
        if ours == 1000:
            assert [message async for message in conn] == []
        else:
            with pytest.raises(ConnectionClosedError):
                await conn.__anext__()
        expected = ConnectionClosedOK if ours == 1000 else ConnectionClosedError
        with pytest.raises(expected):
            await conn.receive()


async def test_ping_on_a_connection_that_ends_raises(autojump_clock: MockClock) -> None:
    """No ping waits for a pong that cannot arrive."""
    async with linked() as (conn, far), trio.open_nursery() as nursery:
        nursery.start_soon(raises_closed, conn.ping)
        await trio.sleep(1)
        await far.aclose()


async def test_deliver_of_a_message_that_looks_like_a_result(autojump_clock: MockClock) -> None:
    """Delivered values are received unchanged."""
    async with linked(Scripted(handle_receive=Deliver(LocalClose()))) as (conn, far):
        await far.write(["x"])
        assert await conn.receive() == LocalClose()
