"""Every way to end a connection that has no link at the moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest
import trio
import trio.testing

from tests.client.reconnect.helpers import URL, Clock, Notes, drop, joined, policy
from trioglock import (
    Aborted,
    Close,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionInfo,
    ConnectionLost,
    Disconnect,
    HookError,
    LocalClose,
    MemoryTransport,
    Status,
)

Moment = Callable[[MemoryTransport, Connection[Any]], Awaitable[object]]


async def in_the_pause(net: MemoryTransport, conn: Connection[Any]) -> None:
    """Lost, and the next attempt is 50 seconds away."""
    await drop(await net.accept())


async def while_dialling(net: MemoryTransport, conn: Connection[Any]) -> None:
    """Lost, and the next attempt hangs; see ``url_that_hangs``."""
    await drop(await net.accept())
    await trio.sleep(51)


async def while_the_old_link_closes(net: MemoryTransport, conn: Connection[Any]) -> None:
    """The peer has closed and has our confirmation, and keeps the stream open."""
    await (await net.accept()).write([Close(1012)])
    await trio.testing.wait_all_tasks_blocked()


every_moment = pytest.mark.parametrize(
    "moment", [in_the_pause, while_dialling, while_the_old_link_closes]
)


def url_that_hangs() -> Any:
    """The URL for the first attempt; the next one waits indefinitely."""
    asked = iter([True])

    async def url() -> str:
        if next(asked, False):
            return URL
        await trio.sleep_forever()
        raise AssertionError

    return url


def between_links(net: MemoryTransport, notes: Notes) -> Any:
    return joined(net, notes, url=url_that_hangs(), open_timeout=None, reconnect=policy(initial=50))


def assert_ended(notes: Notes, net: MemoryTransport, kind: type[Disconnect], at: float) -> None:
    """One end, reported once and immediately, and no further attempt."""
    assert [type(end) for end in notes.ends] == [kind]
    assert len(net.dialed) == 1
    assert trio.current_time() - at <= 1


@every_moment
async def test_aclose_without_a_link(moment: Moment, autojump_clock: Clock) -> None:
    """It ends immediately, without a closing handshake. Queued messages are in ``unsent``."""
    net, notes = MemoryTransport(), Notes()
    async with between_links(net, notes) as conn:
        await moment(net, conn)
        assert conn.status is Status.RECONNECTING
        at = trio.current_time()
        await conn.send("queued")
        await conn.aclose()
        with pytest.raises(ConnectionClosed) as caught:
            await conn.send("late")
        assert caught.value.unsent == ("queued",)
    assert_ended(notes, net, LocalClose, at)


@every_moment
async def test_abort_without_a_link(moment: Moment, autojump_clock: Clock) -> None:
    """It ends immediately, and wakes every waiter."""
    net, notes = MemoryTransport(), Notes()
    async with between_links(net, notes) as conn, trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(ConnectionClosedError):
                await conn.receive()

        nursery.start_soon(receive)
        await moment(net, conn)
        at = trio.current_time()
        conn.abort()
        await conn.wait_closed()
    assert_ended(notes, net, Aborted, at)


@every_moment
@pytest.mark.parametrize("error", [None, ValueError("body")])
async def test_leaving_the_block_without_a_link(
    moment: Moment, error: Exception | None, autojump_clock: Clock
) -> None:
    """As ``aclose``. An exception of the body is raised unchanged."""
    net, notes = MemoryTransport(), Notes()
    with nullcontext() if error is None else pytest.raises(ValueError, match="body") as caught:
        async with between_links(net, notes) as conn:
            await moment(net, conn)
            at = trio.current_time()
            if error is not None:
                raise error
    assert caught is None or caught.value is error
    assert_ended(notes, net, LocalClose, at)


@every_moment
async def test_a_cancel_without_a_link(moment: Moment, autojump_clock: Clock) -> None:
    """It is raised immediately."""
    net, notes = MemoryTransport(), Notes()
    with trio.CancelScope() as scope:
        async with between_links(net, notes) as conn:
            await moment(net, conn)
            at = trio.current_time()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert_ended(notes, net, Aborted, at)


@every_moment
async def test_a_crash_without_a_link(moment: Moment, autojump_clock: Clock) -> None:
    """A background task that raises ends it immediately, with its exception."""
    net, notes, error = MemoryTransport(), Notes(), ValueError("task")

    async def crash() -> None:
        raise error

    with pytest.raises(ValueError, match="task") as caught:
        async with between_links(net, notes) as conn:
            await moment(net, conn)
            at = trio.current_time()
            conn.start_soon(crash)
            await trio.sleep_forever()
    assert caught.value is error
    assert_ended(notes, net, HookError, at)


async def test_a_cancel_during_the_first_connection(autojump_clock: Clock) -> None:
    """During a delay or an attempt: only Cancelled is raised."""
    for refusals in (0, 1):
        net = MemoryTransport()
        for _ in range(refusals):
            net.refuse_next()
        hangs = url_that_hangs()
        await hangs()
        url = URL if refusals else hangs
        with trio.move_on_after(5) as scope:
            async with joined(net, url=url, open_timeout=None, reconnect=policy(initial=50)):
                raise AssertionError("there was a connection")
        assert scope.cancelled_caught


async def test_abort_inside_handle_disconnect(autojump_clock: Clock) -> None:
    """A hook may end it immediately through its ``info.connection``."""

    class Quits(Notes):
        def init_stream(self, info: ConnectionInfo) -> Any:
            self.stream = info
            return 0

        def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            self.losses.append(reason)
            self.stream.connection.abort()
            return None, state

    net, quits = MemoryTransport(), Quits()
    async with joined(net, quits) as conn:
        await drop(await net.accept())
        await conn.wait_closed()
    assert [type(loss) for loss in quits.losses] == [ConnectionLost]
    assert [type(end) for end in quits.ends] == [Aborted]
    assert len(net.dialed) == 1
