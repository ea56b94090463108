"""WebSocketStream: a trio stream over a connection."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import cycle
from typing import Any, TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, check_half_closeable_stream, wait_all_tasks_blocked

from tests.hooks.helpers import URL
from tests.transports.servers import client_context, server_context
from trioglock import (
    Close,
    Connection,
    Handshake,
    InvalidOption,
    PreparedMessage,
    Socket,
    Transport,
    UsageError,
    WebSocketStream,
    connect,
    serve,
)
from trioglock.codecs import JSON
from trioglock.options import DialOptions
from trioglock.testing import MemoryLink, MemoryTransport, memory_link_pair
from trioglock.transports import Link

Pair: TypeAlias = tuple[WebSocketStream, WebSocketStream]
Scope: TypeAlias = AbstractAsyncContextManager[Connection[Any]]


class Given(Transport):
    """Returns a link that exists already."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def connect(self, options: DialOptions, nursery: trio.Nursery) -> Link:
        await trio.lowlevel.checkpoint()
        return self.link


async def hold(
    scope: Scope, task_status: trio.TaskStatus[Connection[Any]] = trio.TASK_STATUS_IGNORED
) -> None:
    async with scope as conn:
        task_status.started(conn)
        await trio.sleep_forever()


@asynccontextmanager
async def memory_pairs() -> AsyncIterator[Callable[[], Awaitable[Pair]]]:
    async with trio.open_nursery() as nursery:

        async def make() -> Pair:
            ends = memory_link_pair(Handshake(url=URL), capacity=2)
            first, second = [
                await nursery.start(hold, connect(URL, transport=Given(end), max_queue=2))
                for end in ends
            ]
            return WebSocketStream(first), WebSocketStream(second)

        yield make
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def socket_pairs() -> AsyncIterator[Callable[[], Awaitable[Pair]]]:
    accepted, accept = trio.open_memory_channel[Connection[Any]](1)

    async def handler(conn: Connection[Any]) -> None:
        await accepted.send(conn)
        await conn.wait_closed()

    async with serve(handler, "127.0.0.1", 0) as server, trio.open_nursery() as nursery:

        async def make() -> Pair:
            # Compressed zeros would not fill the buffers of the system.
            url = f"ws://127.0.0.1:{server.port}/"
            near = await nursery.start(hold, connect(url, compression=None))
            return WebSocketStream(near), WebSocketStream(await accept.receive())

        yield make
        nursery.cancel_scope.cancel()


def clogged(make: Callable[[], Awaitable[Pair]], seconds: float) -> Callable[[], Awaitable[Pair]]:
    """Fill both directions until the senders have waited for ``seconds``."""

    async def fill(stream: WebSocketStream) -> None:
        while True:
            await stream.send_all(bytes(2**16))

    async def make_clogged() -> Pair:
        pair = await make()
        async with trio.open_nursery() as nursery:
            for stream in pair:
                nursery.start_soon(fill, stream)
            await wait_all_tasks_blocked(seconds)
            nursery.cancel_scope.cancel()
        return pair

    return make_clogged


@pytest.mark.slow
async def test_conforms_over_the_memory_transport(autojump_clock: MockClock) -> None:
    async with memory_pairs() as make:
        await check_half_closeable_stream(make, clogged(make, 0.02))


@pytest.mark.slow
async def test_conforms_over_sockets() -> None:
    with trio.fail_after(300):
        async with socket_pairs() as make:
            # On a busy machine, the system may enlarge a buffer or move data a little later.
            await check_half_closeable_stream(make, clogged(make, 0.2))


@asynccontextmanager
async def far_end(
    socket: Socket[Any] | None = None, **options: Any
) -> AsyncIterator[tuple[WebSocketStream, MemoryLink]]:
    """A stream whose peer is the test."""
    transport = MemoryTransport()
    async with connect(URL, socket, transport=transport, close_timeout=1, **options) as conn:
        yield WebSocketStream(conn), await transport.accept()


