"""What hooks return is what happens."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from trio.testing import MockClock

from tests.hooks.helpers import (
    RECEIVING,
    Scripted,
    both_styles,
    delivered,
    linked,
    provoke,
    settled,
    styled,
    taken,
)
from trioglock import Close, Connection, Deliver, InvalidFrame, Ping, Pong, Reply, Socket


class Outcome(NamedTuple):
    """A result, the frames that the peer gets for it, the messages that the program gets."""

    result: Any
    frames: list[Any] = []  # noqa: RUF012 - a tuple's default, never changed
    messages: list[Any] = []  # noqa: RUF012 - as above


OUTCOMES = {
    "none": Outcome(None),
    "reply": Outcome(Reply("a"), ["a"]),
    "reply with several frames": Outcome(
        Reply("a", b"b", bytearray(b"c"), memoryview(b"d")), ["a", b"b", b"c", b"d"]
    ),
    "reply with control frame": Outcome(Reply(Ping(b"p")), [Ping(b"p")]),
    "reply and deliver": Outcome(Reply("a", deliver="d"), ["a"], ["d"]),
    "reply and deliver none": Outcome(Reply("a", deliver=None), ["a"], [None]),
    "empty reply": Outcome(Reply()),
    "empty reply that delivers": Outcome(Reply(deliver=1), [], [1]),
    "reply that closes": Outcome(Reply("a", Close(4000, "so")), ["a", Close(4000, "so")]),
    "nothing after its close": Outcome(Reply("a", Close(4000), "b"), ["a", Close(4000)]),
    "close": Outcome(Close(4001, "bye"), [Close(4001, "bye")]),
    "deliver": Outcome(Deliver("x"), [], ["x"]),
    "deliver none": Outcome(Deliver(None), [], [None]),
    "deliver a reply": Outcome(Deliver(Reply("a")), [], [Reply("a")]),
    "deliver a close": Outcome(Deliver(Close(4001)), [], [Close(4001)]),
    "any value": Outcome({"any": "value"}, [], [{"any": "value"}]),
    "a tuple": Outcome(("a", "b"), [], [("a", "b")]),
    "zero": Outcome(0, [], [0]),
    "false": Outcome(False, [], [False]),
    "empty text": Outcome("", [], [""]),
    "a ping": Outcome(Ping(b"p"), [], [Ping(b"p")]),
}


@both_styles
@pytest.mark.parametrize("hook", RECEIVING)
@pytest.mark.parametrize("case", OUTCOMES)
async def test_result_of_every_receiving_hook(
    case: str, hook: str, style: str, autojump_clock: MockClock
) -> None:
    """Each result does the same for every receiving hook, and the state moves on."""
    outcome = OUTCOMES[case]
    socket = styled(Scripted, style, **{hook: outcome.result})
    async with linked(socket) as (conn, far):
        await provoke(hook, conn, far)
        await settled()
        pong_for_us = [Pong(b"x")] if hook == "handle_ping" else []
        assert await taken(far) == pong_for_us + outcome.frames
        assert await delivered(conn) == outcome.messages
        assert conn.state == (1 if hook == "handle_connect" else 2)


@both_styles
@pytest.mark.parametrize("hook", RECEIVING)
async def test_what_is_delivered_wakes_a_waiting_receiver(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """A task that already waits in receive() gets what any hook delivers."""
    async with linked(styled(Scripted, style, **{hook: "news"})) as (conn, far):
        if hook != "handle_connect":
            conn.start_soon(provoke, hook, conn, far)
        assert await conn.receive() == "news"


SENT: dict[str, tuple[Any, list[Any]]] = {
    "text": ("a", ["a"]),
    "empty text": ("", [""]),
    "bytes": (b"a", [b"a"]),
    "bytearray": (bytearray(b"a"), [b"a"]),
    "memoryview": (memoryview(b"abc")[1:], [b"bc"]),
    "tuple": (("a", b"b"), ["a", b"b"]),
    "list": (["a", bytearray(b"b")], ["a", b"b"]),
    "empty tuple": ((), []),
    "none": (None, []),
    "ping": (Ping(b"p"), [Ping(b"p")]),
    "pong": (Pong(b"p"), [Pong(b"p")]),
    "close": (Close(4000, "so"), [Close(4000, "so")]),
    "frames and close": (("a", Close(4000)), ["a", Close(4000)]),
    "nothing after its close": (("a", Close(4000), "b"), ["a", Close(4000)]),
}


@both_styles
@pytest.mark.parametrize("case", SENT)
async def test_what_handle_send_returns_is_sent(
    case: str, style: str, autojump_clock: MockClock
) -> None:
    """One frame, several, none or a Close: the peer gets exactly these, and the state moves on."""
    frame, frames = SENT[case]
    async with linked(styled(Scripted, style, handle_send=frame)) as (conn, far):
        await conn.send({"any": "message"})
        assert await taken(far) == frames
        assert conn.state == 2


async def test_send_nowait_goes_through_handle_send(autojump_clock: MockClock) -> None:
    """send_nowait runs the hook as send does."""
    socket = Scripted(handle_send=("a", "b"))
    async with linked(socket) as (conn, far):
        conn.send_nowait("x")
        assert socket.calls[-1] == ("handle_send", "x", 1)
        assert await taken(far) == ["a", "b"]


async def test_send_frame_goes_past_handle_send(autojump_clock: MockClock) -> None:
    """A frame given to send_frame leaves as it is."""
    socket = Scripted(handle_send="never")
    async with linked(socket) as (conn, far):
        for frame in ("a", b"b", bytearray(b"c"), Ping(b"d"), Pong(b"e")):
            await conn.send_frame(frame)
            assert await taken(far) == [bytes(frame) if isinstance(frame, bytearray) else frame]
        assert socket.ran("handle_send") == 0


async def test_a_buffer_that_changes_later_is_sent_as_it_was(autojump_clock: MockClock) -> None:
    """Mutable buffers are copied when they are queued."""
    async with linked() as (conn, far):
        buffer = bytearray(b"before")
        await conn.send(buffer)
        buffer[:] = b"after!"
        assert await taken(far) == [b"before"]


async def test_default_socket_passes_everything_on(autojump_clock: MockClock) -> None:
    """Without hooks, messages are frames, both ways, and there is no state."""
    async with linked() as (conn, far):
        for message in ("text", b"bytes", bytearray(b"array"), memoryview(b"view")):
            await conn.send(message)
        assert await taken(far) == ["text", b"bytes", b"array", b"view"]
        await far.write(["text", "", b"bytes", b"", Ping(b"p"), Pong(b"q")])
        assert await delivered(conn) == ["text", "", b"bytes", b""]
        assert conn.state is None


@pytest.mark.parametrize("message", [{"a": 1}, 1, object(), "\ud800"])
async def test_default_socket_refuses_what_is_no_frame(
    message: Any, autojump_clock: MockClock
) -> None:
    """The error is raised at the call, says what to do, and the connection lives."""
    async with linked() as (conn, far):
        with pytest.raises(InvalidFrame, match="override handle_send"):
            await conn.send(message)
        with pytest.raises(InvalidFrame, match="override handle_send"):
            conn.send_nowait(message)
        await conn.send("fine")
        assert await taken(far) == ["fine"]


@both_styles
async def test_hooks_get_what_happened_and_the_state(style: str, autojump_clock: MockClock) -> None:
    """Every hook is called for its event, once, with its content and the state before it."""
    socket = styled(Scripted, style)
    async with linked(socket) as (conn, far):
        for hook in ("handle_send", *RECEIVING[1:]):
            reply = await provoke(hook, conn, far)
            await settled()
            content = b"x" if hook in ("handle_ping", "handle_pong") else "x"
            assert socket.calls[-1] == (hook, content, len(socket.calls) - 2)
            assert reply == ("re: x" if hook == "handle_call" else None)
        assert conn.state == len(socket.calls) - 1
        await far.write([b"binary"])
        await settled()
        assert socket.calls[-1][:2] == ("handle_receive", b"binary")


async def test_a_subclass_inherits_hooks(autojump_clock: MockClock) -> None:
    """A hook may be inherited from any class between, or be a callable attribute."""

    class Upper(Socket[None]):
        def handle_send(self, message: str, state: None) -> tuple[str, None]:
            return message.upper(), state

    class Loud(Upper):
        def handle_receive(self, frame: str, state: None) -> tuple[str, None]:
            return f"{frame}!", state

    async with linked(Loud()) as (conn, far):
        conn_of_any_state: Connection[None] = conn
        await conn_of_any_state.send("a")
        await far.write(["b"])
        assert await taken(far) == ["A"]
        assert await delivered(conn) == ["b!"]
