"""Hooks run one at a time and in order, each with the state of the previous one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import (
    HOOKS,
    URL,
    Scripted,
    both_styles,
    linked,
    read_frames,
    styled,
    wait_for_hooks,
)
from trioglock import Close, Connection, Handshake, Ping, Pong, Socket, Transport, connect
from trioglock.options import DialOptions
from trioglock.testing import MemoryLink, memory_link_pair
from trioglock.transports import Link

History = tuple[Any, ...]


class Historian(Socket[History]):
    """The state is all that happened; every hook suspends, and checks that it is alone."""

    def __init__(self) -> None:
        self.inside = 0

    async def _note(self, what: Any, state: History) -> History:
        self.inside += 1
        assert self.inside == 1, "two hooks run at the same time"
        await trio.sleep(0.003)
        await trio.lowlevel.checkpoint()
        assert self.inside == 1, "two hooks run at the same time"
        self.inside -= 1
        return (*state, what)

    async def init_stream(self, info: Any) -> History:
        return await self._note("init", ())

    async def handle_connect(self, info: Any, state: History) -> tuple[None, History]:
        return None, await self._note("connect", state)

    async def handle_send(self, message: Any, state: History) -> tuple[Any, History]:
        return str(message), await self._note(message, state)

    async def handle_receive(self, frame: Any, state: History) -> tuple[None, History]:
        return None, await self._note(frame, state)

    async def handle_ping(self, payload: bytes, state: History) -> tuple[None, History]:
        return None, await self._note(("ping", payload), state)

    async def handle_pong(self, payload: bytes, state: History) -> tuple[None, History]:
        return None, await self._note(("pong", payload), state)

    async def handle_cast(self, message: Any, state: History) -> tuple[None, History]:
        return None, await self._note(message, state)

    async def handle_call(self, request: Any, state: History) -> tuple[Any, History]:
        return len(state), await self._note(request, state)


class Mixed(Historian):
    """As above, with some of the hooks plain."""

    def _now(self, what: Any, state: History) -> History:
        assert self.inside == 0, "two hooks run at the same time"
        return (*state, what)

    def handle_send(self, message: Any, state: History) -> Any:
        return str(message), self._now(message, state)

    def handle_ping(self, payload: bytes, state: History) -> Any:
        return None, self._now(("ping", payload), state)


class Plain(Mixed):
    """As above, with all hooks plain that have much to do."""

    def handle_receive(self, frame: Any, state: History) -> Any:
        return None, self._now(frame, state)

    def handle_cast(self, message: Any, state: History) -> Any:
        return None, self._now(message, state)

    def handle_call(self, request: Any, state: History) -> Any:
        return len(state), self._now(request, state)


@pytest.mark.parametrize("socket_class", [Historian, Mixed, Plain])
async def test_hooks_never_overlap_and_lose_no_state(
    socket_class: Callable[[], Historian], autojump_clock: MockClock
) -> None:
    """Many tasks send, cast and call while the peer sends and pings."""
    tasks, each = 4, 12

    async def send(conn: Connection[History], task: int) -> None:
        for number in range(each):
            await conn.send(("send", task, number))

    async def cast(conn: Connection[History], task: int) -> None:
        for number in range(each):
            conn.cast(("cast", task, number))
            await trio.sleep(0.004)

    async def call(conn: Connection[History], task: int) -> None:
        lengths = [await conn.call(("call", task, number)) for number in range(each)]
        assert lengths == sorted(set(lengths))

    async def peer(far: MemoryLink) -> None:
        for number in range(each):
            await far.write([f"a{number}", Ping(b"%d" % number), f"b{number}", Pong(b"p")])
            await trio.sleep(0.002 * (number % 3))

    expected: list[Any] = []
    for number in range(each):
        expected += [f"a{number}", ("ping", b"%d" % number), f"b{number}", ("pong", b"p")]
    async with linked(socket_class(), max_queue=None) as (conn, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer, far)
            for task in range(tasks):
                for use in (send, cast, call):
                    nursery.start_soon(use, conn, task)
        await trio.sleep(60)
        history = list(conn.state)
        frames = await read_frames(far)
    assert len(history) == 2 + 3 * tasks * each + 4 * each
    for one in itertools.product(("send", "cast", "call"), range(tasks)):
        assert [what for what in history if what[:2] == one] == [(*one, n) for n in range(each)]
    received = [what for what in history if isinstance(what, str) or what[0] in ("ping", "pong")]
    assert received == ["init", "connect", *expected]
    sent = [str(what) for what in history if what[0] == "send"]
    assert [frame for frame in frames if isinstance(frame, str)] == sent


@both_styles
async def test_events_of_one_read_reach_hooks_in_order(
    style: str, autojump_clock: MockClock
) -> None:
    """Data, pings and pongs of one chunk are handled in order."""
    socket = styled(Scripted, style)
    async with linked(socket) as (_, far):
        await far.write(["a", Ping(b"b"), "c", "d", Pong(b"e"), Ping(b"f"), b"g"])
        await wait_for_hooks()
        what = [call.what for call in socket.calls[2:]]
        assert what == ["a", b"b", "c", "d", b"e", b"f", b"g"]
        assert [call.state for call in socket.calls[2:]] == list(range(1, 8))


@both_styles
async def test_each_hook_gets_the_state_of_the_previous_one(
    style: str, autojump_clock: MockClock
) -> None:
    """From the first hook to the last."""
    socket = styled(Scripted, style)
    async with linked(socket) as (conn, far):
        await conn.send("a")
        await far.write(["b", Ping(b"c"), Pong(b"d")])
        await wait_for_hooks()
        conn.cast("e")
        await conn.call("f")
        await far.write([Close()])
        await trio.testing.wait_all_tasks_blocked()
        await far.send_eof()
        await conn.wait_closed()
    assert [call.hook for call in socket.calls] == list(HOOKS)
    assert [call.state for call in socket.calls] == [None, *range(9)]


@both_styles
async def test_casts_of_a_hook_come_after_it(style: str, autojump_clock: MockClock) -> None:
    """They are handled after the hook, and before later events."""

    class Casting(Scripted):
        def handle_receive(self, frame: Any, state: int) -> Any:
            conn.cast(f"cast by {frame}")
            return super().handle_receive(frame, state)

    socket = styled(Casting, style)
    async with linked(socket) as (conn, far):
        await far.write(["a"])
        await wait_for_hooks()
        await conn.call("after")
        assert [call.what for call in socket.calls[2:]] == ["a", "cast by a", "after"]


@both_styles
async def test_casts_and_calls_keep_their_order(style: str, autojump_clock: MockClock) -> None:
    """A call is handled after earlier casts and before later ones."""
    socket = styled(Scripted, style)
    async with linked(socket) as (conn, _):
        conn.cast("a")
        conn.cast("b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.call, "c")
            await trio.testing.wait_all_tasks_blocked()
            conn.cast("d")
        await conn.call("e")
        assert [call.what for call in socket.calls[2:]] == ["a", "b", "c", "d", "e"]


class Eager(Transport):
    """Returns frames together with the handshake."""

    def __init__(self) -> None:
        self.far: MemoryLink | None = None

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        near, self.far = memory_link_pair(Handshake(url=options.url))
        await self.far.write(["early", Ping(b"bird")])
        return near


@both_styles
async def test_early_frames_wait_for_handle_connect(style: str, autojump_clock: MockClock) -> None:
    """No hook runs before init_stream and handle_connect."""
    for _ in range(30):  # which of the tasks runs first is left to chance
        socket = styled(Scripted, style, handle_receive="message")
        async with connect(URL, socket, transport=Eager(), close_timeout=1) as conn:
            assert await conn.receive() == "message"
        assert [call.hook for call in socket.calls][:4] == [
            "init_stream",
            "handle_connect",
            "handle_receive",
            "handle_ping",
        ]
