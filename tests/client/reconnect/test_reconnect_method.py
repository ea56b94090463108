"""``reconnect()``: the old link, waiting for the new one, and errors."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.client.reconnect.helpers import URL, Clock, Notes, drop, frames, joined, policy
from trioglock import (
    Close,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    LocalClose,
    MemoryTransport,
    Status,
    Stop,
    UsageError,
)
from trioglock.testing import MemoryLink


async def confirm(far: MemoryLink) -> list[Any]:
    """The peer answers our Close frame and ends the stream; all frames up to it."""
    seen: list[Any] = []
    while Close not in map(type, seen):
        for event in await far.receive():
            seen.extend(event if isinstance(event, list) else [event])
    await far.write([seen[-1]])
    await far.aclose()
    return seen


async def test_reconnect_leaves_an_open_link(autojump_clock: Clock) -> None:
    """1000 to the old peer, and a new link immediately, without the policy's delays."""
    net, notes = MemoryTransport(), Notes()
    async with joined(net, notes) as conn, trio.open_nursery() as nursery:
        nursery.start_soon(confirm, await net.accept())
        await conn.reconnect()
        assert conn.status is Status.OPEN
        assert trio.current_time() == 0
        assert conn.statistics().reconnects == 1
        far = await net.accept()
        await conn.send("new")
        assert await frames(far) == ["new"]
        conn.abort()
    assert [type(loss) for loss in notes.losses] == [LocalClose]
    assert [stream.attempt for stream in notes.streams] == [1, 2]


async def test_reconnect_works_without_a_policy(autojump_clock: Clock) -> None:
    """It needs no policy; each call reconnects once."""
    net = MemoryTransport()
    async with joined(net, reconnect=False) as conn, trio.open_nursery() as nursery:
        nursery.start_soon(confirm, await net.accept())
        await conn.reconnect()
        await drop(await net.accept())
        assert conn.status is Status.CLOSED
    assert len(net.dialed) == 2


async def test_reconnect_does_not_wait_for_a_silent_peer_for_ever(autojump_clock: Clock) -> None:
    """The closing handshake of the old link has ``close_timeout`` seconds."""
    net = MemoryTransport()
    async with joined(net, close_timeout=5) as conn:
        await conn.reconnect()
        assert trio.current_time() == 5
        conn.abort()


async def test_reconnect_loses_nothing_that_is_queued(autojump_clock: Clock) -> None:
    """Each message goes over the old link or the new one."""
    net = MemoryTransport()
    old: list[Any] = []

    async def serve(far: MemoryLink) -> None:
        old.extend(await confirm(far))

    async with joined(net) as conn, trio.open_nursery() as nursery:
        nursery.start_soon(serve, await net.accept())
        for word in ("a", "b", "c"):
            await conn.send(word)
        nursery.start_soon(conn.reconnect)
        await trio.testing.wait_all_tasks_blocked()
        await conn.send("d")
        new = await frames(await net.accept())
        assert [frame for frame in old + new if isinstance(frame, str)] == ["a", "b", "c", "d"]
        conn.abort()


async def test_messages_during_the_change_go_to_the_new_link(autojump_clock: Clock) -> None:
    """``send`` does not raise while the old link closes."""
    net = MemoryTransport()
    async with joined(net) as conn, trio.open_nursery() as nursery:
        far = await net.accept()
        nursery.start_soon(conn.reconnect)
        await trio.testing.wait_all_tasks_blocked()
        assert conn.status is Status.RECONNECTING
        await conn.send("x")
        await trio.testing.wait_all_tasks_blocked()
        assert await confirm(far) == [Close(1000)]
        assert await frames(await net.accept()) == ["x"]
        conn.abort()


