"""What trioglock's connections make of each fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioglock import (
    Backoff,
    ConnectFailed,
    Connection,
    ConnectionClosedError,
    ConnectionInfo,
    ConnectionLost,
    Disconnect,
    HandshakeFailed,
    HeartbeatTimeout,
    InvalidHandshake,
    OpenTimeout,
    ProtocolViolation,
    ReconnectFailed,
    Socket,
    Status,
    connect,
)
from trioglock.testing import FaultProxy, Handler, MockServer, echo

AGAIN = Backoff(initial=1, jitter="none", max_attempts=None)
SIZES = (0, 1, 125, 126, 1000, 70_000)


class Counting(Socket[int]):
    """Counts what it received, over all its connections, and notes why they ended."""

    def __init__(self) -> None:
        self.reasons: list[Disconnect] = []

    def init_stream(self, info: ConnectionInfo) -> int:
        return 0

    def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
        return frame, state + 1

    def handle_disconnect(self, reason: Disconnect, state: int) -> tuple[None, int]:
        self.reasons.append(reason)
        return None, state


@asynccontextmanager
async def proxied(handler: Handler | None = echo) -> AsyncIterator[tuple[MockServer, FaultProxy]]:
    async with (
        MockServer(handler, memory=True) as server,
        FaultProxy(server, memory=True) as proxy,
    ):
        yield server, proxy


@asynccontextmanager
async def connected(proxy: FaultProxy, **options: Any) -> AsyncIterator[Connection[int]]:
    options = {"compression": None, "stream": proxy.open_stream} | options
    socket: Counting = options.pop("socket", None) or Counting()
    async with connect(proxy.url, socket, **options) as conn:
        yield conn


async def end_of(conn: Connection[int]) -> ConnectionClosedError:
    with pytest.raises(ConnectionClosedError) as caught:
        while True:
            await conn.receive()
    return caught.value


async def test_delayed(autojump_clock: MockClock) -> None:
    """A message comes back after both delays, and the handshake took as long; ping measures it."""
    async with proxied() as (_, proxy):
        proxy.delay(0.5)
        async with connected(proxy) as conn:
            assert trio.current_time() == 1
            await conn.send("x")
            assert await conn.receive() == "x"
            assert trio.current_time() == 2
            assert await conn.ping() == 1
        assert trio.current_time() == 4


async def test_throttled(autojump_clock: MockClock) -> None:
    """Bytes on the wire divided by the rate is the time it takes."""
    async with proxied() as (_, proxy), connected(proxy) as conn:
        proxy.throttle(1000, "to_client")
        before = proxy.connections[0].bytes_to_client
        await conn.send("x" * 5000)
        await conn.receive()
        size = proxy.connections[0].bytes_to_client - before
        assert size == 5000 + 4
        assert trio.current_time() == pytest.approx(size / 1000)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_split(autojump_clock: MockClock, size: int, compression: str | None) -> None:
    """However the bytes are cut, handshake included, the messages are the same."""
    messages = [b"x" * n for n in SIZES if n < 2000 or size > 3] + ["\u00e9\u20ac\U0001f40d" * 9]
    async with proxied() as (_, proxy):
        proxy.split(size)
        async with connected(proxy, compression=compression, max_queue=None) as conn:
            for message in messages:
                await conn.send(message)
            assert [await conn.receive() for _ in messages] == messages


@pytest.mark.parametrize(
    ("offset", "bits", "code"),
    [(0, 0x40, 1002), (0, 0x0F, 1002), (1, 0x80, 1002), (2, 0x80, 1007)],
    ids=["reserved bit", "opcode", "masked", "text"],
)
async def test_corrupt(autojump_clock: MockClock, offset: int, bits: int, code: int) -> None:
    """A flipped bit of the header is 1002, of a text's UTF-8 1007; both sides know."""
    async with proxied() as (server, proxy), connected(proxy) as conn:
        proxy.corrupt(offset, bits, "to_client")
        await conn.send("hello")
        error = await end_of(conn)
        assert isinstance(error.cause, ProtocolViolation)
        assert (error.cause.code, error.code) == (code, code)
        await trio.testing.wait_all_tasks_blocked()
        assert server.peers[0].closed is not None
        assert server.peers[0].closed.code == code


