"""``send(async_iterable)``: one message in fragments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.connection.test_cancel_at_every_step import CancelAtStep
from tests.hooks.helpers import URL, linked, read_frames
from trioglock import (
    Backoff,
    BadHookResult,
    Close,
    Connection,
    ConnectionClosed,
    ConnectionLost,
    InvalidFrame,
    MemoryTransport,
    MessageHeartbeat,
    MessageInterrupted,
    Ping,
    PreparedMessage,
    Reply,
    Socket,
    UsageError,
    broadcast,
    connect,
)
from trioglock.frames import Fragment
from trioglock.transports import LinkBroken

NO_DELAY = Backoff(initial=0.001, jitter="none")


async def items(*given: Any) -> AsyncIterator[Any]:
    for one in given:
        yield one


class Script:
    """An async iterable that a test feeds item by item; an exception is raised."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Any](1000)
        self.closed = False

    def put(self, *given: Any) -> None:
        for one in given:
            self._send.send_nowait(one)

    def end(self) -> None:
        self._send.close()

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            async for item in self._receive:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


def fragments(*parts: Any) -> list[Fragment]:
    """The frames of a message: one for each item, and an empty one at the end."""
    end = parts[-1][:0]
    made = [Fragment(part, first=not at, final=False) for at, part in enumerate(parts)]
    return [*made, Fragment(end, first=False, final=True)]


def whole(message: Any) -> Fragment:
    return Fragment(message, first=True, final=True)


class Raised:
    """The exception of a call in another task."""

    error: BaseException | None = None
    done = False


async def sending(conn: Connection[Any], iterable: Any, outcome: Raised) -> None:
    try:
        await conn.send(iterable)
    except Exception as error:
        outcome.error = error
    outcome.done = True


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "é", ""], fragments("a", "é", "")),
        ([b"a", bytearray(b"b"), memoryview(b"c")], fragments(b"a", b"b", b"c")),
        ([], [Fragment(b"", first=True, final=True)]),
    ],
    ids=["text", "binary", "empty"],
)
async def test_each_item_is_a_frame(
    given: list[Any], expected: list[Fragment], autojump_clock: MockClock
) -> None:
    async with linked() as (conn, far):
        far.fragments = True
        await conn.send(items(*given))
        assert await read_frames(far) == expected
        assert conn.statistics().messages_sent == 1
        assert conn.statistics().send_queue_bytes == 0


async def test_a_subclass_of_str_is_text(autojump_clock: MockClock) -> None:
    class Name(str):
        __slots__ = ()

    async with linked() as (conn, far):
        await conn.send(items(Name("a"), "b"))
        assert await read_frames(far) == ["ab"]


