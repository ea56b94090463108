"""Exceptions raised by ``async with connect(...)``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import URL, Scripted, UserError, linked, read_frames
from trioglock import (
    Close,
    ConnectFailed,
    ConnectionClosedError,
    ConnectionClosedOK,
    MemoryTransport,
    Status,
    connect,
)
from trioglock.testing import MemoryLink


class Interrupt(BaseException):
    """An exception like KeyboardInterrupt, which must not be delayed."""


Body = Callable[[Any, MemoryLink], Awaitable[None]]


async def outcome(
    body: Body, socket: Scripted | None = None
) -> tuple[BaseException | None, list[Any], float]:
    """Return the exception of the block, the frames that the peer received, and the duration."""
    far: MemoryLink | None = None
    raised: BaseException | None = None
    ended = trio.current_time()
    try:
        async with linked(socket or Scripted()) as (conn, far):
            try:
                await body(conn, far)
            finally:
                ended = trio.current_time()
    except BaseException as error:
        raised = error
    assert far is not None
    return raised, await read_frames(far), trio.current_time() - ended


def raising(error: BaseException) -> Body:
    """A body that raises immediately."""

    async def body(conn: Any, far: MemoryLink) -> None:
        raise error

    return body


def failing_with_a_hook(error: BaseException) -> Body:
    """A body that raises when it is cancelled because ``handle_receive`` has raised."""

    async def body(conn: Any, far: MemoryLink) -> None:
        await far.write(["x"])
        try:
            await trio.sleep_forever()
        finally:
            raise error

    return body


@pytest.mark.parametrize(
    "error",
    [
        UserError("x"),
        StopAsyncIteration(),
        ConnectionClosedError(None, None),
        ConnectFailed("another"),
        trio.WouldBlock(),
        TimeoutError(),
        ExceptionGroup("the body's", [UserError(1), UserError(2)]),
        ExceptionGroup("one", [UserError(1)]),
    ],
    ids=repr,
)
async def test_the_exception_of_the_body_is_raised_unchanged(
    error: Exception, autojump_clock: MockClock
) -> None:
    """It is the same object, without a group and a context; we close with 1011."""
    raised, frames, _ = await outcome(raising(error))
    assert raised is error
    assert raised.__context__ is None
    assert raised.__cause__ is None
    assert not raised.__suppress_context__
    assert frames == [Close(1011, "internal error")]


async def test_cause_and_context_of_the_body_stay(autojump_clock: MockClock) -> None:
    """Exceptions that the body chained itself are kept."""
    cause, context = KeyError("cause"), ValueError("context")

    async def body(conn: Any, far: MemoryLink) -> None:
        try:
            raise context
        except ValueError:
            raise UserError from cause

    raised, _, _ = await outcome(body)
    assert raised is not None
    assert raised.__cause__ is cause
    assert raised.__context__ is context


async def test_the_traceback_shows_the_bodys_line(autojump_clock: MockClock) -> None:
    """The innermost frame is the line that raised."""

    async def the_line(conn: Any, far: MemoryLink) -> None:
        raise UserError

    raised, _, _ = await outcome(the_line)
    assert raised is not None
    traceback = raised.__traceback__
    names = []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names[-1] == "the_line"


@pytest.mark.parametrize(
    "error",
    [
        Interrupt(),
        KeyboardInterrupt(),
        SystemExit(),
        BaseExceptionGroup("both", [UserError(), Interrupt()]),
    ],
    ids=repr,
)
async def test_an_interrupt_aborts_the_connection(
    error: BaseException, autojump_clock: MockClock
) -> None:
    """There is no closing handshake and no wait, and ``terminate`` runs once."""
    socket = Scripted()
    raised, frames, seconds = await outcome(raising(error), socket)
    assert raised is error
    assert raised.__context__ is None
    assert (frames, seconds) == ([], 0)
    assert socket.count("terminate") == 1


async def test_a_cancelled_body_drops_the_connection(autojump_clock: MockClock) -> None:
    """The scope around the block catches its cancellation; no time passes."""
    socket = Scripted()
    with trio.move_on_after(5) as scope:
        async with linked(socket) as (conn, far):
            await conn.receive()
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert conn.status is Status.CLOSED
    assert conn.close_code == 1006
    assert await read_frames(far) == []
    assert socket.count("terminate") == 1


async def test_a_scope_inside_the_body(autojump_clock: MockClock) -> None:
    """Cancelling a part of the body does not affect the connection."""
    async with linked() as (conn, far):
        with trio.move_on_after(5) as scope:
            await conn.receive()
        assert scope.cancelled_caught
        await conn.send("alive")
        assert await read_frames(far) == ["alive"]


async def test_a_timeout_around_the_block(autojump_clock: MockClock) -> None:
    """fail_after around the block raises TooSlowError."""
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(5):
            async with linked():
                await trio.sleep_forever()


@pytest.mark.parametrize("cancel_while", ["dialling", "init_stream", "handle_connect"])
async def test_cancelled_before_the_body_starts(
    cancel_while: str, autojump_clock: MockClock
) -> None:
    """The scope catches it; the body does not run; no task remains."""

    class Slow(Scripted):
        async def init_stream(self, info: Any) -> Any:
            if cancel_while == "init_stream":
                await trio.sleep_forever()
            return super().init_stream(info)

        async def handle_connect(self, info: Any, state: int) -> Any:
            await trio.sleep_forever()

    class NeverThere(MemoryTransport):
        async def connect(self, *args: Any) -> Any:
            await trio.sleep_forever()

    transport = NeverThere() if cancel_while == "dialling" else MemoryTransport()
    socket = Slow()
    with trio.move_on_after(5) as scope:
        async with connect(URL, socket, transport=transport):
            raise AssertionError("the body began")
    assert scope.cancelled_caught
    assert socket.count("terminate") == (1 if cancel_while == "handle_connect" else 0)


@pytest.mark.parametrize("hook", ["handle_receive", "terminate"])
async def test_two_independent_failures_are_one_group(hook: str, autojump_clock: MockClock) -> None:
    """A hook fails at the same time as the body, or after it."""
    mine, of_hook = UserError("body"), ValueError("hook")
    body = failing_with_a_hook(mine) if hook == "handle_receive" else raising(mine)
    raised, _, _ = await outcome(body, Scripted(**{hook: of_hook}))
    assert isinstance(raised, ExceptionGroup)
    assert raised.exceptions == (mine, of_hook)


@pytest.mark.parametrize("in_a_nursery", [False, True])
async def test_connection_closed_after_a_failed_hook_is_not_a_second_failure(
    in_a_nursery: bool, autojump_clock: MockClock
) -> None:
    """ConnectionClosed in the body that results from the hook does not make a group."""
    hooks = ValueError("hook")

    async def body(conn: Any, far: MemoryLink) -> None:
        await far.write(["x"])
        with trio.CancelScope(shield=True):
            if in_a_nursery:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(conn.receive)
                    nursery.start_soon(conn.receive)
            else:
                await conn.receive()

    raised, _, _ = await outcome(body, Scripted(handle_receive=hooks))
    assert raised is hooks


async def test_connection_closed_of_another_connection_is_a_failure(
    autojump_clock: MockClock,
) -> None:
    """It does not count as a consequence."""
    hooks, other = ValueError("hook"), ConnectionClosedError(None, None)
    raised, _, _ = await outcome(failing_with_a_hook(other), Scripted(handle_receive=hooks))
    assert isinstance(raised, ExceptionGroup)
    assert raised.exceptions == (other, hooks)


async def test_a_body_that_raises_the_exception_of_a_hook(autojump_clock: MockClock) -> None:
    """The same exception is raised once."""
    error = UserError()
    raised, _, _ = await outcome(failing_with_a_hook(error), Scripted(handle_receive=error))
    assert raised is error


async def test_an_unhandled_connection_closed_is_raised_by_the_block(
    autojump_clock: MockClock,
) -> None:
    """If nothing else failed, it is the exception of the body."""

    async def body(conn: Any, far: MemoryLink) -> None:
        await far.write([Close(1000)])
        await conn.receive()

    raised, _, _ = await outcome(body)
    assert isinstance(raised, ConnectionClosedOK)
