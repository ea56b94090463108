"""``run()``: applications of hooks only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, Scripted, both_styles, read_frames, styled
from trioglock import (
    Close,
    ConnectFailed,
    Connection,
    ConnectionClosedError,
    ConnectionInfo,
    InvalidOption,
    MemoryTransport,
    Reply,
    Socket,
    Status,
    run,
)
from trioglock.testing import MemoryLink


class Boom(Exception):
    """Raised by hooks of the tests."""


class Summing(Socket[int]):
    """Replies the sum of received numbers, and closes on a word."""

    def init_stream(self, info: ConnectionInfo) -> int:
        return 0

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        if frame == "end":
            return Close(4000, "as told"), state
        return Reply(str(state + int(frame))), state + int(frame)


Peer = Callable[[MemoryLink], Awaitable[None]]


async def against(peer: Peer, socket: Socket[Any], **options: Any) -> Any:
    """The result of run() while ``peer`` runs at the far end."""
    transport = MemoryTransport()

    async def play() -> None:
        await peer(await transport.accept())

    options.setdefault("ping_interval", None)
    try:
        with trio.fail_after(86_400):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(play)
                result = await run(URL, socket, transport=transport, **options)
                nursery.cancel_scope.cancel()
                return result
    except ExceptionGroup as group:
        [error] = group.exceptions  # the group of the nursery above, and no other
        raise error from None


async def hang_up(far: MemoryLink, frame: Close) -> None:
    await far.write([frame])
    await trio.testing.wait_all_tasks_blocked()
    await far.send_eof()


@pytest.mark.parametrize("code", [1000, 1001])
async def test_it_returns_the_final_state(code: int, autojump_clock: MockClock) -> None:
    """When the peer closes with 1000 or 1001, after all of its messages."""

    async def peer(far: MemoryLink) -> None:
        await far.write(["1", "2", "3"])
        await trio.sleep(5)
        assert await read_frames(far) == ["1", "3", "6"]
        await hang_up(far, Close(code))

    assert await against(peer, Summing()) == 6


@both_styles
async def test_it_returns_what_the_last_hook_returned(
    style: str, autojump_clock: MockClock
) -> None:
    """handle_disconnect is the last one to change the state."""

    async def peer(far: MemoryLink) -> None:
        await hang_up(far, Close(1000))

    socket = styled(Scripted, style)
    assert await against(peer, socket) == 2
    assert [call.hook for call in socket.calls[-2:]] == ["handle_disconnect", "terminate"]


async def test_a_close_of_the_hooks_is_no_error(autojump_clock: MockClock) -> None:
    """With any code: a hook decided it."""

    async def peer(far: MemoryLink) -> None:
        await far.write(["20", "22", "end"])
        await hang_up(far, Close(4000))

    assert await against(peer, Summing()) == 42


async def test_a_close_that_the_peer_does_not_confirm_is_no_error(
    autojump_clock: MockClock,
) -> None:
    """It ends after close_timeout."""

    async def peer(far: MemoryLink) -> None:
        await far.write(["42", "end"])
        await trio.sleep_forever()

    assert await against(peer, Summing(), close_timeout=3) == 42
    assert trio.current_time() == 3


async def test_another_close_of_the_peer_is_raised(autojump_clock: MockClock) -> None:
    """With its code, and not in a group."""

    async def peer(far: MemoryLink) -> None:
        await hang_up(far, Close(4001, "bad"))

    with pytest.raises(ConnectionClosedError) as caught:
        await against(peer, Summing())
    assert (caught.value.code, caught.value.reason) == (4001, "bad")


async def test_a_lost_peer_is_raised(autojump_clock: MockClock) -> None:
    """As 1006."""
    with pytest.raises(ConnectionClosedError) as caught:
        await against(MemoryLink.aclose, Summing())
    assert caught.value.code == 1006


async def test_what_hooks_raise_comes_out(autojump_clock: MockClock) -> None:
    """The same exception object."""
    error = Boom()
    socket = Scripted(handle_receive=error)

    async def peer(far: MemoryLink) -> None:
        await far.write(["x"])
        await trio.sleep_forever()

    with pytest.raises(Boom) as caught:
        await against(peer, socket)
    assert caught.value is error
    assert socket.count("terminate") == 1


async def test_what_hooks_deliver_is_forgotten(autojump_clock: MockClock) -> None:
    """Delivered messages are discarded, so the queue never fills up."""

    async def peer(far: MemoryLink) -> None:
        for number in range(500):
            await far.write([str(number)])
        await trio.sleep(1)
        await hang_up(far, Close(1000))

    socket = Scripted(handle_receive="delivered")
    await against(peer, socket, max_queue=4)
    assert socket.count("handle_receive") == 500


async def test_nursery_start_gives_the_open_connection(autojump_clock: MockClock) -> None:
    """Once it is open; until then start waits."""

    class Slow(Summing):
        async def handle_connect(self, info: ConnectionInfo, state: int) -> tuple[None, int]:
            await trio.sleep(3)
            return None, 100

    transport = MemoryTransport()
    async with trio.open_nursery() as nursery:
        start = partial(run, URL, Slow(), transport=transport, ping_interval=None)
        conn = await nursery.start(start)
        assert isinstance(conn, Connection)
        assert trio.current_time() == 3
        assert (conn.status, conn.state) == (Status.OPEN, 100)
        far = await transport.accept()
        await conn.send("hello")
        assert await read_frames(far) == ["hello"]
        nursery.start_soon(conn.aclose)
        await trio.testing.wait_all_tasks_blocked()
        await hang_up(far, Close(1000))
    assert conn.status is Status.CLOSED
    assert trio.current_time() == 3


async def test_nursery_start_raises_what_connecting_raises(autojump_clock: MockClock) -> None:
    """``start`` raises the error of a refused connection."""
    transport = MemoryTransport()
    transport.refuse_next(error := ConnectFailed("no"))
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectFailed) as caught:
            await nursery.start(partial(run, URL, Summing(), transport=transport))
    assert caught.value is error


async def test_cancelling_it_runs_terminate(autojump_clock: MockClock) -> None:
    """The cancelled connection is dropped, and terminate still runs."""
    socket = Scripted()
    with trio.move_on_after(5) as scope:
        await run(URL, socket, transport=MemoryTransport(), ping_interval=None)
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert socket.count("terminate") == 1


async def test_bad_arguments_are_refused(autojump_clock: MockClock) -> None:
    """Like connect(); a misspelt option is not ignored."""
    with pytest.raises(InvalidOption):
        await run(URL, Summing(), max_queue=0)
    with pytest.raises(TypeError, match="ping_intervall"):
        await run(URL, Summing(), ping_intervall=3)  # type: ignore[call-arg]