async def test_other_messages_wait_and_control_frames_do_not(autojump_clock: MockClock) -> None:
    class Echo(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            return Reply(f"re: {frame}"), state

    outcome, script = Raised(), Script()
    async with linked(Echo()) as (conn, far), trio.open_nursery() as nursery:
        far.fragments = True
        await conn.send("before")
        nursery.start_soon(sending, conn, script(), outcome)
        script.put("a")
        await wait_all_tasks_blocked()
        await conn.send("behind")
        conn.send_nowait("nowait")
        broadcast([conn], "to all")
        await far.write(["hello"])
        await conn.send_frame(Ping(b"now"))
        assert await read_frames(far) == [whole("before"), fragments("a")[0], Ping(b"now")]
        script.put("b")
        await wait_all_tasks_blocked()
        assert await read_frames(far) == [fragments("a", "b")[1]]
        assert not outcome.done
        script.end()
        await wait_all_tasks_blocked()
        assert outcome.done
        assert await read_frames(far) == [
            fragments("a")[-1], *map(whole, ["behind", "nowait", "to all", "re: hello"])
        ]  # fmt: skip
        await conn.send("later")
        assert await read_frames(far) == [whole("later")]


async def test_the_messages_of_two_tasks_follow_each_other(autojump_clock: MockClock) -> None:
    first, second = Script(), Script()
    outcomes = Raised(), Raised()
    async with linked() as (conn, far), trio.open_nursery() as nursery:
        for script, outcome in zip((first, second), outcomes, strict=True):
            nursery.start_soon(sending, conn, script(), outcome)
            script.put("1")
            await wait_all_tasks_blocked()
        second.end()
        await conn.send("between")
        first.put("2")
        first.end()
        assert await read_frames(far) == ["12", "between", "1"]


async def test_flush_waits_for_the_data_but_not_for_the_message(
    autojump_clock: MockClock,
) -> None:
    async def flushing(conn: Connection[None]) -> AsyncIterator[str]:
        yield "a"
        await conn.flush()
        yield "b"

    async with linked() as (conn, far):
        await conn.send("before")
        await conn.send(flushing(conn))
        await conn.flush()
        assert await read_frames(far) == ["before", "ab"]


async def test_backpressure(autojump_clock: MockClock) -> None:
    produced = 0

    async def many() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(1000):
            produced += 1
            yield bytes(100)

    transport = MemoryTransport(capacity=3)
    async with (
        connect(URL, transport=transport, write_limit=1000, ping_interval=None) as conn,
        trio.open_nursery() as nursery,
    ):
        far = await transport.accept()
        nursery.start_soon(conn.send, many())
        await wait_all_tasks_blocked()
        assert 10 <= produced < 30
        assert conn.statistics().send_queue_bytes <= 2500
        assert await read_frames(far) == [bytes(100_000)]


async def test_data_that_fills_the_queue_does_not_block_the_message(
    autojump_clock: MockClock,
) -> None:
    script = Script()
    async with linked(write_limit=10) as (conn, far), trio.open_nursery() as nursery:
        nursery.start_soon(conn.send, script())
        script.put("a")
        await wait_all_tasks_blocked()
        await conn.send("x" * 20)
        nursery.start_soon(conn.send, "waits")
        await wait_all_tasks_blocked()
        script.put("b", "c")
        script.end()
        assert await read_frames(far) == ["abc", "x" * 20, "waits"]


async def test_a_hook_may_return_an_iterable(autojump_clock: MockClock) -> None:
    class Plain(Socket[int]):
        def init_stream(self, info: Any) -> int:
            return 0

        def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
            return items(*message), state + 1

    class Async(Plain):
        async def handle_send(  # type: ignore[override]
            self, message: Any, state: int
        ) -> tuple[Any, int]:
            await trio.sleep(0)
            return items(*message), state + 1

    for socket in Plain(), Async():
        async with linked(socket) as (conn, far):
            await conn.send("abc")
            assert await read_frames(far) == ["abc"]
            assert conn.state == 1
            with pytest.raises(UsageError):
                conn.send_nowait("abc")


@pytest.mark.parametrize("wrong", [1, None, PreparedMessage("x"), Close(), "\ud800"])
async def test_a_wrong_first_item_sends_nothing(wrong: Any, autojump_clock: MockClock) -> None:
    async with linked() as (conn, far):
        with pytest.raises(InvalidFrame):
            await conn.send(items(wrong))
        await conn.send("next")
        assert await read_frames(far) == ["next"]


@pytest.mark.parametrize("wrong", [1, b"", "\ud800", ValueError("mine")])
async def test_a_wrong_later_item_closes_with_1011(wrong: Any, autojump_clock: MockClock) -> None:
    script = Script()
    script.put("a", wrong)
    error = ValueError if isinstance(wrong, ValueError) else InvalidFrame
    async with linked() as (conn, far):
        far.fragments = True
        with pytest.raises(error):
            await conn.send(script())
        assert script.closed
        frames = await read_frames(far)
        assert frames == [fragments("a")[0], Close(1011, "a message could not be completed")]
        await far.aclose()
        await conn.wait_closed()
        cause = conn.status_report().latest_end
        assert isinstance(cause, ConnectionLost)
        assert isinstance(cause.error, MessageInterrupted)


async def test_an_exception_before_the_first_item(autojump_clock: MockClock) -> None:
    script = Script()
    script.put(ValueError("mine"))
    async with linked() as (conn, far):
        with pytest.raises(ValueError, match="mine"):
            await conn.send(script())
        await conn.send("next")
        assert await read_frames(far) == ["next"]


async def test_cancellation_before_the_first_item_sends_nothing(
    autojump_clock: MockClock,
) -> None:
    script = Script()
    async with linked() as (conn, far):
        with trio.move_on_after(1):
            await conn.send(script())
        assert script.closed
        await conn.send("next")
        assert await read_frames(far) == ["next"]


async def test_cancellation_in_the_middle(autojump_clock: MockClock) -> None:
    script = Script()
    script.put("a")
    async with linked() as (conn, far):
        with trio.move_on_after(1):
            await conn.send(script())
        assert script.closed
        with pytest.raises(ConnectionClosed):
            await conn.send("more")
        assert (await read_frames(far))[-1] == Close(1011, "a message could not be completed")


async def test_cancellation_while_waiting_for_the_turn(autojump_clock: MockClock) -> None:
    script, other = Script(), Script()
    async with linked() as (conn, far), trio.open_nursery() as nursery:
        nursery.start_soon(conn.send, script())
        script.put("a")
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await conn.send(items("never"))
        await conn.send("behind")
        script.end()
        other.put("x")
        other.end()
        await conn.send(other())
        assert await read_frames(far) == ["a", "behind", "x"]


async def test_close_interrupts_a_message(autojump_clock: MockClock) -> None:
    outcome, script = Raised(), Script()
    async with trio.open_nursery() as nursery, linked() as (conn, far):
        nursery.start_soon(sending, conn, script(), outcome)
        script.put("a")
        await wait_all_tasks_blocked()
        await conn.send("behind")
        nursery.start_soon(conn.aclose)
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, ConnectionClosed)
        assert script.closed
        assert await read_frames(far) == [Close(1000)]
        await far.write([Close(1000)])
        await far.aclose()
        await conn.wait_closed()
        with pytest.raises(ConnectionClosed) as caught:
            await conn.send("x")
        assert caught.value.unsent == ("behind",)


