"""The effect of faults on connections.

The effect of each fault on bytes is in ``test_pipes``.
"""

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
    OpenTimeout,
    ProtocolViolation,
    Socket,
    connect,
)
from trioglock.testing import FaultProxy, Handler, MockServer, echo

AGAIN = Backoff(initial=1, jitter="none", max_attempts=None)
SIZES = (0, 1, 125, 126, 1000, 70_000)


class Counting(Socket[int]):
    """Counts messages over all links, and records why these ended."""

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
    """Handshake, echo and ping take the delay of both directions."""
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
    """The time is the number of bytes divided by the rate."""
    async with proxied() as (_, proxy), connected(proxy) as conn:
        proxy.throttle(1000, "to_client")
        before = proxy.connections[0].bytes_to_client
        await conn.send("x" * 5000)
        await conn.receive()
        size = proxy.connections[0].bytes_to_client - before
        assert size == 5000 + 4
        assert trio.current_time() == pytest.approx(size / 1000)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_split(autojump_clock: MockClock, size: int, compression: str | None) -> None:
    """The size of writes does not affect handshake and messages."""
    messages = [b"x" * n for n in SIZES if n < 1000 or size > 3] + ["\u00e9\u20ac\U0001f40d" * 9]
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
    """A flipped bit is 1002 in a header and 1007 in text; both sides get the code."""
    async with proxied() as (server, proxy), connected(proxy) as conn:
        proxy.corrupt(offset, bits, "to_client")
        await conn.send("hello")
        error = await end_of(conn)
        assert isinstance(error.cause, ProtocolViolation)
        assert (error.cause.code, error.code) == (code, code)
        await trio.testing.wait_all_tasks_blocked()
        assert server.peers[0].closed is not None
        assert server.peers[0].closed.code == code


async def test_refused_over_tcp() -> None:
    """A reset after the accept is retried too, and queued messages arrive."""
    with trio.fail_after(300):
        async with MockServer(echo) as server, FaultProxy(server) as proxy:
            proxy.refuse(3)
            socket = Counting()
            policy = Backoff(initial=0.001)
            async with connect(proxy.url, socket, reconnect=policy) as conn:
                await conn.send("x")
                assert await conn.receive() == "x"
            failed = [r.error for r in socket.reasons if isinstance(r, HandshakeFailed)]
            assert [type(error) for error in failed] == [ConnectFailed] * 3


async def test_blackhole(autojump_clock: MockClock) -> None:
    """Connecting ends with open_timeout."""
    async with proxied() as (server, proxy):
        proxy.blackhole()
        with pytest.raises(OpenTimeout):
            async with connected(proxy, open_timeout=7):
                pass
        assert trio.current_time() == 7
        assert server.peers == []


async def test_reset_releases_a_blackhole(autojump_clock: MockClock) -> None:
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
    """The heartbeat detects a stall of either direction."""
    async with proxied() as (_, proxy), connected(proxy, ping_interval=5, ping_timeout=3) as conn:
        await trio.sleep(4)
        proxy.stall(direction)
        error = await end_of(conn)
        assert error.cause == HeartbeatTimeout(silence=3)
        assert trio.current_time() == 8


async def test_disconnect_inside_a_frame(autojump_clock: MockClock) -> None:
    """An incomplete message is not delivered."""
    async with proxied() as (_, proxy), connected(proxy) as conn:
        proxy.disconnect_after(2 + 5 + 2 + 3, "to_client")
        await conn.send("whole")
        await conn.send("half!")
        assert await conn.receive() == "whole"
        assert (await end_of(conn)).cause == ConnectionLost()


async def test_reset_peer_over_tcp() -> None:
    """ConnectionLost has the exception of the operating system."""
    with trio.fail_after(300):
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


@pytest.mark.parametrize("end", ["disconnect", "reset_peer"])
async def test_reconnect(autojump_clock: MockClock, end: str) -> None:
    """The state is kept; messages sent during the outage are queued and arrive in order."""
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
        statistics = conn.statistics()
        assert (statistics.reconnects, statistics.in_doubt, statistics.unsent) == (1, 0, 0)
    kinds = [type(reason) for reason in socket.reasons]
    assert kinds[:3] == [ConnectionLost, HandshakeFailed, HandshakeFailed]
    assert len(server.peers) == 2


async def test_all_faults_together(autojump_clock: MockClock) -> None:
    """Delayed, throttled, split and disconnected repeatedly, messages arrive in order and once."""
    async with proxied() as (_, proxy):
        proxy.delay(0.1)
        proxy.throttle(2000)
        proxy.split(3)
        proxy.disconnect_after(250, "to_client")
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
