"""Ways to leave the block, nested blocks, and what must not outlive them."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, Scripted, delivered, linked, provoke, taken
from trioglock import (
    Close,
    ConnectFailed,
    MemoryTransport,
    connect,
)
from trioglock.testing import MockServer, echo


class Boom(Exception):
    """The body's own."""


@pytest.mark.parametrize("way", ["break", "return"])
async def test_leaving_a_loop_closes_in_good_order(way: str, autojump_clock: MockClock) -> None:
    """Both break and return inside ``async for`` and the block: 1000, and all that was queued."""

    async def use(server: MockServer) -> str:
        async with connect(server.url, stream=server.open_stream) as conn:
            await conn.send("a")
            async for message in conn:
                await conn.send("last")
                if way == "return":
                    return str(message)
                break
        return str(message)

    async with MockServer(echo, memory=True) as server:
        assert await use(server) == "a"
        [peer] = server.peers
        await trio.testing.wait_all_tasks_blocked()
        assert peer.received == ["a", "last"]
        assert peer.closed == Close(1000)


async def test_what_a_loop_left_unread_stays_readable(autojump_clock: MockClock) -> None:
    """A loop that breaks loses nothing: the next reader goes on after it."""
    async with linked() as (conn, far):
        await far.write(["a", "b", "c"])
        async for message in conn:
            assert message == "a"
            break
        assert await delivered(conn) == ["b", "c"]


async def test_nested_connections_end_from_the_inside(autojump_clock: MockClock) -> None:
    """The error of the inner body comes out of both blocks as it was raised."""
    error = Boom()
    sockets = Scripted(), Scripted()
    with pytest.raises(Boom) as caught:
        async with linked(sockets[0]), linked(sockets[1]):
            raise error
    assert caught.value is error
    assert [socket.ran("terminate") for socket in sockets] == [1, 1]


@pytest.mark.parametrize("failing", [0, 1])
async def test_a_hook_of_either_nested_connection_ends_both(
    failing: int, autojump_clock: MockClock
) -> None:
    """Its very exception comes out of the outer block."""
    error = Boom()
    sockets = Scripted(), Scripted()
    sockets[failing].script["handle_receive"] = error
    with pytest.raises(Boom) as caught:
        async with linked(sockets[0]) as outer, linked(sockets[1]) as inner:
            await (outer, inner)[failing][1].write(["x"])
            await trio.sleep_forever()
    assert caught.value is error
    assert [socket.ran("terminate") for socket in sockets] == [1, 1]


async def test_a_refused_inner_connection_closes_the_outer_one(autojump_clock: MockClock) -> None:
    """ConnectFailed of the inner block is the body's exception of the outer one."""
    transport = MemoryTransport()
    transport.refuse_next(error := ConnectFailed("no"))
    with pytest.raises(ConnectFailed) as caught:
        async with linked() as (_, far), connect(URL, transport=transport):
            pass
    assert caught.value is error
    assert await taken(far) == [Close(1011, "internal error")]


async def test_connections_in_a_nursery_of_the_program(autojump_clock: MockClock) -> None:
    """One that fails cancels its siblings as any task does; only its error is in the group."""

    async def one(error: Exception | None) -> None:
        async with linked(Scripted(handle_receive=error)) as (conn, far):
            if error is not None:
                await provoke("handle_receive", conn, far)
            await trio.sleep_forever()

    error = Boom()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, None)
            nursery.start_soon(one, error)
            nursery.start_soon(one, None)
    assert caught.value.exceptions == (error,)


async def test_background_tasks_end_with_the_block(autojump_clock: MockClock) -> None:
    """However the block is left, no task of the connection goes on."""
    ended: list[str] = []

    async def task(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async with linked() as (conn, _):
        conn.start_soon(task, "normal")
    with pytest.raises(Boom):
        async with linked() as (conn, _):
            conn.start_soon(task, "raised")
            await trio.testing.wait_all_tasks_blocked()
            raise Boom
    with trio.move_on_after(1):
        async with linked() as (conn, _):
            conn.start_soon(task, "cancelled")
            await trio.sleep_forever()
    assert ended == ["normal", "raised", "cancelled"]


async def test_a_block_that_ends_twice_is_harmless(autojump_clock: MockClock) -> None:
    """Closing inside the block, and then leaving it, closes once."""
    async with linked(close_timeout=1) as (conn, far):
        await conn.aclose(4000)
        await conn.aclose(4001)
    assert await taken(far) == [Close(4000)]


async def test_a_context_manager_serves_once(autojump_clock: MockClock) -> None:
    """connect() is called again for another connection; a value never entered leaves nothing."""
    transport = MemoryTransport()
    manager = connect(URL, transport=transport, close_timeout=1)
    assert transport.dialed == []
    async with manager:
        assert len(transport.dialed) == 1
    with pytest.raises((RuntimeError, AttributeError)):
        await manager.__aenter__()
