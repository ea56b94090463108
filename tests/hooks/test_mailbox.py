"""The actor's mailbox: cast, cast_after and call."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import (
    Raw,
    Scripted,
    SlowHooks,
    both_styles,
    delivered,
    linked,
    read_frames,
    styled,
    wait_for_hooks,
)
from trioglock import (
    CallTimeout,
    Close,
    Connection,
    ConnectionClosed,
    InvalidOption,
    Ping,
    Pong,
    Reply,
    Socket,
    UsageError,
)
from trioglock.connection import actor

MAILBOX = 500
"""The limit of the mailbox in the tests that use :func:`small_mailbox`."""


# Cast.


@both_styles
async def test_cast_returns_before_its_hook_runs(style: str, autojump_clock: MockClock) -> None:
    """A cast does not wait, and its hook does not run inside the call."""
    socket = styled(Scripted, style, handle_cast=Reply("cast", deliver="message"))
    async with linked(socket) as (conn, far):
        conn.cast("x")
        assert socket.count("handle_cast") == 0
        assert await conn.receive() == "message"
        assert await read_frames(far) == ["cast"]


async def test_cast_without_the_hook(autojump_clock: MockClock) -> None:
    """UsageError names the class; the connection stays open."""

    class Mute(Socket[None]):
        pass

    async with linked(Mute()) as (conn, far):
        with pytest.raises(UsageError, match="Mute has no handle_cast"):
            conn.cast("x")
        with pytest.raises(UsageError, match="Mute has no handle_cast"):
            conn.cast_after(1, "x")
        with pytest.raises(UsageError, match="Mute has no handle_call"):
            await conn.call("x")
        await conn.send("alive")
        assert await read_frames(far) == ["alive"]


async def test_cast_after(autojump_clock: MockClock) -> None:
    """Each message is handled after its seconds, in any order of the calls."""
    arrived: list[tuple[str, float]] = []

    class Noting(Socket[None]):
        def handle_cast(self, message: str, state: None) -> tuple[None, None]:
            arrived.append((message, trio.current_time()))
            return None, state

    async with linked(Noting()) as (conn, _):
        conn.cast_after(60, "c")
        conn.cast_after(0.5, "a")
        conn.cast_after(20, "b")
        await trio.sleep(100)
    assert arrived == [("a", 0.5), ("b", 20), ("c", 60)]


async def test_cast_after_can_be_cancelled(autojump_clock: MockClock) -> None:
    """Cancelling the returned scope withdraws only this message."""
    socket = Scripted()
    async with linked(socket) as (conn, _):
        conn.cast_after(60, "kept")
        scope = conn.cast_after(60, "taken back")
        await trio.sleep(30)
        scope.cancel()
        await trio.sleep(60)
        scope.cancel()  # late, and harmless
        assert [call.what for call in socket.calls[2:]] == ["kept"]


async def test_cast_after_does_not_outlive_the_connection(autojump_clock: MockClock) -> None:
    """A pending message neither delays the end nor is handled."""
    socket = Scripted()
    async with linked(socket) as (conn, far):
        conn.cast_after(3600, "never")
        await far.write([Close()])
        await far.send_eof()
        await conn.wait_closed()
        assert trio.current_time() < 1
    assert socket.count("handle_cast") == 0


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1", True])
async def test_cast_after_checks_its_seconds(seconds: Any, autojump_clock: MockClock) -> None:
    """Invalid seconds raise at the call."""
    async with linked(Scripted()) as (conn, _):
        with pytest.raises(InvalidOption, match="seconds"):
            conn.cast_after(seconds, "x")


@pytest.fixture
def small_mailbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the limit, which takes seconds to reach."""
    assert actor.MAX_PENDING == 65_536
    monkeypatch.setattr(actor, "MAX_PENDING", MAILBOX)


def fill(conn: Connection[int]) -> int:
    """Cast until the mailbox is full; return the number of accepted casts."""
    for number in range(MAILBOX + 1):
        try:
            conn.cast(number)
        except trio.WouldBlock:
            return number
    raise AssertionError("the mailbox has no limit")


async def test_a_full_mailbox_refuses_casts(small_mailbox: None, autojump_clock: MockClock) -> None:
    """Cast raises WouldBlock at the limit; all accepted jobs are handled."""
    socket = SlowHooks()
    async with linked(socket) as (conn, _):
        conn.cast("slow")
        await wait_for_hooks()
        fitted = fill(conn)
        assert fitted + 1 in (MAILBOX, MAILBOX + 1)  # the running job may or may not count
        await trio.sleep(120)
        conn.cast("accepted again")
        await conn.call("done")
        assert socket.count("handle_cast") == 1 + fitted + 1


