"""Hooks that raise: who gets the error, what the peer is told, what still runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.hooks.helpers import (
    URL,
    Scripted,
    both_styles,
    delivered,
    linked,
    provoke,
    settled,
    styled,
    taken,
)
from trioglock import (
    Close,
    Connection,
    ConnectionClosedError,
    HookError,
    MemoryTransport,
    connect,
)
from trioglock.testing import MemoryLink

Body = Callable[[Connection[int]], Awaitable[None]]

FATAL = ("handle_receive", "handle_ping", "handle_pong", "handle_cast")
"""The hooks of an open connection whose errors belong to no call."""


class Boom(Exception):
    """What a hook of the test raises."""


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
    await settled()


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
                await provoke(hook, conn, far)
                await body(conn)
        except Exception as error:
            raised = error
        return raised, await taken(far or await transport.accept())


def closes(frames: list[Any]) -> list[int]:
    return [frame.code for frame in frames if isinstance(frame, Close)]


@both_styles
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("hook", FATAL)
async def test_a_hook_that_raises_ends_the_connection(
    hook: str, body: Body, style: str, autojump_clock: MockClock
) -> None:
    """1011 to the peer, terminate once, the very exception out of the block, whatever it does."""
    error = Boom()
    socket = styled(Scripted, style, **{hook: error})
    raised, frames = await crash(socket, hook, body)
    assert raised is error
    assert closes(frames) == [1011]
    assert socket.ran("terminate") == 1
    assert socket.ran(hook) == 1
    reason = socket.calls[-1].what
    assert reason == HookError(error=error)


@both_styles
async def test_handle_connect_raises(style: str, autojump_clock: MockClock) -> None:
    """The body never runs, the peer gets 1011, terminate gets the first state."""
    error = Boom()
    socket = styled(Scripted, style, handle_connect=error)
    raised, frames = await crash(socket, "nothing", must_not_run)
    assert raised is error
    assert closes(frames) == [1011]
    assert socket.ran("terminate") == 1


@both_styles
async def test_init_stream_raises(style: str, autojump_clock: MockClock) -> None:
    """The body never runs, the peer gets 1011; there is no state that terminate could get."""
    error = Boom()
    socket = styled(Scripted, style, init_stream=error)
    raised, frames = await crash(socket, "nothing", must_not_run)
    assert raised is error
    assert closes(frames) == [1011]
    assert socket.ran("terminate") == 0
    assert socket.ran("handle_connect") == 0


async def must_not_run(conn: Connection[int]) -> None:
    raise AssertionError("the connection never opened")


@both_styles
@pytest.mark.parametrize("body", [sleeping, receiving, iterating, sending, leaving])
@pytest.mark.parametrize("hook", ["handle_disconnect", "terminate"])
async def test_the_last_hooks_raise(
    hook: str, body: Body, style: str, autojump_clock: MockClock
) -> None:
    """The very exception comes out, also of a body that sleeps; terminate runs once."""
    error = Boom()
    socket = styled(Scripted, style, **{hook: error})
    raised, frames = await crash(socket, hook, body)
    assert raised is error
    assert closes(frames) == [1000]
    assert socket.ran("handle_disconnect") == 1
    assert socket.ran("terminate") == 1


@pytest.mark.parametrize("body", BODIES)
async def test_a_background_task_raises(body: Body, autojump_clock: MockClock) -> None:
    """It ends the connection as a hook does."""
    error = Boom()
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
    assert socket.ran("terminate") == 1


@both_styles
async def test_the_error_comes_out_unadorned(style: str, autojump_clock: MockClock) -> None:
    """No cause, no context of ours: the traceback is the hook's."""
    error = Boom()
    raised, _ = await crash(styled(Scripted, style, handle_receive=error), "handle_receive")
    assert raised is error
    assert raised.__cause__ is None
    assert raised.__context__ is None


@both_styles
@pytest.mark.parametrize("hook", FATAL)
async def test_nothing_runs_after_a_crash(hook: str, style: str, autojump_clock: MockClock) -> None:
    """No hook of the connection but the last ones sees what happens after one raised."""
    socket = styled(Scripted, style, **{hook: Boom()})
    with pytest.raises(Boom):
        async with linked(socket) as (conn, far):
            await provoke(hook, conn, far)
            for after in FATAL:
                await provoke(after, conn, far)
            await trio.sleep_forever()
    ran = [call.hook for call in socket.calls]
    position = ran.index(hook)
    assert ran[position + 1 :] == ["terminate"]