async def test_refused_and_again(autojump_clock: MockClock) -> None:
    """The first connection comes about after three refusals and three delays."""
    async with proxied() as (_, proxy):
        proxy.refuse(3)
        async with connected(proxy, reconnect=AGAIN) as conn:
            assert trio.current_time() == 1 + 2 + 4
            await conn.send("x")
            assert await conn.receive() == "x"


async def test_refused_for_ever(autojump_clock: MockClock) -> None:
    """Each attempt fails as the network's failures do."""
    async with proxied() as (_, proxy):
        proxy.refuse(None)
        with pytest.raises(ReconnectFailed) as caught:
            async with connected(proxy, reconnect=Backoff(max_attempts=4)):
                pass
    errors = [
        reason.error for reason in caught.value.attempts if isinstance(reason, HandshakeFailed)
    ]
    assert [type(error) for error in errors] == [ConnectFailed] * 4


async def test_refused_over_tcp() -> None:
    """A reset right behind the accept is retried too, and what was queued arrives."""
    with trio.fail_after(10):
        async with MockServer(echo) as server, FaultProxy(server) as proxy:
            proxy.refuse(3)
            socket = Counting()
            policy = Backoff(initial=0.001)
            async with connect(proxy.url, socket, reconnect=policy) as conn:
                await conn.send("x")
                assert await conn.receive() == "x"
            failed = [r.error for r in socket.reasons if isinstance(r, HandshakeFailed)]
            assert [type(error) for error in failed] == [ConnectFailed] * 3


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\xff" * 50, b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 101 Yes\r\n\r\n", b"220 mail\r\n\r\n"],
    ids=["bytes", "ssh", "http", "mail"],
)
async def test_garbage(autojump_clock: MockClock, garbage: bytes) -> None:
    """An answer that is no handshake is told as such; the next connection is a good one."""
    async with proxied() as (_, proxy):
        proxy.answer(garbage)
        with pytest.raises(InvalidHandshake):
            async with connected(proxy):
                pass
        async with connected(proxy) as conn:
            await conn.send("x")
            assert await conn.receive() == "x"


async def test_never_answered(autojump_clock: MockClock) -> None:
    """A black hole ends with open_timeout."""
    async with proxied() as (server, proxy):
        proxy.blackhole()
        with pytest.raises(OpenTimeout):
            async with connected(proxy, open_timeout=7):
                pass
        assert trio.current_time() == 7
        assert server.peers == []


async def test_answered_late(autojump_clock: MockClock) -> None:
    """Once it is healed, what the black hole has swallowed gets through."""
    async with proxied() as (_, proxy), trio.open_nursery() as nursery:
        proxy.blackhole()

        async def reset() -> None:
            await trio.sleep(5)
            proxy.reset()

        nursery.start_soon(reset)
        async with connected(proxy, open_timeout=7):
            assert trio.current_time() == 5


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_stalled(autojump_clock: MockClock, direction: Any) -> None:
    """Silence one way is found by the heartbeat, whichever way it is."""
    async with proxied() as (_, proxy), connected(proxy, ping_interval=5, ping_timeout=3) as conn:
        await trio.sleep(4)
        proxy.stall(direction)
        error = await end_of(conn)
        assert error.cause == HeartbeatTimeout(silence=3)
        assert trio.current_time() == 8


async def test_stalled_while_writing(autojump_clock: MockClock) -> None:
    """A line that takes no more bytes is found by the deadline on the write."""
    async with (
        proxied() as (_, proxy),
        connected(proxy, ping_interval=None, write_timeout=10) as conn,
    ):
        proxy.stall("to_server")
        with pytest.raises(ConnectionClosedError) as caught:
            while True:
                await conn.send(b"x" * 2**15)
        assert isinstance(caught.value.cause, HeartbeatTimeout)
        assert caught.value.cause.writing


async def test_resumed(autojump_clock: MockClock) -> None:
    """A stall that is short enough costs nothing but time."""
    async with proxied() as (_, proxy), connected(proxy) as conn:
        proxy.stall()
        await conn.send("x")
        await trio.sleep(30)
        proxy.resume()
        assert await conn.receive() == "x"