async def test_a_full_mailbox_still_accepts_messages_of_the_peer(
    small_mailbox: None, autojump_clock: MockClock
) -> None:
    """Messages are handled in order, and pings are answered."""
    socket = SlowHooks(handle_receive=None)
    async with linked(socket) as (conn, far):
        conn.cast("slow")
        await wait_for_hooks()
        fill(conn)
        await far.write(["a", Ping(b"b"), "c"])
        assert await read_frames(far) == [Pong(b"b")]
        await trio.sleep(120)
        await conn.call("done")
        last = [call.what for call in socket.calls[-4:] if call.hook != "handle_ping"]
        assert last[-3:] == ["a", "c", "done"]


# Call.


@both_styles
async def test_call_returns_the_reply(style: str, autojump_clock: MockClock) -> None:
    """(reply, state) returns the reply and does nothing else."""
    socket = styled(Scripted, style, handle_call=Raw(lambda: ({"reply": 1}, 42)))
    async with linked(socket) as (conn, far):
        assert await conn.call("x") == {"reply": 1}
        assert conn.state == 42
        assert await read_frames(far) == []
        assert await delivered(conn) == []


@both_styles
async def test_call_with_a_result(style: str, autojump_clock: MockClock) -> None:
    """(reply, result, state) returns the reply and applies the result."""
    result = Reply("frame", deliver="message")
    socket = styled(Scripted, style, handle_call=Raw(lambda: ("reply", result, 42)))
    async with linked(socket) as (conn, far):
        assert await conn.call("x") == "reply"
        assert conn.state == 42
        assert await read_frames(far) == ["frame"]
        assert await delivered(conn) == ["message"]


@both_styles
@pytest.mark.parametrize("reply", [None, False, (), Close(1000), Reply("a"), ValueError("value")])
async def test_a_reply_is_any_value(reply: Any, style: str, autojump_clock: MockClock) -> None:
    """The reply is returned unchanged, even if it is an exception or a result."""
    socket = styled(Scripted, style, handle_call=Raw(lambda: (reply, 1)))
    async with linked(socket) as (conn, far):
        assert await conn.call("x") is reply
        assert await read_frames(far) == []


async def test_call_timeout(autojump_clock: MockClock) -> None:
    """CallTimeout is raised after the seconds; a started request is still handled."""
    socket = SlowHooks()
    async with linked(socket) as (conn, _):
        with pytest.raises(CallTimeout, match=r"SlowHooks\.handle_call took longer than 5 seconds"):
            await conn.call("slow", timeout=5)
        assert trio.current_time() == 5
        assert conn.state == 1
        assert await conn.call("next") == "re: next"
        assert trio.current_time() == 60
        assert [call.what for call in socket.calls[2:]] == ["slow", "next"]


async def test_call_within_its_timeout(autojump_clock: MockClock) -> None:
    """CallTimeout is a TimeoutError."""
    async with linked(SlowHooks()) as (conn, _):
        assert await conn.call("slow", timeout=61) == "re: slow"
    assert issubclass(CallTimeout, TimeoutError)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
async def test_call_checks_its_timeout(timeout: Any, autojump_clock: MockClock) -> None:
    """An invalid timeout raises at the call."""
    async with linked(Scripted()) as (conn, _):
        with pytest.raises(InvalidOption, match="timeout"):
            await conn.call("x", timeout=timeout)


async def test_a_deadline_around_a_call(autojump_clock: MockClock) -> None:
    """It cancels the call without a CallTimeout."""
    async with linked(SlowHooks()) as (conn, _):
        with trio.move_on_after(5) as scope:
            await conn.call("slow", timeout=50)
        assert scope.cancelled_caught


async def test_a_cancelled_call_that_waits_is_withdrawn(autojump_clock: MockClock) -> None:
    """A request that has not started is not handled."""
    socket = SlowHooks()
    async with linked(socket) as (conn, _):
        conn.cast("slow")
        await wait_for_hooks()
        with trio.move_on_after(5):
            await conn.call("withdrawn")
        await trio.sleep(60)
        assert [call.what for call in socket.calls[2:]] == ["slow"]


@pytest.mark.parametrize("call", ["cast", "cast_after", "call"])
async def test_a_closed_connection_accepts_no_jobs(call: str, autojump_clock: MockClock) -> None:
    """Each call raises ConnectionClosed after the end."""
    async with linked(Scripted()) as (conn, _):
        conn.abort()
        await conn.wait_closed()
        with pytest.raises(ConnectionClosed):
            match call:
                case "cast":
                    conn.cast("x")
                case "cast_after":
                    conn.cast_after(1, "x")
                case _:
                    await conn.call("x")
