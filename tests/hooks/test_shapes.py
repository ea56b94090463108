"""Hooks that return wrong values: BadHookResult."""

from __future__ import annotations

import re
from functools import partial
from itertools import product
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.cases import case_of
from tests.hooks.helpers import (
    URL,
    Raw,
    Scripted,
    both_styles,
    linked,
    read_frames,
    styled,
    trigger,
)
from trioglock import BadHookResult, Close, Deliver, MemoryTransport, Reply, Socket, connect

FATAL = ("handle_connect", "handle_receive", "handle_ping", "handle_pong", "handle_cast")

WRONG: dict[str, Any] = {
    "nothing": None,
    "bare state": 7,
    "bare text": "ab",
    "list": [None, 1],
    "one": (1,),
    "four": (1, 2, 3, 4),
    "reply": Reply("a"),
}


async def come_out(socket: Socket[Any], hook: str) -> tuple[str, list[Any]]:
    """The text of the BadHookResult that comes out of the block, and what the peer got."""
    transport = MemoryTransport()
    far = None
    with pytest.raises(BadHookResult) as caught, trio.fail_after(3600):
        async with connect(URL, socket, transport=transport, ping_interval=None) as conn:
            far = await transport.accept()
            await trigger(hook, conn, far)
            await trio.sleep_forever()
    return str(caught.value), await read_frames(far or await transport.accept())


