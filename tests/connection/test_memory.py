"""Memory usage does not grow."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    BINARY,
    URL,
    RawPeer,
    encode,
    raw_connection,
    serving_peer,
    texts,
    unbounded,
)
from trioglock import (
    ConnectFailed,
    ConnectionClosedError,
    ConnectionInfo,
    MemoryTransport,
    Socket,
    connect,
)
from trioglock.testing import MockServer, echo

pytestmark = pytest.mark.slow

# What interpreters and libraries keep for themselves; a leak of one small object for each message
# or connection is far more than this.
NOISE_BYTES = 60_000
NOISE_OBJECTS = 200

FILES = Path("/proc/self/fd")


class Usage:
    """What lives in the process, tasks included."""

    def __init__(self) -> None:
        gc.collect()
        self.tasks = trio.lowlevel.current_statistics().tasks_living
        self.objects = len(gc.get_objects())
        self.bytes = tracemalloc.get_traced_memory()[0]


async def assert_flat(
    work: Callable[[], Awaitable[None]], *, traced: bool = True, noise: float = 1
) -> None:
    """Run ``work`` until it leaves nothing: the first time warms up, two more are measured.

    A leak grows each time; what other threads or the collector did meanwhile does not. Without
    ``traced`` bytes are not counted, only objects, and it takes half the time. ``noise`` is the
    part of the usual noise that is allowed, for work of few repetitions.
    """
    if traced:
        tracemalloc.start()
    try:
        await work()
        after = Usage()
        for _ in range(2):
            before = after
            await work()
            after = Usage()
            assert after.tasks == before.tasks
            objects, size = after.objects - before.objects, after.bytes - before.bytes
            if objects < NOISE_OBJECTS * noise and size < NOISE_BYTES * noise:
                break
    finally:
        tracemalloc.stop()
    assert objects < NOISE_OBJECTS * noise
    assert size < NOISE_BYTES * noise


class Counter(Socket[int]):
    """Counts in its state and delivers each message."""

    def init_stream(self, info: ConnectionInfo) -> int:
        return 0

    def handle_send(self, message: Any, state: int) -> tuple[Any, int]:
        return message, state + 1

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        return frame, state + 1


class AsyncCounter(Counter):
    """The same with hooks that suspend."""

    async def handle_receive(  # type: ignore[override]
        self, frame: Any, state: int
    ) -> tuple[Any, int]:
        await trio.lowlevel.checkpoint()
        return frame, state + 1


@pytest.mark.parametrize(
    ("socket", "total"), [(Counter, 10_000), (AsyncCounter, 6_000)], ids=["def", "async def"]
)
async def test_received_messages_leave_nothing_behind(
    socket: type[Counter], total: int, autojump_clock: MockClock
) -> None:
    """No memory is kept per received message."""
    at_once = 1000
    chunk = texts("x" * 20) * at_once
    async with raw_connection(socket()) as (conn, peer):

        async def work() -> None:
            for _ in range(total // at_once // 2):
                await peer.send(chunk)
                left = at_once
                while left:
                    left -= len(await conn.receive_batch())

        await assert_flat(work)
        assert conn.state == total


async def test_sent_messages_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """No memory is kept per sent message."""
    transport = MemoryTransport()
    async with connect(URL, Counter(), transport=transport, ping_interval=None) as conn:
        far = await transport.accept()

        async def work() -> None:
            for _ in range(10):
                for _ in range(500):
                    await conn.send("x" * 20)
                await conn.flush()
                await far.receive()

        await assert_flat(work)
        assert conn.state == 10_000
        await far.aclose()


async def discard(peer: RawPeer) -> None:
    while await peer.read() is not None:
        pass


async def test_pings_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """No memory is kept per ping, answered or not, with hooks or without."""
    async with raw_connection(ping_interval=1, ping_timeout=5, close_timeout=1) as (conn, peer):

        async def work() -> None:
            for _ in range(150):
                await peer.text("life, but no pong")
                await conn.receive()
                with trio.move_on_after(1):
                    await conn.ping()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(discard, peer)
            await assert_flat(work, noise=0.5)
            nursery.cancel_scope.cancel()


class Everything(Counter):
    """Also answers casts and calls."""

    def handle_cast(self, message: Any, state: int) -> tuple[Any, int]:
        return None, state + 1

    async def handle_call(self, request: Any, state: int) -> tuple[Any, int]:
        await trio.sleep(0.1)
        return request, state


async def test_casts_calls_and_cancelled_waits_leave_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    """The mailbox, timers, calls and receives keep no memory."""
    async with raw_connection(Everything()) as (conn, _):

        async def work() -> None:
            for number in range(300):
                conn.cast(number)
                conn.cast_after(10, number).cancel()
                assert await conn.call(number) == number
                with trio.move_on_after(0.05):
                    await conn.call(number)
                with trio.move_on_after(0.05):
                    await conn.receive()

        await assert_flat(work)


async def echo_once(peer: RawPeer) -> None:
    await peer.accept()
    await peer.answer(echo=True)


async def cut_off(peer: RawPeer) -> None:
    await peer.accept()
    await peer.send(encode(BINARY, b"cut off")[:-1])
    await peer.drop()


async def one_connection() -> None:
    async with serving_peer(echo_once) as near:
        async with connect(URL, Counter(), stream=near) as conn:
            await conn.send("hello")
            assert await conn.receive() == "hello"
        assert conn.close_code == 1000


async def lost_connection() -> None:
    async with serving_peer(cut_off) as near:
        with pytest.raises(ConnectionClosedError):
            async with connect(URL, AsyncCounter(), stream=near) as conn:
                await conn.receive()


async def failed_connection() -> None:
    transport = MemoryTransport()
    transport.refuse_next()
    with pytest.raises(ConnectFailed):
        async with connect(URL, transport=transport):
            pytest.fail("refused")


async def cancelled_connection() -> None:
    near, far = unbounded()
    with trio.move_on_after(1):
        async with connect(URL, stream=near):
            pytest.fail("nobody answers")
    await trio.aclose_forcefully(far)


async def crashed_connection() -> None:
    async with serving_peer(echo_once) as near:
        with pytest.raises(ZeroDivisionError):
            async with connect(URL, Counter(), stream=near) as conn:
                conn.start_soon(divide)
                await trio.sleep_forever()


async def divide() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "life",
    [one_connection, lost_connection, failed_connection, cancelled_connection, crashed_connection],
)
async def test_connections_leave_nothing_behind(
    life: Callable[[], Awaitable[None]], autojump_clock: MockClock
) -> None:
    """No memory is kept per connection, however it ended."""

    async def work() -> None:
        for _ in range(40):
            await life()

    await assert_flat(work, noise=0.5)


async def test_many_connections_leave_no_object_behind(autojump_clock: MockClock) -> None:
    """No object and no task remains."""

    async def work() -> None:
        for _ in range(120):
            await one_connection()

    await assert_flat(work, traced=False, noise=0.5)


@pytest.mark.skipif(not FILES.exists(), reason="only Linux lists the open files of a process")
async def test_connections_over_tcp_leave_no_socket_behind() -> None:
    """The number of open files is unchanged."""
    with trio.fail_after(300):
        async with MockServer(echo) as server:

            async def talk() -> None:
                async with connect(server.url) as conn:
                    await conn.send("hello")
                    assert await conn.receive() == "hello"

            async def abort() -> None:
                async with connect(server.url) as conn:
                    conn.abort()

            async def fail() -> None:
                with pytest.raises(ZeroDivisionError):
                    async with connect(server.url):
                        await divide()

            await talk()
            before = len(list(FILES.iterdir()))
            for _ in range(30):
                await talk()
                await abort()
                await fail()
            while len(list(FILES.iterdir())) > before:
                await trio.sleep(0)


async def test_a_connection_is_freed(autojump_clock: MockClock) -> None:
    """Its objects are freed without the garbage collector, or at its first run."""
    await one_connection()
    gc.collect()
    before = sum(str(type(thing).__module__).startswith("trioglock") for thing in gc.get_objects())
    await one_connection()
    await lost_connection()
    gc.collect()
    after = sum(str(type(thing).__module__).startswith("trioglock") for thing in gc.get_objects())
    assert after == before