async def test_half_closed(autojump_clock: MockClock) -> None:
    """The end of the server's stream is the loss of the connection."""
    async with proxied() as (_, proxy), connected(proxy) as conn:
        proxy.half_close("to_client")
        error = await end_of(conn)
        assert error.cause == ConnectionLost()


async def test_cut_inside_a_frame(autojump_clock: MockClock) -> None:
    """Half a message is no message."""
    async with proxied() as (_, proxy), connected(proxy) as conn:
        proxy.cut_after(2 + 5 + 2 + 3, "to_client")
        await conn.send("whole")
        await conn.send("half!")
        assert await conn.receive() == "whole"
        assert (await end_of(conn)).cause == ConnectionLost()


async def test_reset_is_lost_with_its_error(autojump_clock: MockClock) -> None:
    """A reset is a loss that knows how."""
    async with proxied() as (_, proxy), connected(proxy) as conn:
        proxy.reset_peer()
        error = await end_of(conn)
        assert isinstance(error.cause, ConnectionLost)
        assert isinstance(error.cause.error, trio.BrokenResourceError)


async def test_reset_over_tcp() -> None:
    """The operating system's own error is told."""
    with trio.fail_after(10):
        async with (
            MockServer(echo) as server,
            FaultProxy(server) as proxy,
            connected(proxy, stream=None) as conn,
        ):
            await conn.send("x")
            await conn.receive()
            proxy.reset_peer()
            error = await end_of(conn)
            assert isinstance(error.cause, ConnectionLost)
            assert isinstance(error.cause.error, ConnectionResetError)


@pytest.mark.parametrize("end", ["cut", "reset"])
async def test_lost_and_back(autojump_clock: MockClock, end: str) -> None:
    """The state survives, what is sent meanwhile is queued, and arrives in order."""
    socket = Counting()
    async with (
        proxied() as (server, proxy),
        connected(proxy, socket=socket, reconnect=AGAIN, max_queue=None) as conn,
    ):
        await conn.send("before")
        await conn.receive()
        proxy.refuse(2)
        getattr(proxy, end)()
        await trio.testing.wait_all_tasks_blocked()
        for number in range(100):
            await conn.send(str(number))
        assert conn.statistics().send_queue == 100
        assert [await conn.receive() for _ in range(100)] == [str(n) for n in range(100)]
        assert trio.current_time() == 1 + 2 + 4
        assert conn.state == 101
        figures = conn.statistics()
        assert (figures.reconnects, figures.in_doubt, figures.unsent) == (1, 0, 0)
    kinds = [type(reason) for reason in socket.reasons]
    assert kinds[:3] == [ConnectionLost, HandshakeFailed, HandshakeFailed]
    assert len(server.peers) == 2


@pytest.mark.parametrize("end", ["cut", "reset"])
async def test_lost_and_back_over_tcp(end: str) -> None:
    """The same over real sockets."""
    with trio.fail_after(10):
        async with MockServer(echo) as server, FaultProxy(server) as proxy:
            policy = Backoff(initial=0.001, max_attempts=None)
            async with connected(proxy, stream=None, reconnect=policy, max_queue=None) as conn:
                await conn.send("before")
                await conn.receive()
                proxy.refuse(2)
                getattr(proxy, end)()
                while conn.status is Status.OPEN:
                    await trio.lowlevel.checkpoint()
                for number in range(100):
                    await conn.send(str(number))
                assert [await conn.receive() for _ in range(100)] == [str(n) for n in range(100)]
                assert conn.state == 101
            assert len(server.peers) == 2


async def test_all_at_once(autojump_clock: MockClock) -> None:
    """Slow, late, in single bytes and cut again and again: what arrives is in order, and once."""
    async with proxied() as (_, proxy):
        proxy.delay(0.1)
        proxy.throttle(2000)
        proxy.split(3)
        proxy.cut_after(250, "to_client")
        policy = Backoff(max_attempts=None)
        async with connected(proxy, reconnect=policy, max_queue=None) as conn:
            got: list[int] = []
            for number in range(50):
                await conn.send(str(number))
                await conn.flush()
                await trio.sleep(0.3)
            await trio.sleep(30)
            with trio.move_on_after(1):
                while True:
                    got.append(int(await conn.receive()))
            assert got == sorted(set(got))
            assert conn.statistics().reconnects >= 1
            assert len(got) >= 40