@both_styles
@pytest.mark.parametrize("hook", [*FATAL, "handle_disconnect"])
async def test_a_wrong_result_ends_the_connection(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """The block raises BadHookResult, we close with 1011, and terminate runs."""
    for case, result in WRONG.items():
        socket = styled(Scripted, style, **{hook: Raw(partial(WRONG.get, case))})
        with case_of(case):
            text, frames = await come_out(socket, hook)
            assert f"Scripted.{hook}" in text
            assert repr(result) in text
            assert socket.count("terminate") == 1
            assert frames[-1].code == (1000 if hook == "handle_disconnect" else 1011)


@both_styles
async def test_a_reply_with_an_invalid_frame(style: str, autojump_clock: MockClock) -> None:
    """The message names the hook, and no frame is sent."""
    replies = (Reply(object()), Reply("a", 1), Reply({"b": 2}))
    for hook, reply in product(FATAL, replies):
        with case_of(hook, reply):
            socket = styled(Scripted, style, **{hook: reply})
            text, frames = await come_out(socket, hook)
            assert f"Scripted.{hook}" in text
            assert repr(reply.frames[-1]) in text
            assert "a" not in frames


@both_styles
@pytest.mark.parametrize("decision", [True, "again", Close(1000), Reply("a")])
async def test_decisions_of_handle_disconnect_are_checked(
    decision: Any, style: str, autojump_clock: MockClock
) -> None:
    """Only None, Reconnect and Stop are valid."""
    socket = styled(Scripted, style, handle_disconnect=decision)
    text, _ = await come_out(socket, "handle_disconnect")
    assert "Scripted.handle_disconnect" in text
    assert repr(decision) in text


@both_styles
@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_result_of_handle_send(
    case: str, style: str, autojump_clock: MockClock
) -> None:
    """It raises at the call; the state is unchanged and the connection stays open."""
    socket = styled(Scripted, style, handle_send=Raw(lambda: WRONG[case]))
    async with linked(socket) as (conn, far):
        with pytest.raises(BadHookResult, match=r"Scripted\.handle_send .*" + quoted(WRONG[case])):
            await conn.send("x")
        await alive(conn, far, socket, "handle_send")


@both_styles
@pytest.mark.parametrize("frame", [1, {"a": 1}, Reply("a"), Deliver("a"), ("a", 1), "\ud800"])
async def test_an_invalid_frame_from_handle_send(
    frame: Any, style: str, autojump_clock: MockClock
) -> None:
    """No frame of the result is sent; the state is unchanged."""
    socket = styled(Scripted, style, handle_send=frame)
    async with linked(socket) as (conn, far):
        with pytest.raises(BadHookResult, match=r"Scripted\.handle_send"):
            await conn.send("x")
        await alive(conn, far, socket, "handle_send")


@both_styles
@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_result_of_handle_call(
    case: str, style: str, autojump_clock: MockClock
) -> None:
    """It raises at the call; the state is unchanged and the connection stays open."""
    socket = styled(Scripted, style, handle_call=Raw(lambda: WRONG[case]))
    async with linked(socket) as (conn, far):
        with pytest.raises(BadHookResult, match=r"Scripted\.handle_call .*" + quoted(WRONG[case])):
            await conn.call("x")
        await alive(conn, far, socket, "handle_call")


@both_styles
async def test_an_invalid_frame_in_the_result_of_handle_call(
    style: str, autojump_clock: MockClock
) -> None:
    """It raises at the call even if only the frames of the Reply are invalid."""
    socket = styled(Scripted, style, handle_call=Reply("a", 1))
    async with linked(socket) as (conn, far):
        with pytest.raises(BadHookResult, match=r"Scripted\.handle_call"):
            await conn.call("x")
        await alive(conn, far, socket, "handle_call")


def quoted(value: Any) -> str:
    return re.escape(repr(value))


async def alive(conn: Any, far: Any, socket: Scripted, hook: str) -> None:
    """The state is as before, nothing was sent, and the hook works once it is mended."""
    assert conn.state == 1
    assert await read_frames(far) == []
    del socket.script[hook]
    await trigger(hook, conn, far)
    assert conn.state == 2


async def coroutine() -> tuple[None, int]:
    raise AssertionError("nobody awaits this")


@pytest.mark.parametrize("hook", ["init_stream", *FATAL, "handle_disconnect", "terminate"])
async def test_a_plain_hook_that_returns_a_coroutine(hook: str, autojump_clock: MockClock) -> None:
    """The message says to use async def; no coroutine is left un-awaited."""
    text, _ = await come_out(Scripted(**{hook: Raw(coroutine)}), hook)
    assert f"Scripted.{hook} returned a coroutine" in text
    assert "async def" in text


@pytest.mark.parametrize("hook", ["handle_send", "handle_call"])
async def test_a_plain_hook_of_a_call_that_returns_a_coroutine(
    hook: str, autojump_clock: MockClock
) -> None:
    """It raises at the call."""
    socket = Scripted(**{hook: Raw(coroutine)})
    async with linked(socket) as (conn, far):
        with pytest.raises(BadHookResult, match=f"Scripted.{hook} returned a coroutine"):
            await trigger(hook, conn, far)
        await alive(conn, far, socket, hook)


@pytest.mark.parametrize("hook", ["init_stream", "handle_receive", "handle_send", "terminate"])
@pytest.mark.parametrize("style", ["generator", "async generator"])
def test_a_generator_is_not_a_hook(hook: str, style: str) -> None:
    """connect() raises with its name before it connects."""

    def plain(self: Any, *args: Any) -> Any:
        yield None, 1

    async def asynchronous(self: Any, *args: Any) -> Any:
        yield None, 1

    body = plain if style == "generator" else asynchronous
    lazy = type("Lazy", (Socket,), {hook: body})
    with pytest.raises(BadHookResult, match=rf"Lazy\.{hook} is a generator"):
        connect(URL, lazy())


async def test_long_values_are_shortened_in_the_message(autojump_clock: MockClock) -> None:
    """The message stays readable."""
    text, _ = await come_out(Scripted(handle_receive=Raw(lambda: "x" * 100_000)), "handle_receive")
    assert len(text) < 1000


async def test_a_named_tuple_is_a_pair(autojump_clock: MockClock) -> None:
    """Any tuple of two items is valid."""

    class Pair(tuple[Any, int]):
        __slots__ = ()

    async with linked(Scripted(handle_receive=Raw(lambda: Pair(("told", 42))))) as (conn, far):
        await far.write(["x"])
        assert await conn.receive() == "told"
        assert conn.state == 42
