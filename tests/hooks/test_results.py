"""The effects of the values that hooks return."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from trio.testing import MockClock

from tests.cases import case_of
from tests.hooks.helpers import (
    RECEIVING,
    Raw,
    Scripted,
    both_styles,
    delivered,
    linked,
    read_frames,
    styled,
    trigger,
    wait_for_hooks,
)
from trioglock import (
    BadHookResult,
    Close,
    Connection,
    Deliver,
    InvalidFrame,
    Ping,
    Pong,
    Reply,
    Socket,
    Stop,
    connect,
)
from trioglock.testing import MockServer


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
async def test_results_of_every_hook(hook: str, style: str, autojump_clock: MockClock) -> None:
    """Each result has the same effect for every hook."""
    for case, outcome in OUTCOMES.items():
        socket = styled(Scripted, style, **{hook: outcome.result})
        with case_of(case):
            async with linked(socket) as (conn, far):
                await trigger(hook, conn, far)
                await wait_for_hooks()
                pong_for_us = [Pong(b"x")] if hook == "handle_ping" else []
                assert await read_frames(far) == pong_for_us + outcome.frames
                assert await delivered(conn) == outcome.messages
                assert conn.state == (1 if hook == "handle_connect" else 2)


@both_styles
@pytest.mark.parametrize("hook", [*RECEIVING, "handle_disconnect", "init_stream"])
async def test_fault_33_a_result_in_place_of_the_state(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """The error names the hook and shows the order."""
    result = Stop() if hook == "handle_disconnect" else Reply("x")
    returned = result if hook == "init_stream" else (0, result)
    socket = styled(Scripted, style, **{hook: Raw(lambda: returned)})
    with pytest.raises(BadHookResult, match=rf"\.{hook} must return .*, in this order: .* state$"):
        async with linked(socket) as (conn, far):
            await trigger(hook, conn, far)
            await conn.wait_closed()


async def test_fault_33_the_cause_is_found_in_a_run_of_messages(autojump_clock: MockClock) -> None:
    """The next call fails because of the wrong state; the error names the first mistake."""

    class Swaps(Socket[int]):
        def init_stream(self, info: Any) -> int:
            return 0

        def handle_receive(self, frame: Any, state: int) -> Any:
            return (state, Reply("x")) if frame == "swap" else (None, state + 1)

        def terminate(self, reason: Any, state: int) -> None:
            assert state == 0

    with pytest.raises(BadHookResult, match=r"Reply\('x'\) is not a state") as caught:
        async with (
            MockServer(memory=True) as server,
            connect(server.url, Swaps(), stream=server.open_stream) as conn,
        ):
            peer = await server.accept()
            await peer.stream.send_all(b"\x81\x01a\x81\x04swap\x81\x01b")
            await conn.wait_closed()
    assert isinstance(caught.value.__cause__, TypeError)


@both_styles
@pytest.mark.parametrize("hook", RECEIVING)
async def test_delivered_values_wake_a_receiver(
    hook: str, style: str, autojump_clock: MockClock
) -> None:
    """A task that waits in receive() gets the value from any hook."""
    async with linked(styled(Scripted, style, **{hook: "news"})) as (conn, far):
        if hook != "handle_connect":
            conn.start_soon(trigger, hook, conn, far)
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
async def test_results_of_handle_send(case: str, style: str, autojump_clock: MockClock) -> None:
    """One frame, several, none or a Close frame."""
    frame, frames = SENT[case]
    async with linked(styled(Scripted, style, handle_send=frame)) as (conn, far):
        await conn.send({"any": "message"})
        assert await read_frames(far) == frames
        assert conn.state == 2


async def test_send_nowait_goes_through_handle_send(autojump_clock: MockClock) -> None:
    """It runs the hook like send."""
    socket = Scripted(handle_send=("a", "b"))
    async with linked(socket) as (conn, far):
        conn.send_nowait("x")
        assert socket.calls[-1] == ("handle_send", "x", 1)
        assert await read_frames(far) == ["a", "b"]


async def test_send_frame_skips_handle_send(autojump_clock: MockClock) -> None:
    """The frame is sent unchanged."""
    socket = Scripted(handle_send="never")
    async with linked(socket) as (conn, far):
        for frame in ("a", b"b", bytearray(b"c"), Ping(b"d"), Pong(b"e")):
            await conn.send_frame(frame)
            assert await read_frames(far) == [
                bytes(frame) if isinstance(frame, bytearray) else frame
            ]
        assert socket.count("handle_send") == 0


async def test_mutable_buffers_are_copied(autojump_clock: MockClock) -> None:
    """Changes after the call have no effect."""
    async with linked() as (conn, far):
        buffer = bytearray(b"before")
        await conn.send(buffer)
        buffer[:] = b"after!"
        assert await read_frames(far) == [b"before"]


async def test_the_default_socket(autojump_clock: MockClock) -> None:
    """Messages are frames in both directions, and there is no state."""
    async with linked() as (conn, far):
        for message in ("text", b"bytes", bytearray(b"array"), memoryview(b"view")):
            await conn.send(message)
        assert await read_frames(far) == ["text", b"bytes", b"array", b"view"]
        await far.write(["text", "", b"bytes", b"", Ping(b"p"), Pong(b"q")])
        assert await delivered(conn) == ["text", "", b"bytes", b""]
        assert conn.state is None


@pytest.mark.parametrize("message", [{"a": 1}, 1, object(), "\ud800"])
async def test_the_default_socket_refuses_other_types(
    message: Any, autojump_clock: MockClock
) -> None:
    """The message says what to do, and the connection stays open."""
    async with linked() as (conn, far):
        with pytest.raises(InvalidFrame, match="override handle_send"):
            await conn.send(message)
        with pytest.raises(InvalidFrame, match="override handle_send"):
            conn.send_nowait(message)
        await conn.send("fine")
        assert await read_frames(far) == ["fine"]


@both_styles
async def test_arguments_of_hooks(style: str, autojump_clock: MockClock) -> None:
    """Every hook is called once for its event, with its argument and the state."""
    socket = styled(Scripted, style)
    async with linked(socket) as (conn, far):
        for hook in ("handle_send", *RECEIVING[1:]):
            reply = await trigger(hook, conn, far)
            await wait_for_hooks()
            content = b"x" if hook in ("handle_ping", "handle_pong") else "x"
            assert socket.calls[-1] == (hook, content, len(socket.calls) - 2)
            assert reply == ("re: x" if hook == "handle_call" else None)
        assert conn.state == len(socket.calls) - 1
        await far.write([b"binary"])
        await wait_for_hooks()
        assert socket.calls[-1][:2] == ("handle_receive", b"binary")


async def test_a_subclass_inherits_hooks(autojump_clock: MockClock) -> None:
    """A hook may be inherited, or be a callable attribute."""

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
        assert await read_frames(far) == ["A"]
        assert await delivered(conn) == ["b!"]
