"""Exceptions raised by hooks and background tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.cases import case_of
from tests.hooks.helpers import (
    URL,
    Scripted,
    UserError,
    both_styles,
    delivered,
    linked,
    read_frames,
    styled,
    trigger,
    wait_for_hooks,
)
from trioglock import Close, Connection, ConnectionClosedError, HookError, MemoryTransport, connect
from trioglock.testing import MemoryLink

Body = Callable[[Connection[int]], Awaitable[None]]

FATAL = ("handle_receive", "handle_ping", "handle_pong", "handle_cast")
"""The hooks of an open connection whose errors belong to no call."""


async def sleeping(conn: Connection[int]) -> None:
    await trio.sleep_forever()


async def receiving(conn: Connection[int]) -> None:
    while True:
        await conn.receive()


async def iterating(conn: Connection[int]) -> None:
    async for _ in conn:
        pass


async def sending(conn: Connection[int]) -> None:
    while True:
        await conn.send("x")
        await trio.sleep(0.001)


async def calling(conn: Connection[int]) -> None:
    while True:
        await conn.call("x")
        await trio.sleep(0.001)


async def leaving(conn: Connection[int]) -> None:
    await wait_for_hooks()


async def many(conn: Connection[int]) -> None:
    async with trio.open_nursery() as nursery:
        for body in (sleeping, receiving, iterating, sending, calling):
            nursery.start_soon(body, conn)


BODIES = (sleeping, receiving, iterating, sending, calling, leaving, many)


async def crash(
    socket: Scripted, hook: str, body: Body = sleeping
) -> tuple[BaseException | None, list[Any]]:
    """Run ``body`` beside a hook that raises: what comes out of the block, what the peer got."""
    transport = MemoryTransport()
    far: MemoryLink | None = None
    raised: BaseException | None = None
    with trio.fail_after(86_400):
        try:
            async with connect(URL, socket, transport=transport, ping_interval=None) as conn:
                far = await transport.accept()
                await trigger(hook, conn, far)
                await body(conn)
        except Exception as error:
            raised = error
        return raised, await read_frames(far or await transport.accept())


def closes(frames: list[Any]) -> list[int]:
    return [frame.code for frame in frames if isinstance(frame, Close)]


@both_styles
@pytest.mark.parametrize("body", BODIES)
async def test_a_hook_that_raises_ends_the_connection(
    body: Body, style: str, autojump_clock: MockClock
) -> None:
    """We close with 1011, ``terminate`` runs once, and the block raises the exception."""
    for hook in FATAL:
        with case_of(hook):
            error = UserError()
            socket = styled(Scripted, style, **{hook: error})
            raised, frames = await crash(socket, hook, body)
            assert raised is error
            assert closes(frames) == [1011]
            assert socket.count("terminate") == 1
            assert socket.count(hook) == 1
            reason = socket.calls[-1].what
            assert reason == HookError(error=error)


@both_styles
@pytest.mark.parametrize("hook", ["init_stream", "handle_connect"])
async def test_the_first_hooks_raise(hook: str, style: str, autojump_clock: MockClock) -> None:
    """The body does not run, we close with 1011, and ``terminate`` runs if there is a state."""
    error = UserError()
    socket = styled(Scripted, style, **{hook: error})
    raised, frames = await crash(socket, "nothing", must_not_run)
    assert raised is error
    assert closes(frames) == [1011]
    has_state = hook == "handle_connect"
    assert socket.count("handle_connect") == socket.count("terminate") == has_state


async def must_not_run(conn: Connection[int]) -> None:
    raise AssertionError("the connection never opened")


@both_styles
@pytest.mark.parametrize("body", [sleeping, receiving, iterating, sending, leaving])
@pytest.mark.parametrize("hook", ["handle_disconnect", "terminate"])
async def test_the_last_hooks_raise(
    hook: str, body: Body, style: str, autojump_clock: MockClock
) -> None:
    """The exception is raised, even if the body sleeps; ``terminate`` runs once."""
    error = UserError()
    socket = styled(Scripted, style, **{hook: error})
    raised, frames = await crash(socket, hook, body)
    assert raised is error
    assert closes(frames) == [1000]
    assert socket.count("handle_disconnect") == 1
    assert socket.count("terminate") == 1


@pytest.mark.parametrize("body", BODIES)
async def test_a_background_task_raises(body: Body, autojump_clock: MockClock) -> None:
    """It ends the connection like a hook."""
    error = UserError()
    socket = Scripted()

    async def task() -> None:
        await trio.sleep(0.1)
        raise error

    async def start(conn: Connection[int]) -> None:
        conn.start_soon(task)
        await body(conn)

    raised, frames = await crash(socket, "nothing", start)
    assert raised is error
    assert closes(frames) == [1011]
    assert socket.calls[-1][:2] == ("terminate", HookError(error=error))
    assert socket.count("terminate") == 1


@both_styles
async def test_the_exception_is_raised_unchanged(style: str, autojump_clock: MockClock) -> None:
    """It has no cause or context of ours, and the traceback is that of the hook."""
    error = UserError()
    raised, _ = await crash(styled(Scripted, style, handle_receive=error), "handle_receive")
    assert raised is error
    assert raised.__cause__ is None
    assert raised.__context__ is None


@both_styles
@pytest.mark.parametrize("hook", FATAL)
async def test_only_the_last_hooks_run_after_a_failure(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """No other hook of the connection runs."""
    socket = styled(Scripted, style, **{hook: UserError()})
    with pytest.raises(UserError):
        async with linked(socket) as (conn, far):
            await trigger(hook, conn, far)
            for after in FATAL:
                await trigger(after, conn, far)
            await trio.sleep_forever()
    ran = [call.hook for call in socket.calls]
    position = ran.index(hook)
    assert ran[position + 1 :] == ["terminate"]


@both_styles
async def test_handle_disconnect_does_not_run_after_a_failure(
    style: str, autojump_clock: MockClock
) -> None:
    """The end takes no time."""
    error = UserError()
    socket = styled(Scripted, style, handle_receive=error)
    started = trio.current_time()
    with pytest.raises(UserError):
        async with linked(socket) as (_, far):
            await far.write(["x"])
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await far.write([Close(1000)])
                    await far.send_eof()
    assert [call[:2] for call in socket.calls[-2:]] == [
        ("handle_receive", "x"),
        ("terminate", HookError(error=error)),
    ]
    assert trio.current_time() - started < 1


@both_styles
async def test_terminate_gets_the_state_before_the_failure(
    style: str, autojump_clock: MockClock
) -> None:
    """It is the state of the hook before the one that raised."""
    socket = styled(Scripted, style, handle_ping=UserError())
    with pytest.raises(UserError):
        async with linked(socket) as (conn, far):
            await far.write(["a", "b"])
            await wait_for_hooks()
            await trigger("handle_ping", conn, far)
            await trio.sleep_forever()
    [terminated] = [call for call in socket.calls if call.hook == "terminate"]
    assert terminated.state is not None
    assert terminated.state == socket.count("handle_receive") + 1


@both_styles
@pytest.mark.parametrize("hook", ["handle_send", "handle_call"])
async def test_an_exception_of_a_call_is_raised_there(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """The state is unchanged, and the connection stays open."""
    error = UserError()
    socket = styled(Scripted, style, **{hook: error})
    async with linked(socket) as (conn, far):
        for _ in range(3):
            with pytest.raises(UserError) as caught:
                await trigger(hook, conn, far)
            assert caught.value is error
            assert conn.state == 1
        del socket.script[hook]
        await trigger(hook, conn, far)
        await trigger("handle_receive", conn, far)
        await wait_for_hooks()
        assert conn.state == 3
        assert closes(await read_frames(far)) == []
    assert socket.count("terminate") == 1


async def test_an_exception_of_send_nowait_is_raised_there(autojump_clock: MockClock) -> None:
    """The same as for send."""
    async with linked(Scripted(handle_send=UserError())) as (conn, far):
        with pytest.raises(UserError):
            conn.send_nowait("x")
        assert conn.state == 1
        assert await read_frames(far) == []


@both_styles
@pytest.mark.parametrize("hook", ["handle_send", "handle_call"])
async def test_exceptions_reach_their_own_callers(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """Each of many waiting tasks gets the exception of its own call."""

    class Picky(Scripted):
        def _act(self, hook: str, what: Any, state: int | None, *normal: Any) -> Any:
            if isinstance(what, int) and what % 2:
                raise UserError(what)
            return super()._act(hook, what, state, *normal)

    outcomes: dict[int, object] = {}

    async def one(conn: Connection[int], number: int) -> None:
        use = conn.send if hook == "handle_send" else conn.call
        try:
            outcomes[number] = await use(number)
        except UserError as error:
            outcomes[number] = error.args[0]

    async with (
        linked(styled(Picky, style, handle_send="sent")) as (conn, _),
        trio.open_nursery() as nursery,
    ):
        for number in range(10):
            nursery.start_soon(one, conn, number)
    good = (lambda n: None) if hook == "handle_send" else (lambda n: f"re: {n}")
    assert outcomes == {n: n if n % 2 else good(n) for n in range(10)}


async def test_waiting_callers_are_woken_by_a_failure(autojump_clock: MockClock) -> None:
    """A waiting send and call raise ConnectionClosed."""

    class Slow(Scripted):
        async def handle_cast(self, message: Any, state: int) -> Any:
            await trio.sleep(60)
            raise UserError

    async def learn(use: Callable[[Any], Awaitable[Any]]) -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            await use("x")
        assert caught.value.sent == Close(1011, "internal error")

    async with trio.open_nursery() as outside:
        with pytest.raises(UserError):
            async with linked(Slow()) as (conn, _):
                conn.cast("x")
                await trio.sleep(1)
                outside.start_soon(learn, conn.send)
                outside.start_soon(learn, conn.call)
                await trio.sleep_forever()


@both_styles
async def test_messages_before_a_failure_can_be_received(
    style: str, autojump_clock: MockClock
) -> None:
    """A receiver outside the scope of the body still gets them."""
    kept: list[Any] = []
    socket = styled(Scripted, style, handle_receive="message", handle_ping=UserError())
    with pytest.raises(UserError):
        async with linked(socket) as (conn, far):
            await trigger("handle_receive", conn, far)
            await wait_for_hooks()
            await trigger("handle_ping", conn, far)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    kept += await delivered(conn)
    assert kept == ["message"]
