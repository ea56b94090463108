"""Calls on the connection inside its own hooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.cases import case_of
from tests.hooks.helpers import HOOKS, delivered, linked, read_frames, trigger, wait_for_hooks
from trioglock import Close, Connection, ConnectionClosed, Socket, UsageError

Conn = Connection[Any]


async def iterate(conn: Conn) -> None:
    async for _ in conn:
        return


async def send_nowait(conn: Conn) -> None:
    conn.send_nowait("y")


async def receive_nowait(conn: Conn) -> None:
    conn.receive_nowait()


FORBIDDEN: dict[str, Callable[[Conn], Any]] = {
    "send": lambda conn: conn.send("y"),
    "send_nowait": send_nowait,
    "send_frame": lambda conn: conn.send_frame("y"),
    "receive": lambda conn: conn.receive(),
    "receive_nowait": receive_nowait,
    "receive_batch": lambda conn: conn.receive_batch(),
    "async for": iterate,
    "call": lambda conn: conn.call("y"),
    "ping": lambda conn: conn.ping(),
    "flush": lambda conn: conn.flush(),
    "aclose": lambda conn: conn.aclose(),
    "reconnect": lambda conn: conn.reconnect(),
    "wait_closed": lambda conn: conn.wait_closed(),
}

NEED_NO_HOOK = {"send_frame", "flush", "receive", "receive_nowait", "receive_batch", "async for"}


class Inside(Socket[int]):
    """Every hook is async and does ``act`` when it is the chosen one."""

    def __init__(self, chosen: str, act: Callable[[Any], Any]) -> None:
        self.chosen = chosen
        self.act = act
        self.acted = 0
        self.happened: list[str] = []
        self.conn: Any = None


def acting(name: str) -> Callable[..., Any]:
    """Create a hook of :class:`Inside`."""

    async def hook(self: Inside, what: Any, state: int = -1) -> Any:
        if name == "init_stream":
            self.conn = what.connection
        if name == "handle_cast":
            self.happened.append(what)
        if name == self.chosen:
            self.acted += 1
            await self.act(self.conn)
        if name == "init_stream":
            return 0
        return what if name in ("handle_send", "handle_receive", "handle_call") else None, state + 1

    return hook


for name in HOOKS:
    setattr(Inside, name, acting(name))


@pytest.mark.parametrize("hook", HOOKS)
async def test_calls_that_would_wait_for_the_hook_raise(
    hook: str, autojump_clock: MockClock
) -> None:
    """UsageError names the call and what to do instead."""
    for name, call in FORBIDDEN.items():
        with case_of(name):
            text = await refusal_of(call, hook)
            assert "Reply" in text
            assert "cast" in text
            assert f"{'receive' if name == 'async for' else name}()" in text


async def refusal_of(call: Callable[[Conn], Awaitable[object]], hook: str) -> str:
    """Let a hook make the call; return the text of the immediate UsageError."""
    texts: list[str] = []

    async def act(conn: Conn) -> None:
        before = trio.current_time()
        with pytest.raises(UsageError) as caught:
            await call(conn)
        assert trio.current_time() == before
        texts.append(str(caught.value))

    socket = Inside(hook, act)
    async with linked(socket) as (conn, far):
        await trigger(hook, conn, far)
        await wait_for_hooks()
    assert socket.acted == 1
    return texts[0]


@pytest.mark.parametrize("call", ["send_nowait", "receive_nowait"])
async def test_the_calls_of_a_plain_hook_raise_too(call: str, autojump_clock: MockClock) -> None:
    """The calls that a plain hook can make are refused as well."""
    refused: list[UsageError] = []

    class Plain(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[None, None]:
            use = conn.receive_nowait if call == "receive_nowait" else lambda: conn.send_nowait("y")
            with pytest.raises(UsageError, match="Reply") as caught:
                use()
            refused.append(caught.value)
            return None, state

    async with linked(Plain()) as (conn, far):
        await far.write(["x"])
        assert await read_frames(far) == []
        assert len(refused) == 1


async def test_an_uncaught_usage_error_ends_the_connection(autojump_clock: MockClock) -> None:
    """The block raises it like any exception of a hook."""
    with pytest.raises(UsageError, match="send"):
        async with linked(Inside("handle_receive", lambda conn: conn.send("y"))) as (_, far):
            await far.write(["x"])
            await trio.sleep_forever()


@pytest.mark.parametrize("call", sorted(set(FORBIDDEN) - {"send_nowait"}))
async def test_another_task_may_call_while_a_hook_is_suspended(
    call: str, autojump_clock: MockClock
) -> None:
    """Calls that need no hook complete immediately."""

    async def act(conn: Conn) -> None:
        await trio.sleep(60)

    socket = Inside("handle_ping", act)
    async with linked(socket) as (conn, far):
        await far.write(["message"])
        await wait_for_hooks()
        await trigger("handle_ping", conn, far)
        await wait_for_hooks()
        assert socket.acted == 1
        with trio.move_on_after(5) as waiting:
            await FORBIDDEN[call](conn)
        assert waiting.cancelled_caught == (call not in NEED_NO_HOOK)


async def test_send_nowait_of_another_task_would_block_while_a_hook_is_suspended(
    autojump_clock: MockClock,
) -> None:
    """It cannot wait for the hook."""

    class Slow(Socket[None]):
        async def handle_receive(self, frame: Any, state: None) -> tuple[None, None]:
            await trio.sleep(60)
            return None, state

    async with linked(Slow()) as (conn, far):
        await far.write(["x"])
        await wait_for_hooks()
        with pytest.raises(trio.WouldBlock):
            conn.send_nowait("y")
        await trio.sleep(60)
        conn.send_nowait("y")
        assert await read_frames(far) == ["y"]


async def test_other_tasks_send_receive_and_call_around_a_suspended_hook(
    autojump_clock: MockClock,
) -> None:
    """Send and call wait for the hook; other calls complete immediately."""
    done: list[tuple[str, float]] = []

    async def note(name: str, use: Callable[[], Any]) -> None:
        await use()
        done.append((name, trio.current_time() - started))

    async def act(conn: Conn) -> None:
        if socket.acted == 1:
            await trio.sleep(60)

    socket = Inside("handle_cast", act)
    async with linked(socket) as (conn, far):
        await far.write(["ready"])
        await wait_for_hooks()
        conn.cast("slow")
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "receive", conn.receive)
            nursery.start_soon(note, "send_frame", lambda: conn.send_frame("raw"))
            nursery.start_soon(note, "flush", conn.flush)
            nursery.start_soon(note, "send", lambda: conn.send("y"))
            nursery.start_soon(note, "call", lambda: conn.call("y"))
        assert await read_frames(far) == ["raw", "y"]
    assert {name for name, at in done if at < 1} == {"receive", "send_frame", "flush"}
    assert {name for name, at in done if at >= 60} == {"send", "call"}


@pytest.mark.parametrize("hook", HOOKS[:-1])
async def test_cast_start_soon_and_trace_are_allowed(hook: str, autojump_clock: MockClock) -> None:
    """They do not wait; their effects follow after the hook."""

    async def background() -> None:
        socket.happened.append("background")

    async def act(conn: Conn) -> None:
        if socket.acted == 1:
            conn.cast("cast")
            conn.cast_after(5, "later")
            conn.start_soon(background)
            conn.trace()
            conn.trace(False)
            assert set(socket.happened) <= {"x"}

    socket = Inside(hook, act)
    async with linked(socket) as (conn, far):
        await trigger(hook, conn, far)
        await trio.sleep(10)
    if hook != "handle_disconnect":
        assert sorted(set(socket.happened) - {"x"}) == ["background", "cast", "later"]


@pytest.mark.parametrize("hook", HOOKS[:-2])
async def test_abort_is_allowed(hook: str, autojump_clock: MockClock) -> None:
    """The connection ends immediately, without a Close frame."""

    async def act(conn: Conn) -> None:
        conn.abort()

    socket = Inside(hook, act)
    async with linked(socket) as (conn, far):
        try:
            await trigger(hook, conn, far)
        except ConnectionClosed:
            assert hook in ("handle_send", "handle_call")
        await conn.wait_closed()
        assert trio.current_time() == 0
        assert not any(isinstance(frame, Close) for frame in await read_frames(far))


async def test_no_hook_runs_after_abort(autojump_clock: MockClock) -> None:
    """It also skips the remaining messages of the same chunk."""
    seen: list[str] = []

    class Aborting(Socket[None]):
        def handle_receive(self, frame: str, state: None) -> tuple[None, None]:
            seen.append(frame)
            conn.abort()
            return None, state

    async with linked(Aborting()) as (conn, far):
        await far.write(["a", "b", "c"])
        await conn.wait_closed()
    assert seen == ["a"]


@pytest.mark.parametrize("call", ["cast", "cast_after", "start_soon"])
async def test_terminate_finds_a_closed_connection(call: str, autojump_clock: MockClock) -> None:
    """Calls that need a later hook or task raise ConnectionClosed."""
    raised: list[BaseException] = []

    async def act(conn: Conn) -> None:
        uses: dict[str, Callable[[], object]] = {
            "cast": lambda: conn.cast("x"),
            "cast_after": lambda: conn.cast_after(1, "x"),
            "start_soon": lambda: conn.start_soon(wait_for_hooks),
        }
        try:
            uses[call]()
        except Exception as error:
            raised.append(error)

    async with linked(Inside("terminate", act)):
        pass
    [error] = raised
    assert isinstance(error, ConnectionClosed)


async def test_two_connections_may_use_each_other(autojump_clock: MockClock) -> None:
    """A hook may send, receive and call on another connection."""
    async with linked() as (other, other_far):

        async def act(conn: Conn) -> None:
            await other.send("forwarded")
            assert await other.receive() == "answer"

        await other_far.write(["answer"])
        async with linked(Inside("handle_receive", act)) as (conn, far):
            await far.write(["x"])
            assert await delivered(conn) == ["x"]
        assert await read_frames(other_far) == ["forwarded"]