@both_styles
async def test_a_crash_leaves_only_terminate(style: str, autojump_clock: MockClock) -> None:
    """Nothing is left to decide: handle_disconnect is not asked, and the end takes no time."""
    error = Boom()
    socket = styled(Scripted, style, handle_receive=error)
    started = trio.current_time()
    with pytest.raises(Boom):
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
async def test_terminate_gets_the_state_before_the_crash(
    style: str, autojump_clock: MockClock
) -> None:
    """The state that terminate gets is that of the hook before the one that raised."""
    socket = styled(Scripted, style, handle_ping=Boom())
    with pytest.raises(Boom):
        async with linked(socket) as (conn, far):
            await far.write(["a", "b"])
            await settled()
            await provoke("handle_ping", conn, far)
            await trio.sleep_forever()
    [terminated] = [call for call in socket.calls if call.hook == "terminate"]
    assert terminated.state is not None
    assert terminated.state == socket.ran("handle_receive") + 1


@both_styles
@pytest.mark.parametrize("hook", ["handle_send", "handle_call"])
async def test_an_error_that_belongs_to_a_call_is_raised_there(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """The very exception is raised at the call, the state stays, the connection lives."""
    error = Boom()
    socket = styled(Scripted, style, **{hook: error})
    async with linked(socket) as (conn, far):
        for _ in range(3):
            with pytest.raises(Boom) as caught:
                await provoke(hook, conn, far)
            assert caught.value is error
            assert conn.state == 1
        del socket.script[hook]
        await provoke(hook, conn, far)
        await provoke("handle_receive", conn, far)
        await settled()
        assert conn.state == 3
        assert closes(await taken(far)) == []
    assert socket.ran("terminate") == 1


async def test_an_error_of_send_nowait_is_raised_there(autojump_clock: MockClock) -> None:
    """As that of send."""
    async with linked(Scripted(handle_send=Boom())) as (conn, far):
        with pytest.raises(Boom):
            conn.send_nowait("x")
        assert conn.state == 1
        assert await taken(far) == []


@both_styles
@pytest.mark.parametrize("hook", ["handle_send", "handle_call"])
async def test_errors_reach_their_own_callers(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """Of many tasks that wait in the mailbox, each gets the error of its own call."""

    class Picky(Scripted):
        def _act(self, hook: str, what: Any, state: int | None, *normal: Any) -> Any:
            if isinstance(what, int) and what % 2:
                raise Boom(what)
            return super()._act(hook, what, state, *normal)

    outcomes: dict[int, object] = {}

    async def one(conn: Connection[int], number: int) -> None:
        use = conn.send if hook == "handle_send" else conn.call
        try:
            outcomes[number] = await use(number)
        except Boom as error:
            outcomes[number] = error.args[0]

    async with (
        linked(styled(Picky, style, handle_send="sent")) as (conn, _),
        trio.open_nursery() as nursery,
    ):
        for number in range(10):
            nursery.start_soon(one, conn, number)
    good = (lambda n: None) if hook == "handle_send" else (lambda n: f"re: {n}")
    assert outcomes == {n: n if n % 2 else good(n) for n in range(10)}


async def test_callers_that_wait_learn_of_a_crash(autojump_clock: MockClock) -> None:
    """A send and a call that wait for their turn raise ConnectionClosed; nobody hangs."""

    class Slow(Scripted):
        async def handle_cast(self, message: Any, state: int) -> Any:
            await trio.sleep(60)
            raise Boom

    async def learn(use: Callable[[Any], Awaitable[Any]]) -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            await use("x")
        assert caught.value.sent == Close(1011, "internal error")

    async with trio.open_nursery() as outside:
        with pytest.raises(Boom):
            async with linked(Slow()) as (conn, _):
                conn.cast("x")
                await trio.sleep(1)
                outside.start_soon(learn, conn.send)
                outside.start_soon(learn, conn.call)
                await trio.sleep_forever()


@both_styles
async def test_what_was_delivered_before_a_crash_stays_readable(
    style: str, autojump_clock: MockClock
) -> None:
    """A receiver outside the body's scope still finds the messages."""
    kept: list[Any] = []
    socket = styled(Scripted, style, handle_receive="message", handle_ping=Boom())
    with pytest.raises(Boom):
        async with linked(socket) as (conn, far):
            await provoke("handle_receive", conn, far)
            await settled()
            await provoke("handle_ping", conn, far)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    kept += await delivered(conn)
    assert kept == ["message"]