async def test_close_before_a_message_begins(autojump_clock: MockClock) -> None:
    """The data before and behind it is sent, as in any close."""
    outcome = Raised()
    transport = MemoryTransport(capacity=1)
    async with (
        trio.open_nursery() as nursery,
        connect(URL, transport=transport, ping_interval=None) as conn,
    ):
        far = await transport.accept()
        for number in range(5):
            await conn.send(str(number))
            await wait_all_tasks_blocked()
        nursery.start_soon(sending, conn, items("a"), outcome)
        await wait_all_tasks_blocked()
        await conn.send("behind")
        nursery.start_soon(conn.aclose)
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, ConnectionClosed)
        received: list[Any] = []
        while not received or received[-1] != Close(1000):
            received += await read_frames(far)
        assert received == ["0", "1", "2", "3", "4", "behind", Close(1000)]
        await far.write([Close(1000)])
        await far.aclose()


async def test_abort_interrupts_a_message(autojump_clock: MockClock) -> None:
    outcome, script = Raised(), Script()
    async with trio.open_nursery() as nursery:
        async with linked() as (conn, _):
            nursery.start_soon(sending, conn, script(), outcome)
            script.put("a")
            await wait_all_tasks_blocked()
            conn.abort()
            await conn.wait_closed()
        await wait_all_tasks_blocked()
        assert isinstance(outcome.error, ConnectionClosed)
        assert script.closed


@pytest.mark.parametrize("how", ["loss", "failure", "cancellation", "reconnect"])
async def test_the_next_link_starts_clean(how: str, autojump_clock: MockClock) -> None:
    outcome, script = Raised(), Script()
    transport = MemoryTransport()
    async with (
        connect(URL, transport=transport, reconnect=NO_DELAY, ping_interval=None) as conn,
        trio.open_nursery() as nursery,
    ):
        far = await transport.accept()
        far.fragments = True
        scope = trio.CancelScope()

        async def send() -> None:
            with scope:
                await sending(conn, script(), outcome)

        nursery.start_soon(send)
        script.put("a")
        await wait_all_tasks_blocked()
        await conn.send("behind")
        assert await read_frames(far) == [fragments("a")[0]]
        if how == "loss":
            await far.aclose()
        elif how == "failure":
            script.put(ValueError("mine"))
        elif how == "cancellation":
            scope.cancel()
        else:
            nursery.start_soon(conn.reconnect)
        await wait_all_tasks_blocked()
        if how != "loss":
            assert isinstance((await read_frames(far))[-1], Close)
            await far.write([Close(1000)])
            await far.aclose()
        far = await transport.accept()
        assert await read_frames(far) == ["behind"]
        assert script.closed
        expected: dict[str, type] = {"failure": ValueError, "cancellation": type(None)}
        assert isinstance(outcome.error, expected.get(how, MessageInterrupted))
        await conn.send(items("whole"))
        assert await read_frames(far) == ["whole"]
        nursery.cancel_scope.cancel()


