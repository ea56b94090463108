"""Ways to leave the block, and nested blocks."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, Scripted, UserError, delivered, linked, read_frames, trigger
from trioglock import Close, ConnectFailed, MemoryTransport, connect
from trioglock.testing import MockServer, echo


@pytest.mark.parametrize("way", ["break", "return"])
async def test_leaving_a_loop_closes_normally(way: str, autojump_clock: MockClock) -> None:
    """After ``break`` or ``return`` the queued data and 1000 are sent."""

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


async def test_messages_after_a_break_can_be_received(autojump_clock: MockClock) -> None:
    """The next receiver continues after the loop."""
    async with linked() as (conn, far):
        await far.write(["a", "b", "c"])
        async for message in conn:
            assert message == "a"
            break
        assert await delivered(conn) == ["b", "c"]


async def test_an_exception_in_nested_blocks(autojump_clock: MockClock) -> None:
    """Both blocks raise the exception of the inner body unchanged."""
    error = UserError()
    sockets = Scripted(), Scripted()
    with pytest.raises(UserError) as caught:
        async with linked(sockets[0]), linked(sockets[1]):
            raise error
    assert caught.value is error
    assert [socket.count("terminate") for socket in sockets] == [1, 1]


@pytest.mark.parametrize("failing", [0, 1])
async def test_a_hook_of_either_nested_connection_ends_both(
    failing: int, autojump_clock: MockClock
) -> None:
    """The outer block raises its exception."""
    error = UserError()
    sockets = Scripted(), Scripted()
    sockets[failing].script["handle_receive"] = error
    with pytest.raises(UserError) as caught:
        async with linked(sockets[0]) as outer, linked(sockets[1]) as inner:
            await (outer, inner)[failing][1].write(["x"])
            await trio.sleep_forever()
    assert caught.value is error
    assert [socket.count("terminate") for socket in sockets] == [1, 1]


async def test_a_refused_inner_connection_closes_the_outer_one(autojump_clock: MockClock) -> None:
    """ConnectFailed of the inner block is the exception of the outer body."""
    transport = MemoryTransport()
    transport.refuse_next(error := ConnectFailed("no"))
    with pytest.raises(ConnectFailed) as caught:
        async with linked() as (_, far), connect(URL, transport=transport):
            pass
    assert caught.value is error
    assert await read_frames(far) == [Close(1011, "internal error")]


async def test_connections_in_a_nursery_of_the_program(autojump_clock: MockClock) -> None:
    """One that fails cancels its siblings, and only its exception is in the group."""

    async def one(error: Exception | None) -> None:
        async with linked(Scripted(handle_receive=error)) as (conn, far):
            if error is not None:
                await trigger("handle_receive", conn, far)
            await trio.sleep_forever()

    error = UserError()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, None)
            nursery.start_soon(one, error)
            nursery.start_soon(one, None)
    assert caught.value.exceptions == (error,)


async def test_background_tasks_end_with_the_block(autojump_clock: MockClock) -> None:
    """No task of the connection remains, however the block ends."""
    ended: list[str] = []

    async def task(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async with linked() as (conn, _):
        conn.start_soon(task, "normal")
    with pytest.raises(UserError):
        async with linked() as (conn, _):
            conn.start_soon(task, "raised")
            await trio.testing.wait_all_tasks_blocked()
            raise UserError
    with trio.move_on_after(1):
        async with linked() as (conn, _):
            conn.start_soon(task, "cancelled")
            await trio.sleep_forever()
    assert ended == ["normal", "raised", "cancelled"]


async def test_closing_before_the_end_of_the_block(autojump_clock: MockClock) -> None:
    """The connection closes once."""
    async with linked(close_timeout=1) as (conn, far):
        await conn.aclose(4000)
        await conn.aclose(4001)
    assert await read_frames(far) == [Close(4000)]


async def test_a_context_manager_can_be_entered_once(autojump_clock: MockClock) -> None:
    """Each connection needs its own call of connect()."""
    transport = MemoryTransport()
    manager = connect(URL, transport=transport, close_timeout=1)
    assert transport.dialed == []
    async with manager:
        assert len(transport.dialed) == 1
    with pytest.raises((RuntimeError, AttributeError)):
        await manager.__aenter__()
