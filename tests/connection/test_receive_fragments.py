"""``receive_fragments()``: one message after another, as it arrives."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.hooks.helpers import URL, linked, read_frames
from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Deliver,
    InvalidOption,
    MemoryTransport,
    MessageHeartbeat,
    MessageInterrupted,
    NativeTransport,
    Ping,
    Pong,
    ProtocolViolation,
    Socket,
    TrioWebsocketTransport,
    UsageError,
    connect,
    serve,
)
from trioglock.codecs import JSON
from trioglock.frames import Fragment
from trioglock.testing import MemoryLink

NO_DELAY = Backoff(initial=0.001, jitter="none")


def parts(*data: Any, end: bool = True) -> list[Fragment]:
    """The fragments of a message; without ``end``, more will follow."""
    last = len(data) - 1
    return [Fragment(part, first=not at, final=end and at == last) for at, part in enumerate(data)]


async def read_message(conn: Connection[Any]) -> list[Any]:
    async with conn.receive_fragments() as fragments:
        return [fragment async for fragment in fragments]


async def test_one_message_after_another(autojump_clock: MockClock) -> None:
    async with linked(fragments=True) as (conn, far):
        await far.write([*parts("a", "", "b"), "whole", *parts(b"c", b"d", b""), b"", ""])
        assert await read_message(conn) == ["a", "b"]
        assert await read_message(conn) == ["whole"]
        async with conn.receive_fragments() as fragments:
            assert not fragments.is_text
            assert [fragment async for fragment in fragments] == [b"c", b"d"]
        assert await read_message(conn) == []
        async with conn.receive_fragments() as fragments:
            assert fragments.is_text
            assert [fragment async for fragment in fragments] == []
        assert conn.statistics().messages_received == 5


async def test_a_fragment_is_delivered_as_it_arrives(autojump_clock: MockClock) -> None:
    async with linked(fragments=True) as (conn, far):
        await far.write(parts("a", end=False))
        async with conn.receive_fragments() as fragments:
            assert await anext(fragments) == "a"
            await far.write([Ping(b"x")])
            assert await read_frames(far) == [Pong(b"x")]
            await far.write([Fragment("b", first=False, final=True)])
            assert await anext(fragments) == "b"
            with pytest.raises(StopAsyncIteration):
                await anext(fragments)


async def test_leaving_early_discards_the_rest(autojump_clock: MockClock) -> None:
    async with linked(fragments=True) as (conn, far):
        await far.write([*parts("a", "b", "c"), "second", *parts("d", end=False)])
        async with conn.receive_fragments() as fragments:
            assert await anext(fragments) == "a"
        with pytest.raises(UsageError, match="write: async with"):
            await anext(fragments)
        async with conn.receive_fragments():
            pass  # the second message
        with pytest.raises(RuntimeError, match="mine"):
            async with conn.receive_fragments() as fragments:
                assert await anext(fragments) == "d"
                raise RuntimeError("mine")
        for _ in range(10):
            await far.write([Fragment(bytes(100_000), first=False, final=False)])
            await wait_all_tasks_blocked()
        await far.write([Fragment("", first=False, final=True), "next"])
        assert await read_message(conn) == ["next"]


async def test_cancellation_loses_no_fragment(autojump_clock: MockClock) -> None:
    async with linked(fragments=True) as (conn, far):
        with trio.move_on_after(1):
            await read_message(conn)
        with trio.move_on_after(1):
            await conn.receive()
        await far.write(parts("a", end=False))
        with trio.move_on_after(1):
            await conn.receive()  # takes the beginning
        async with conn.receive_fragments() as fragments:
            assert await anext(fragments) == "a"
            with trio.move_on_after(1):
                await anext(fragments)
            await far.write([Fragment("b", first=False, final=True)])
            assert await anext(fragments) == "b"


async def test_whole_messages(autojump_clock: MockClock) -> None:
    async with linked(fragments=True) as (conn, far):
        await far.write([*parts("a", "b"), "c", *parts(b"d", b"e", b""), "", *parts("f", "g")])
        assert await conn.receive() == "ab"
        assert await read_message(conn) == ["c"]
        await wait_all_tasks_blocked()
        assert conn.receive_nowait() == b"de"
        assert await conn.receive_batch() == [""]
        async for message in conn:
            assert message == "fg"
            break
        with pytest.raises(trio.WouldBlock):
            conn.receive_nowait()
        await far.write(parts("x", end=False))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            conn.receive_nowait()
        await far.write([Fragment("y", first=False, final=True), Close(1000)])
        await far.aclose()
        assert [message async for message in conn] == ["xy"]
        with pytest.raises(ConnectionClosedOK):
            await conn.receive()
        with pytest.raises(ConnectionClosedOK):
            await read_message(conn)


async def test_several_tasks_receive(autojump_clock: MockClock) -> None:
    seen: list[Any] = []

    async def blocks(conn: Connection[Any]) -> None:
        seen.append(await read_message(conn))

    async def whole(conn: Connection[Any]) -> None:
        seen.append(await conn.receive())

    async with linked(fragments=True) as (conn, far), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(blocks, conn)
            nursery.start_soon(whole, conn)
        for number in range(10):
            for fragment in parts(f"<{number}", "", f"{number}>"):
                await wait_all_tasks_blocked()
                await far.write([fragment])
    assert sorted("".join(one) for one in seen) == [f"<{n}{n}>" for n in range(10)]


@pytest.mark.parametrize("piece", [1, 1000, 100_000])
async def test_backpressure(piece: int, autojump_clock: MockClock) -> None:
    """Reading stops at 256 KiB, or at many small fragments, and continues."""
    transport = MemoryTransport(capacity=1)
    total = 2_000_000 if piece > 1 else 5_000
    async with connect(URL, transport=transport, fragments=True, ping_interval=None) as conn:
        far = await transport.accept()

        written = 0

        async def write() -> None:
            nonlocal written
            for at in range(0, total, piece):
                await far.write([Fragment(bytes(piece), first=not at, final=False)])
                written += piece
            await far.write([Fragment(b"", first=False, final=True)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await wait_all_tasks_blocked()
            assert written <= min(total - 1, 2**18 + 3 * piece)
            assert sum(map(len, await read_message(conn))) == total


async def test_a_message_that_is_too_large_to_be_joined(autojump_clock: MockClock) -> None:
    async with linked(fragments=True, max_size=10) as (conn, far):
        await far.write([*parts("é" * 4, "x", "y"), *parts("é" * 4, "x" * 3), "next"])
        assert await conn.receive() == "é" * 4 + "xy"
        with pytest.raises(trio.WouldBlock):
            conn.receive_nowait()
        frames = await read_frames(far)
        assert frames == [Close(1009, "a message is larger than max_size (10 bytes)")]
        await far.write(["more", Close(1009)])
        await far.aclose()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert isinstance(caught.value.cause, ProtocolViolation)


async def test_a_message_that_is_too_large_is_no_normal_end(autojump_clock: MockClock) -> None:
    """It is noticed only when it is received, after the connection has closed."""
    async with linked(fragments=True, max_size=10) as (conn, far):
        await far.write(["first", *parts("a" * 10, "b" * 10), Close(1000)])
        await far.aclose()
        await conn.wait_closed()
        assert await conn.receive() == "first"
        for _ in range(2):
            with pytest.raises(ConnectionClosedError) as caught:
                await anext(conn)
            assert isinstance(caught.value.cause, ProtocolViolation)


async def test_a_message_that_is_too_large_while_closing(autojump_clock: MockClock) -> None:
    async with linked(fragments=True, max_size=10) as (conn, far):
        await far.write([*parts("a" * 10, "b" * 10), Close(1000)])
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosedError) as caught:
            await anext(conn)
        assert isinstance(caught.value.cause, ProtocolViolation)


async def test_a_block_continues_a_cancelled_receive_of_many_fragments(
    autojump_clock: MockClock,
) -> None:
    data = [chr(97 + at % 26) for at in range(3000)]
    async with linked(fragments=True) as (conn, far):
        await far.write(parts(*data, end=False))
        with trio.move_on_after(1):
            await conn.receive()
        await far.write([Fragment("!", first=False, final=True)])
        assert "".join(await read_message(conn)) == "".join(data) + "!"


@pytest.mark.slow
async def test_a_whole_message_in_tiny_fragments(autojump_clock: MockClock) -> None:
    """They take hardly more memory than the message, also while it is incomplete."""
    texts = [f"é{number}" for number in range(5000)]
    async with linked(fragments=True) as (conn, far), trio.open_nursery() as nursery:
        messages: list[Any] = []

        async def receive() -> None:
            messages.append(await conn.receive())

        nursery.start_soon(receive)
        gc.collect()
        tracemalloc.start()
        for at in range(0, len(texts), 500):
            some = texts[at : at + 500]
            await far.write(
                [
                    Fragment(text, first=not at + number, final=False)
                    for number, text in enumerate(some)
                ]
            )
            await wait_all_tasks_blocked()
        assert tracemalloc.get_traced_memory()[0] < 250_000
        tracemalloc.stop()
        await far.write([Fragment("!", first=False, final=True)])
        await wait_all_tasks_blocked()
        assert messages == ["".join(texts) + "!"]


async def test_no_limit_for_whole_messages(autojump_clock: MockClock) -> None:
    async with linked(fragments=True, max_size=None) as (conn, far):
        await far.write(parts(*["x" * 1_000_000] * 3))
        assert len(await conn.receive()) == 3_000_000


@pytest.mark.parametrize("how", ["lost", "closed", "by us", "aborted"])
async def test_the_end_in_the_middle(how: str, autojump_clock: MockClock) -> None:
    async with linked(fragments=True) as (conn, far):
        await far.write([*parts("first"), *parts("a", "b", end=False)])
        await wait_all_tasks_blocked()
        if how == "closed":
            await far.write([Close(1001)])
        elif how == "by us":
            with trio.move_on_after(1):
                await conn.aclose()
        if how == "aborted":
            conn.abort()
        else:
            await far.aclose()
        await conn.wait_closed()
        assert await conn.receive() == "first"
        received = []
        with pytest.raises(ConnectionClosed):
            async with conn.receive_fragments() as fragments:
                async for fragment in fragments:
                    received.append(fragment)  # noqa: PERF401 - it raises
        assert received == ["a", "b"]
        with pytest.raises(ConnectionClosed):
            await read_message(conn)


async def test_the_end_while_a_task_waits(autojump_clock: MockClock) -> None:
    async with linked(fragments=True) as (conn, far):
        await far.write(parts("a", end=False))
        async with conn.receive_fragments() as fragments:
            assert await anext(fragments) == "a"
            await far.aclose()
            with pytest.raises(ConnectionClosed):
                await anext(fragments)


async def test_a_reconnect_in_the_middle(autojump_clock: MockClock) -> None:
    transport = MemoryTransport()
    async with connect(
        URL, transport=transport, reconnect=NO_DELAY, ping_interval=None, fragments=True
    ) as conn:
        far = await transport.accept()
        await far.write(parts("a", end=False))
        async with conn.receive_fragments() as fragments:
            assert await anext(fragments) == "a"
            await far.aclose()
            with pytest.raises(MessageInterrupted):
                await anext(fragments)
        far = await transport.accept()
        # Nothing was received of this one yet.
        await far.write([*parts("b", end=False)])
        await wait_all_tasks_blocked()
        await far.aclose()
        far = await transport.accept()
        await far.write(parts("c", "d"))
        received = []
        with pytest.raises(MessageInterrupted):
            async with conn.receive_fragments() as fragments:
                async for fragment in fragments:
                    received.append(fragment)  # noqa: PERF401 - it raises
        assert received == ["b"]
        assert await read_message(conn) == ["c", "d"]
        # The rest of a message that was left, and a message that receive() was joining, vanish.
        for leave in True, False:
            await far.write(parts("e", end=False))
            if leave:
                async with conn.receive_fragments():
                    pass
            else:
                with trio.move_on_after(1):
                    await conn.receive()
            await far.aclose()
            far = await transport.accept()
            await far.write(parts("f", "g"))
            assert await conn.receive() == "fg"


async def test_a_close_with_full_queues(autojump_clock: MockClock) -> None:
    """It is not delayed; the fragments that were queued can be received."""
    async with linked(fragments=True) as (conn, far):
        await far.write(parts(*[bytes(100_000)] * 5, end=False))
        await wait_all_tasks_blocked()
        await far.write([Fragment(bytes(100_000), first=False, final=True), "next", Close(1000)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.aclose)
            await wait_all_tasks_blocked()
            await far.aclose()
        size = 0
        with pytest.raises(ConnectionClosed):
            async with conn.receive_fragments() as fragments:
                async for fragment in fragments:
                    size += len(fragment)
        assert 2**18 < size <= 500_000
        assert conn.statistics().dropped == 2


async def test_fragments_are_data(autojump_clock: MockClock) -> None:
    """A message that takes longer than ``stall_timeout`` is not a stall."""
    async with linked(fragments=True, stall_timeout=10) as (conn, far):
        for number in range(5):
            await far.write([Fragment("x", first=not number, final=number == 4)])
            await trio.sleep(9)
        assert await conn.receive() == "x" * 5


async def test_hooks_may_deliver(autojump_clock: MockClock) -> None:
    class Casts(Socket[None]):
        def handle_cast(self, message: Any, state: None) -> tuple[Any, None]:
            return Deliver(message), state

    async with linked(Casts(), fragments=True) as (conn, far):
        conn.cast("from a cast")
        assert await conn.receive() == "from a cast"
        await far.write(["text"])
        assert await conn.receive() == "text"


async def test_a_waiting_block_does_not_take_a_delivery(autojump_clock: MockClock) -> None:
    class Casts(Socket[None]):
        def handle_cast(self, message: Any, state: None) -> tuple[Any, None]:
            return Deliver(message), state

    async with linked(Casts(), fragments=True) as (conn, far), trio.open_nursery() as nursery:
        received: list[Any] = []

        async def receive() -> None:
            received.append(await conn.receive())

        nursery.start_soon(read_message, conn)
        await wait_all_tasks_blocked()
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        conn.cast("from a cast")
        await wait_all_tasks_blocked()
        assert received == ["from a cast"]
        await far.write(["text"])


async def test_messages_that_are_sent_on_keep_their_type(autojump_clock: MockClock) -> None:
    async with linked(fragments=True) as (conn, far):
        messages: list[str | bytes] = ["", b"", "text", b"binary"]
        await far.write(messages)
        for message in messages:
            async with conn.receive_fragments() as fragments:
                await conn.send(fragments)
            assert await far.receive() == [[message]]


async def test_misuse(autojump_clock: MockClock) -> None:
    async with linked() as (plain, _):
        with pytest.raises(UsageError, match="fragments=True"):
            plain.receive_fragments()
    async with linked(fragments=True) as (conn, far):
        await far.write(["a", "b"])
        block = conn.receive_fragments()
        with pytest.raises(UsageError, match="async with"):
            await anext(block)
        async with block:
            pass
        with pytest.raises(UsageError, match="again"):
            await block.__aenter__()


class Overrides(Socket[None]):
    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return frame, state


BEAT = MessageHeartbeat(message=lambda: "beat", is_answer=lambda message: False)


@pytest.mark.parametrize(
    ("socket", "options", "match"),
    [
        (Overrides(), {}, "Overrides.handle_receive needs whole messages"),
        (None, {"transport": TrioWebsocketTransport()}, "use NativeTransport"),
        (None, {"overflow": "drop_oldest"}, "must be 'wait'"),
        (None, {"heartbeat": BEAT}, "use ping_interval"),
        (None, {"codec": JSON()}, "codec needs whole messages"),
        (None, {"fragments": 1.5}, "fragments must be True or False"),
    ],
)
def test_clients_that_cannot_work(socket: Any, options: Any, match: str) -> None:
    with pytest.raises(InvalidOption, match=match):
        connect(URL, socket, **{"fragments": True, **options})


def test_servers_that_cannot_work() -> None:
    async def handler(conn: Connection[None]) -> None: ...

    with pytest.raises(InvalidOption, match="use NativeTransport"):
        serve(handler, "127.0.0.1", 0, transport=TrioWebsocketTransport(), fragments=True)
    with pytest.raises(InvalidOption, match="serve an async handler"):
        serve(Socket, "127.0.0.1", 0, transport=NativeTransport(), fragments=True)


async def test_the_far_link_may_look_at_fragments(autojump_clock: MockClock) -> None:
    async def send(far: MemoryLink) -> list[Any]:
        await far.write([])
        return await read_frames(far)

    async with linked(fragments=True) as (conn, far):
        far.fragments = True
        await conn.send("whole")
        assert await send(far) == [Fragment("whole", first=True, final=True)]