async def test_message_boundaries_are_not_kept(autojump_clock: MockClock) -> None:
    async with far_end() as (stream, far):
        await far.write([b"abcdef", b"", PreparedMessage(b"gh")])
        assert [await stream.receive_some(4) for _ in range(2)] == [b"abcd", b"efgh"]
        await far.write([b"abc", b"def", bytes(70_000), b"end"])
        await wait_all_tasks_blocked()
        assert await stream.receive_some() == b"abcdef" + bytes(70_000)
        assert await stream.receive_some() == b"end"


async def test_large_data_is_sent_in_several_messages(autojump_clock: MockClock) -> None:
    data = bytes(range(256)) * 1000
    async with far_end() as (stream, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, memoryview(data).cast("H"))
            received: list[Any] = []
            while sum(map(len, received)) < len(data):
                for event in await far.receive():
                    assert isinstance(event, list)
                    received += event
        assert b"".join(received) == data
        assert max(map(len, received)) == 2**16


@pytest.mark.parametrize("message", ["text", "\0"])
async def test_a_text_message_breaks_the_stream(message: str, autojump_clock: MockClock) -> None:
    async with far_end() as (stream, far):
        await far.write([b"data", message, b"more"])
        assert await stream.receive_some() == b"data"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="binary messages; received a text"):
                await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        assert await far.receive() == [Close(1003, stream._problem)]


@pytest.mark.parametrize("code", [1000, 1001, 1005])
async def test_a_normal_close_is_the_end_of_the_file(code: int, autojump_clock: MockClock) -> None:
    async with far_end() as (stream, far):
        await far.write([b"data", Close(code)])
        assert await stream.receive_some() == b"data"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_other_ends_break_the_stream(autojump_clock: MockClock) -> None:
    async with far_end() as (stream, far):
        await far.write([b"data", Close(1011, "disk full")])
        assert await stream.receive_some() == b"data"
        with pytest.raises(trio.BrokenResourceError, match="1011 disk full"):
            await stream.receive_some()
    async with far_end() as (stream, far):
        await far.aclose()
        with pytest.raises(trio.BrokenResourceError, match="connection lost"):
            await stream.receive_some()


async def test_data_after_the_end_of_the_file_is_ignored(autojump_clock: MockClock) -> None:
    async with far_end() as (stream, far):
        await far.write([b"data", "", b"more"])
        assert [await stream.receive_some() for _ in range(3)] == [b"data", b"", b""]
        await stream.send_all(b"still open")
        assert await far.receive() == [[b"still open"]]


async def test_aclose_sends_what_is_queued(autojump_clock: MockClock) -> None:
    async with memory_pairs() as make:
        one, other = await make()
        data = bytes(100_000)

        async def send() -> None:
            await one.send_all(data)
            await one.aclose()

        received = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            while chunk := await other.receive_some(1000):
                received += chunk
        assert received == data


async def test_aclose_interrupts_other_tasks_immediately(autojump_clock: MockClock) -> None:
    """Although the peer does not answer the Close frame."""

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        ends.append(trio.current_time() - began)

    ends: list[float] = []
    async with far_end() as (stream, _), trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await stream.aclose()
        ends.append(trio.current_time() - began)
    assert ends == [0, 1]


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    async with far_end() as (stream, far):
        with trio.move_on_after(1):
            await stream.receive_some()
        await far.write([b"data"])
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.receive_some()
        assert await stream.receive_some() == b"data"


async def test_closing_the_connection_closes_the_stream(autojump_clock: MockClock) -> None:
    async with far_end() as (stream, _):
        await stream.connection.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        await stream.aclose()


class Hexadecimal(Socket[None]):
    """For peers that send text only; the end of the file is an empty text in both."""

    def handle_send(self, message: Any, state: None) -> tuple[str, None]:
        return message.hex() if message else "", state

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return bytes.fromhex(frame) if frame else "", state


