"""aclose, abort, wait_closed and calls after the end."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import (
    URL,
    Scripted,
    close_from_peer,
    current_status,
    delivered,
    linked,
    read_frames,
)
from trioglock import (
    Close,
    Connection,
    ConnectionClosedError,
    InvalidOption,
    MemoryTransport,
    Status,
    connect,
)


async def test_calls_after_the_end(autojump_clock: MockClock) -> None:
    """All raise ConnectionClosed with the code."""
    async with linked(Scripted()) as (conn, far):
        await close_from_peer(far, 4001, "bye")
        await conn.wait_closed()
        calls = [
            lambda: conn.send("x"),
            lambda: conn.send_frame("x"),
            lambda: conn.call("x"),
            conn.ping,
            conn.receive,
            conn.receive_batch,
        ]
        errors = []
        for call in calls:
            with pytest.raises(ConnectionClosedError) as caught:
                await call()
            errors.append(caught.value)
        for now in (
            lambda: conn.send_nowait("x"),
            lambda: conn.cast("x"),
            lambda: conn.cast_after(1, "x"),
            lambda: conn.start_soon(trio.sleep, 1),
            conn.receive_nowait,
        ):
            with pytest.raises(ConnectionClosedError) as caught:
                now()
            errors.append(caught.value)
        assert {(error.code, error.reason) for error in errors} == {(4001, "bye")}
        assert len(set(map(id, errors))) == len(errors), "an exception object is raised once"
        await conn.aclose()
        conn.abort()
        await conn.wait_closed()


async def test_aclose_sends_queued_data_first(autojump_clock: MockClock) -> None:
    """Nothing is lost, and the wait ends with the answer of the peer."""
    async with linked() as (conn, far):
        conn.send_nowait("a")
        conn.send_nowait("b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.aclose, 4000, "done")
            assert await read_frames(far) == ["a", "b", Close(4000, "done")]
            assert current_status(conn) is Status.CLOSING
            await far.write(["still readable"])
            await trio.sleep(3)
            await close_from_peer(far, 4000)
        assert trio.current_time() < 3.1
        assert current_status(conn) is Status.CLOSED
        assert await delivered(conn) == ["still readable"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((code, "") for code in (999, 1004, 1006, 1015, 5000, "1000", None)),
        (1005, "x"),
        *((1000, reason) for reason in ("x" * 124, b"x", None)),
    ],
)
async def test_aclose_checks_its_arguments(
    code: Any, reason: Any, autojump_clock: MockClock
) -> None:
    """Invalid arguments raise at the call, and the connection stays open."""
    async with linked() as (conn, far):
        with pytest.raises(InvalidOption):
            await conn.aclose(code, reason)
        assert conn.status is Status.OPEN
        assert await read_frames(far) == []


async def test_abort(autojump_clock: MockClock) -> None:
    """There is no Close frame and no wait; queued messages are unsent."""
    transport = MemoryTransport(capacity=0)
    async with connect(URL, transport=transport, ping_interval=None) as conn:
        await transport.accept()
        await conn.send("with the writer")
        await trio.testing.wait_all_tasks_blocked()
        await conn.send("queued")
        conn.abort()
        await conn.wait_closed()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.send("x")
        assert "queued" in caught.value.unsent
        assert conn.statistics().unsent == len(caught.value.unsent)
    assert trio.current_time() == 0


async def test_wait_closed_wakes_every_waiter(autojump_clock: MockClock) -> None:
    """Any number of tasks may wait, before and after the end."""
    woken: list[float] = []

    async def wait(conn: Connection[None]) -> None:
        await conn.wait_closed()
        woken.append(trio.current_time())

    async with linked() as (conn, far), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait, conn)
        await trio.sleep(5)
        await close_from_peer(far)
        await wait(conn)
        await wait(conn)
    assert woken == [5] * 5


async def test_a_background_task_may_close(autojump_clock: MockClock) -> None:
    """Aclose and abort in a background task end the connection and the task."""
    async with linked() as (conn, far):
        conn.start_soon(conn.aclose, 4000)
        with pytest.raises(ConnectionClosedError):
            await conn.receive()
        assert await read_frames(far) == [Close(4000)]
