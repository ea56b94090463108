"""EventSocket: decoding, routing, replies and malformed messages."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests.routing.streams import pair
from trioglock import (
    BadHookResult,
    Close,
    DecodeError,
    Deliver,
    EncodeError,
    InvalidOption,
    Reply,
    connect,
    serve,
)
from trioglock.codecs import JSON, Msgpack
from trioglock.routing import Emit, EventSocket, InvalidMessages, Router

router = Router()


@router.on("count/up")
def count_up(event: Any, state: int) -> tuple[Emit, int]:
    return Emit({"event": "count/is", "payload": state + 1}), state + 1


@router.on("count/show")
def show(event: Any, state: int) -> tuple[Any, int]:
    return state, state


@router.on("count/strict")
def strict(event: Any, state: int) -> tuple[None, int]:
    if not isinstance(event.get("payload"), int):
        raise DecodeError("payload is a whole number")
    return None, event["payload"]


@router.on("close")
def close(event: Any, state: int) -> tuple[Close, int]:
    return Close(4000, "as you wish"), state


class Counter(EventSocket[int]):
    def __init__(self, **options: Any) -> None:
        super().__init__(router, codec=JSON(library="json"), **options)

    def init_stream(self, info: Any) -> int:
        return 0


def test_hooks_can_be_called_directly() -> None:
    """The hooks are functions of a frame and a state."""
    socket = Counter()
    up = Reply('{"event":"count/is","payload":6}')
    assert socket.handle_receive('{"event":"count/up"}', 5) == (up, 6)
    assert socket.handle_receive('{"event":"count/show"}', 5) == (5, 5)
    assert socket.handle_receive('{"event":"unheard/of"}', 5) == (None, 5)
    assert socket.handle_receive('{"event":"close"}', 5) == (Close(4000, "as you wish"), 5)
    assert socket.handle_send({"a": 1}, 5) == ('{"a":1}', 5)
    assert socket.handle_send(Close(1000), 5) == (Close(1000), 5)


MALFORMED: list[str | bytes] = [
    "no json", "", "[]", "3", "null", '"text"', "{}", '{"event":3}', '{"event":["a"]}',
    '{"event":null}', '{"EVENT":"a"}', b"\xff", "[" * 9999,
    '{"event":"count/strict","payload":"x"}',
]  # fmt: skip


@pytest.mark.parametrize("frame", MALFORMED)
def test_malformed_messages_are_counted(frame: str | bytes) -> None:
    """Invalid JSON, no event, an invalid name, or a payload that the handler rejects."""
    socket = Counter()
    assert socket.handle_receive(frame, 5) == (None, 5)
    assert socket.invalid.count == 1


def test_handle_invalid_may_be_overridden() -> None:
    """It gets the error and the frame, and may return any result."""

    class Polite(Counter):
        def handle_invalid(self, error: DecodeError, frame: Any, state: int) -> tuple[Any, int]:
            return Reply(f"what? {frame}: {error}"), state + 1

    reply, state = Polite().handle_receive("{}", 1)  # type: ignore[misc]
    assert state == 2
    assert reply == Reply("what? {}: not an event: KeyError('event')")


def test_the_log_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    """At most one line per second, with the number of messages that were not logged."""
    now = 100.0
    invalid = InvalidMessages(lambda: now)
    with caplog.at_level(logging.WARNING, "trioglock.connection"):
        for _ in range(1000):
            invalid.note(DecodeError("bad\nline"), "x" * 10_000)
        now += 1
        invalid.note(DecodeError("bad"), "{}")
    first, second = (record.getMessage() for record in caplog.records)
    assert invalid.count == 1001
    assert len(first) < 300
    assert "\n" not in first
    assert "10000 characters" in first
    assert "999 more" in second


async def test_events_over_a_connection(autojump_clock: MockClock) -> None:
    """Handlers run in order; replies are encoded, results delivered, malformed frames skipped."""
    async with pair(Counter()) as (conn, peer, _):
        await peer.send('{"event":"count/up"}', *MALFORMED, '{"event":"count/up"}')
        await peer.expect('{"event":"count/is","payload":1}', '{"event":"count/is","payload":2}')
        await peer.send('{"event":"count/show"}')
        assert await conn.receive() == 2
        assert conn.state == 2
        await conn.send({"event": "hello"})
        await peer.expect('{"event":"hello"}')
        with pytest.raises(EncodeError):
            await conn.send({"event": object()})
        await conn.send(Close(4001, "bye"))
        await peer.expect_close(4001, "bye")


async def test_async_handlers_run_in_order(autojump_clock: MockClock) -> None:
    """An async handler delays the events after it."""
    slow = Router()
    seen: list[int] = []

    @slow.on("wait")
    async def wait(event: Any, state: int) -> tuple[Deliver, int]:
        await trio.sleep(event["payload"])
        seen.append(event["payload"])
        return Deliver(event["payload"]), state

    @slow.on("now")
    def now(event: Any, state: int) -> tuple[Emit, int]:
        return Emit("now", deliver=None), state

    socket = EventSocket[Any](slow)
    async with pair(socket) as (conn, peer, _):
        await peer.send('{"event":"wait","payload":3}', "junk", '{"event":"wait","payload":1}')
        await peer.send('{"event":"now"}')
        assert [await conn.receive() for _ in range(3)] == [3, 1, None]
        assert seen == [3, 1]
        assert socket.invalid.count == 1
        await peer.expect('"now"')


async def test_an_async_handle_invalid_is_awaited(autojump_clock: MockClock) -> None:
    """Also where all handlers are plain."""

    class Slow(EventSocket[None]):
        async def handle_invalid(self, error: DecodeError, frame: Any, state: None) -> Any:
            await trio.sleep(1)
            return Emit("sorry"), state

        async def handle_event(self, name: str, event: Any, state: None) -> Any:
            raise DecodeError(name)

    async with pair(Slow()) as (_, peer, __):
        await peer.send("junk", '{"event":"a"}')
        await peer.expect('"sorry"', '"sorry"')


@pytest.mark.parametrize("returned", [None, 3, (1,), (1, 2, 3), [1, 2]])
async def test_a_wrong_result_names_the_handler(returned: Any, autojump_clock: MockClock) -> None:
    """BadHookResult names the event."""
    bad = Router()
    bad.on("a/b")(lambda event, state: returned)
    with pytest.raises(BadHookResult, match=r"handler of 'a/b' must return a tuple"):
        async with pair(EventSocket[Any](bad)) as (conn, peer, _):
            await peer.send('{"event":"a/b"}')
            await conn.wait_closed()


@pytest.mark.parametrize("result", [Emit({"event": "x"}), Reply("x"), Close()])
async def test_fault_33_a_result_in_place_of_the_state(
    result: Any, autojump_clock: MockClock
) -> None:
    """The error names the event, and shows the order."""
    bad = Router()
    bad.on("a/b")(lambda event, state: (state, result))
    with pytest.raises(BadHookResult, match=r"handler of 'a/b' must .*, in this order: .* is not"):
        async with pair(EventSocket[Any](bad)) as (conn, peer, _):
            await peer.send('{"event":"a/b"}')
            await conn.wait_closed()


class NoSuper(EventSocket[None]):
    def __init__(self) -> None:
        """Forget ``super().__init__()``."""


async def test_fault_36_a_server_logs_a_forgotten_super(caplog: pytest.LogCaptureFixture) -> None:
    """It does not reach the hooks; the client receives 1011."""
    async with (
        serve(NoSuper, "127.0.0.1", 0) as server,
        connect(f"ws://127.0.0.1:{server.port}/") as conn,
    ):
        await conn.wait_closed()
        assert conn.close_code == 1011
    assert "NoSuper.__init__() must call super().__init__() first" in caplog.text


def test_a_returned_coroutine_names_the_handler() -> None:
    """BadHookResult says to declare the handler with async def; the coroutine is closed."""

    async def waits(event: Any, state: Any) -> tuple[None, Any]:
        return None, state

    bad = Router()
    bad.on("a")(lambda event, state: waits(event, state))
    with pytest.raises(BadHookResult, match=r"'a' returned a coroutine: declare it with async"):
        EventSocket[None](bad).handle_receive('{"event":"a"}', None)


async def test_exceptions_of_handlers_end_the_connection(autojump_clock: MockClock) -> None:
    """The exception comes out of the block as it was raised."""
    broken = Router()

    @broken.on("a")
    def fail(event: Any, state: Any) -> Any:
        return event["no such key"], state

    with pytest.raises(KeyError, match="no such key"):
        async with pair(EventSocket[Any](broken)) as (conn, peer, _):
            await peer.send('{"event":"a"}')
            await conn.wait_closed()


class Join(msgspec.Struct, tag="room/join", tag_field="event"):
    room: str


class Leave(msgspec.Struct, tag="room/leave", tag_field="event"):
    room: str


async def test_typed_events_in_messagepack(autojump_clock: MockClock) -> None:
    """Handlers get Structs; messages that match no type are malformed."""
    rooms = Router("room")

    @rooms.on("join")
    def join(event: Join, state: tuple[str, ...] | None) -> tuple[Any, Any]:
        return None, (*(state or ()), event.room)

    socket = EventSocket[Any](
        rooms,
        codec=Msgpack(Join | Leave),
        key=lambda event: event.__struct_config__.tag,
    )
    async with pair(socket) as (conn, peer, _):
        encode = msgspec.msgpack.encode
        await peer.send(
            encode(Join("a")), encode(Leave("a")), encode({"event": "room/fly"}), "text",
            encode({"event": "room/join", "room": 3}), encode(Join("b")),
        )  # fmt: skip
        await conn.send(Leave("b"))
        await peer.expect(encode(Leave("b")))
        await conn.ping()
        assert conn.state == ("a", "b")
        assert socket.invalid.count == 3


def test_options_are_checked() -> None:
    """Invalid arguments raise InvalidOption in the constructor."""
    with pytest.raises(InvalidOption, match="router"):
        EventSocket("router")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="key"):
        EventSocket(key="event")  # type: ignore[arg-type]
    assert repr(Emit(1, deliver=2)) == "Emit(1, deliver=2)"
    assert Emit(1) == Emit(1) != Emit(2)
    assert Emit(1) != 1


@pytest.mark.parametrize("codec", [JSON, 3, object()])
def test_an_invalid_codec_raises(codec: Any) -> None:
    """InvalidOption, also for the class in place of an instance."""
    with pytest.raises(InvalidOption, match="codec must be an object with encode and decode"):
        EventSocket(codec=codec)