async def test_hooks_apply(autojump_clock: MockClock) -> None:
    async with far_end(Hexadecimal()) as (stream, far):
        await stream.send_all(b"AB")
        assert await far.receive() == [["4142"]]
        await stream.send_eof()
        assert await far.receive() == [[""]]
        await far.write(["6162", ""])
        assert [await stream.receive_some() for _ in range(2)] == [b"ab", b""]


async def test_unsuitable_connections_are_refused(autojump_clock: MockClock) -> None:
    with pytest.raises(UsageError, match="without reconnect"):
        async with far_end(reconnect=True):
            pass
    with pytest.raises(UsageError, match='overflow="wait"'):
        async with far_end(overflow="drop_oldest"):
            pass
    for option in ({"codec": JSON()}, {"fragments": True}):
        with pytest.raises(UsageError, match="whole binary messages"):
            async with far_end(**option):
                pass
    with pytest.raises(InvalidOption, match="conn must be a Connection, not"):
        WebSocketStream("ws://localhost")  # type: ignore[arg-type]


async def test_another_link_breaks_the_stream(autojump_clock: MockClock) -> None:
    """A reconnect() is not foreseeable."""
    transport = MemoryTransport()
    async with connect(URL, transport=transport, close_timeout=1) as conn:
        stream = WebSocketStream(conn)
        await transport.accept()
        await conn.reconnect()
        far = await transport.accept()
        await far.write([b"data"])
        with pytest.raises(trio.BrokenResourceError, match="replaced"):
            await stream.receive_some()


@pytest.mark.slow
async def test_tls_and_a_websocket_through_a_gateway() -> None:
    """As with websockify: the outer server connects the bytes with a TCP port."""

    async def echo(conn: Connection[Any]) -> None:
        async for message in conn:
            await conn.send(message)

    async def gateway(conn: Connection[Any]) -> None:
        assert inner.port is not None
        tcp = await trio.open_tcp_stream("127.0.0.1", inner.port)
        async with WebSocketStream(conn) as stream, tcp, trio.open_nursery() as nursery:
            nursery.start_soon(copy, stream, tcp)
            nursery.start_soon(copy, tcp, stream)

    async def copy(source: trio.abc.ReceiveStream, target: trio.abc.HalfCloseableStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                await target.send_all(data)
            await target.send_eof()

    data = random.Random(1).randbytes(300_000)
    with trio.fail_after(300):
        async with (
            serve(echo, "127.0.0.1", 0, ssl_context=server_context("localhost")) as inner,
            serve(gateway, "127.0.0.1", 0) as outer,
            connect(f"ws://127.0.0.1:{outer.port}/", compression=None) as conn,
            connect(
                f"wss://localhost:{inner.port}/",
                stream=WebSocketStream(conn),
                ssl_context=client_context(),
            ) as through,
        ):
            await through.send(data)
            assert await through.receive() == data


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(st.binary(max_size=40), max_size=8),
    sizes=st.lists(st.integers(1, 50) | st.none(), min_size=1, max_size=8),
    cancels=st.lists(st.booleans(), min_size=1, max_size=8),
)
@pytest.mark.slow
def test_any_sizes_give_the_bytes_in_order(
    messages: list[bytes], sizes: list[int | None], cancels: list[bool]
) -> None:
    """However the messages are cut, and although some calls are cancelled."""

    async def main() -> None:
        async with far_end() as (stream, far):
            await far.write([*messages, ""])
            received = []
            for size, cancelled in zip(cycle(sizes), cycle([*cancels, False]), strict=False):
                with trio.CancelScope() as scope:
                    if cancelled:
                        scope.cancel()
                    received.append(await stream.receive_some(size))
                    assert size is None or len(received[-1]) <= size
                    if not received[-1]:
                        break
            assert b"".join(received) == b"".join(messages)

    trio.run(main, clock=MockClock(autojump_threshold=0))