async def test_reconnect_asks_url_and_headers_again(autojump_clock: Clock) -> None:
    """The new link has a fresh token."""
    tokens = iter("12")
    net = MemoryTransport()
    async with (
        joined(net, additional_headers=lambda: {"X-Token": next(tokens)}) as conn,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(confirm, await net.accept())
        await conn.reconnect()
        conn.abort()
    assert [dialed.additional_headers["X-Token"] for dialed in net.dialed] == ["1", "2"]


async def test_reconnect_ends_a_pause(autojump_clock: Clock) -> None:
    """The next attempt is made immediately."""
    net = MemoryTransport()
    async with joined(net, reconnect=policy(initial=50)) as conn:
        await drop(await net.accept())
        await trio.sleep(3)
        await conn.reconnect()
        assert trio.current_time() == 3
        assert conn.status is Status.OPEN
        conn.abort()


async def test_reconnect_waits_through_failed_attempts(autojump_clock: Clock) -> None:
    """It returns once a link is open, however many attempts that takes."""
    net = MemoryTransport()
    async with joined(net, close_timeout=1) as conn:
        net.refuse_next()
        net.refuse_next()
        await conn.reconnect()
        assert conn.status is Status.OPEN
        assert len(net.dialed) == 4
        conn.abort()


async def test_reconnect_raises_when_the_connection_ends_instead(autojump_clock: Clock) -> None:
    """By ReconnectFailed, or by a close in another task."""
    net = MemoryTransport()
    async with joined(net, close_timeout=1, reconnect=policy(max_attempts=2)) as conn:
        for _ in range(9):
            net.refuse_next()
        with pytest.raises(ConnectionClosedError):
            await conn.reconnect()
        assert len(net.dialed) <= 4
    async with joined(MemoryTransport()) as conn, trio.open_nursery() as nursery:

        async def change() -> None:
            with pytest.raises(ConnectionClosed):
                await conn.reconnect()

        nursery.start_soon(change)
        await trio.testing.wait_all_tasks_blocked()
        conn.abort()


async def test_a_reconnect_by_hand_keeps_to_the_policy(autojump_clock: Clock) -> None:
    """Only its first attempt is immediate: a server that is down sees no storm."""
    net = MemoryTransport()
    async with joined(net, close_timeout=1, reconnect=policy(max_attempts=None)) as conn:
        for _ in range(500):
            net.refuse_next()
        with trio.move_on_after(31) as scope:
            await conn.reconnect()
        assert scope.cancelled_caught
        assert 4 <= len(net.dialed) <= 8
        conn.abort()


async def test_reconnect_without_a_policy_is_one_attempt(autojump_clock: Clock) -> None:
    """If that fails, the connection ends, and the error has the reason."""
    net = MemoryTransport()
    async with joined(net, close_timeout=1, reconnect=False) as conn:
        net.refuse_next()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.reconnect()
        assert isinstance(caught.value.cause, HandshakeFailed)
    assert len(net.dialed) == 2


async def test_reconnect_while_dialling_waits_for_that_attempt(autojump_clock: Clock) -> None:
    """An attempt in progress is not repeated, and no loss is reported."""
    delays = iter([0])

    async def url() -> str:
        await trio.sleep(next(delays, 5))
        return URL

    net, notes = MemoryTransport(), Notes()
    async with joined(net, notes, url=url) as conn:
        await drop(await net.accept())
        await trio.sleep(3)
        await conn.reconnect()
        assert trio.current_time() == 1 + 5
        conn.abort()
    assert len(net.dialed) == 2
    assert [type(loss) for loss in notes.losses] == [ConnectionLost]


async def test_several_at_once_make_one_change(autojump_clock: Clock) -> None:
    """All of them return when the one new link is open."""
    net = MemoryTransport()
    async with joined(net, close_timeout=1) as conn:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(conn.reconnect)
        assert conn.status is Status.OPEN
        assert len(net.dialed) == 2
        conn.abort()


async def test_a_cancelled_reconnect_still_reconnects(autojump_clock: Clock) -> None:
    """The change has begun; the connection is not left without a link."""
    net = MemoryTransport()
    async with joined(net, close_timeout=5) as conn:
        with trio.move_on_after(1) as scope:
            await conn.reconnect()
        assert scope.cancelled_caught
        await trio.sleep(10)
        assert conn.status is Status.OPEN
        assert len(net.dialed) == 2
        conn.abort()


async def test_a_reconnect_that_is_cancelled_at_once_does_nothing(autojump_clock: Clock) -> None:
    """A call in a cancelled scope raises, and the link stays."""
    net = MemoryTransport()
    async with joined(net, close_timeout=5) as conn:
        with trio.CancelScope() as scope:
            scope.cancel()
            await conn.reconnect()
        assert scope.cancelled_caught
        await trio.sleep(10)
        assert len(net.dialed) == 1
        conn.abort()


async def test_reconnect_of_a_closed_connection_raises(autojump_clock: Clock) -> None:
    """There is nothing to come back to."""
    net = MemoryTransport()
    async with joined(net) as conn:
        conn.abort()
        await conn.wait_closed()
        with pytest.raises(ConnectionClosed):
            await conn.reconnect()


async def test_reconnect_inside_a_hook_raises(autojump_clock: Clock) -> None:
    """It would wait for that very hook."""

    class Impatient(Notes):
        conn: Connection[int]

        async def handle_cast(self, message: Any, state: int) -> Any:
            await self.conn.reconnect()
            return None, state

    net, socket = MemoryTransport(), Impatient()
    with pytest.raises(UsageError, match="reconnect"):
        async with joined(net, socket, close_timeout=1) as conn:
            socket.conn = conn
            conn.cast("now")
            await trio.sleep_forever()


async def test_stop_overrules_a_reconnect_by_hand(autojump_clock: Clock) -> None:
    """``handle_disconnect`` has the last word."""

    class Stops(Notes):
        def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            return Stop(), state

    net = MemoryTransport()
    async with joined(net, Stops(), close_timeout=1) as conn:
        with pytest.raises(ConnectionClosed):
            await conn.reconnect()
        assert conn.status is Status.CLOSED
    assert len(net.dialed) == 1