async def test_a_message_that_has_not_begun_waits_for_the_next_link(
    autojump_clock: MockClock,
) -> None:
    transport = MemoryTransport()
    async with (
        connect(URL, transport=transport, reconnect=NO_DELAY, ping_interval=None) as conn,
        trio.open_nursery() as nursery,
    ):
        far = await transport.accept()
        await far.aclose()
        transport.refuse_next()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(conn.send, items("a", "b"))
        far = await transport.accept()
        assert await read_frames(far) == ["ab"]


async def test_a_heartbeat_message_does_not_split_a_message(autojump_clock: MockClock) -> None:
    beat = MessageHeartbeat(message=lambda: "beat", is_answer=lambda message: message == "ok")
    script = Script()
    async with (
        linked(heartbeat=beat, ping_interval=10) as (conn, far),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(conn.send, script())
        script.put("a")
        await trio.sleep(55)
        script.end()
        assert await read_frames(far) == ["a"]
        await trio.sleep(6)
        assert await read_frames(far) == ["beat"]


async def test_the_iterable_cannot_wait_for_its_own_end(autojump_clock: MockClock) -> None:
    caught: list[UsageError] = []

    async def nested(conn: Connection[None]) -> AsyncIterator[str]:
        yield "a"
        await conn.send("x" * 100)
        for message in "y", items("z"):
            try:
                await conn.send(message)
            except UsageError as error:
                caught.append(error)
        yield "b"

    async with linked(write_limit=50) as (conn, far):
        await conn.send(nested(conn))
        assert len(caught) == 2
        assert await read_frames(far) == ["ab", "x" * 100]


async def test_flush_inside_an_iterable(autojump_clock: MockClock) -> None:
    async with linked() as (conn, far):

        async def flushing() -> AsyncIterator[str]:
            yield "a"
            await conn.flush()  # nothing waits behind the message
            await conn.send("behind")
            with pytest.raises(UsageError, match="flush"):
                await conn.flush()

        await conn.send(flushing())
        await conn.flush()
        assert await read_frames(far) == ["a", "behind"]


async def test_sending_after_a_cancelled_message_that_was_complete(
    autojump_clock: MockClock,
) -> None:
    """Its last frame still waits to be written, but this task is not inside its iterable."""
    transport = MemoryTransport(capacity=1)
    async with connect(URL, transport=transport, write_limit=10) as conn:
        await transport.accept()
        for _ in range(2):
            await conn.send("filler")
        with trio.move_on_after(1):
            await conn.send(items("a"))
        with trio.move_on_after(1):
            await conn.send("long" * 10)
            await conn.send("after")
        with trio.move_on_after(1):
            await conn.send(items("b"))
        with trio.move_on_after(1):
            await conn.flush()
        conn.abort()


async def test_empty_items_are_bounded(autojump_clock: MockClock) -> None:
    transport = MemoryTransport(capacity=1)
    yielded = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal yielded
        while True:
            yielded += 1
            yield b""

    outcome = Raised()
    async with connect(URL, transport=transport) as conn, trio.open_nursery() as nursery:
        await transport.accept()
        nursery.start_soon(sending, conn, endless(), outcome)
        await wait_all_tasks_blocked()
        assert yielded < 5000
        conn.abort()
    assert isinstance(outcome.error, ConnectionClosed)


@pytest.mark.parametrize("how", ["close", "abort", "lost"])
async def test_an_iterable_that_never_yields(how: str, autojump_clock: MockClock) -> None:
    script, outcome = Script(), Raised()
    async with linked(close_timeout=1) as (conn, far), trio.open_nursery() as nursery:
        nursery.start_soon(sending, conn, script(), outcome)
        await wait_all_tasks_blocked()
        if how == "close":
            await conn.aclose()
        elif how == "abort":
            conn.abort()
        else:
            await far.aclose()
    assert isinstance(outcome.error, ConnectionClosed)
    assert script.closed


async def test_where_an_iterable_is_not_allowed(autojump_clock: MockClock) -> None:
    class Replies(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            return Reply(items("a")), state

        def handle_send(self, message: Any, state: None) -> tuple[Any, None]:
            return ["a", items("b")], state

    match = "use await send"
    async with linked() as (conn, _):
        with pytest.raises(InvalidFrame, match=match):
            await conn.send_frame(items("a"))  # type: ignore[arg-type]
        with pytest.raises(InvalidFrame, match=match):
            broadcast([conn], items("a"))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=match):
            conn.send_nowait(items("a"))
    with pytest.raises(BadHookResult, match=match):
        async with linked(Replies()) as (conn, far):
            with pytest.raises(BadHookResult, match=match):
                await conn.send("x")
            await far.write(["x"])
            await trio.sleep(1)


async def test_a_channel_is_not_closed(autojump_clock: MockClock) -> None:
    send_channel, receive_channel = trio.open_memory_channel[str](1)
    async with linked() as (conn, far), send_channel, receive_channel:
        await send_channel.send("a")
        with trio.move_on_after(1):
            await conn.send(receive_channel)
        await send_channel.send("b")
        assert await receive_channel.receive() == "b"
        await read_frames(far)


async def test_a_class_with_aiter(autojump_clock: MockClock) -> None:
    class Lines:
        def __init__(self, lines: Iterable[str]) -> None:
            self._lines = iter(lines)

        def __aiter__(self) -> Lines:
            return self

        async def __anext__(self) -> str:
            for line in self._lines:
                return line
            raise StopAsyncIteration

    async with linked() as (conn, far):
        await conn.send(Lines(["a\n", "b\n"]))
        assert await read_frames(far) == ["a\nb\n"]


async def test_cancelling_a_message_at_every_step(autojump_clock: MockClock) -> None:
    """It arrives whole or not at all, and the next message arrives."""
    outcomes: set[tuple[str, ...]] = set()
    finished = False
    step = 0
    while not finished:
        step += 1
        received: list[str] = []
        transport = MemoryTransport(capacity=1)

        async def peer(transport: MemoryTransport, received: list[Any]) -> None:
            while True:
                far = await transport.accept()
                with suppress(LinkBroken):
                    while events := await far.receive():
                        for event in events:
                            if isinstance(event, list):
                                received.extend(event)
                            elif isinstance(event, Close):
                                await far.write([Close(1000)])
                                await far.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer, transport, received)
            async with connect(
                URL, transport=transport, reconnect=NO_DELAY, ping_interval=None, write_limit=2
            ) as conn:
                scope = trio.CancelScope()
                instrument = CancelAtStep(scope, step)
                trio.lowlevel.add_instrument(instrument)
                with scope:
                    await conn.send(items("a", "b", "c"))
                    finished = True
                trio.lowlevel.remove_instrument(instrument)
                with trio.fail_after(60):
                    await conn.send("after")
                    await conn.flush()
            nursery.cancel_scope.cancel()
        outcomes.add(tuple(received))
    assert outcomes == {("after",), ("abc", "after")}


async def test_wrong_kinds_of_iterables() -> None:
    """The error names the way to send an async iterable."""

    def generator() -> Iterable[bytes]:
        yield b"a"

    async with connect(URL, transport=MemoryTransport()) as conn:
        for wrong in (generator(), generator):
            with pytest.raises(InvalidFrame, match="pass an async iterable, such as an async gen"):
                await conn.send(wrong)
        with pytest.raises(InvalidFrame, match="call the function: send"):
            await conn.send(items)
        conn.abort()
