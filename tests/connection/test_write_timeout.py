"""Peers that stop reading, and the write timeout."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    EchoHook,
    Ends,
    MakeTransport,
    RawFrame,
    RawPeer,
    every_transport,
    lockstep,
    raw_connection,
)
from trioglock import ConnectionClosedError, HeartbeatTimeout, Status


@every_transport
async def test_a_peer_that_stops_reading(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Without a heartbeat, a write without progress for ``write_timeout`` ends the connection."""
    socket = Ends()
    async with raw_connection(socket, streams=lockstep, transport=transport(), write_timeout=8) as (
        conn,
        _,
    ):
        await conn.send("x")
        began = trio.current_time()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.flush()
        assert 8 <= trio.current_time() - began <= 12
        cause = caught.value.cause
        assert isinstance(cause, HeartbeatTimeout)
        assert cause.writing
    assert socket.disconnects == socket.ends == [cause]


async def test_a_peer_that_sends_but_never_reads(autojump_clock: MockClock) -> None:
    """Received data does not prevent the detection."""
    async with raw_connection(
        streams=lockstep, ping_interval=2, ping_timeout=2, write_timeout=8, max_queue=None
    ) as (conn, peer):
        async with trio.open_nursery() as nursery:

            async def babble() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await peer.text("blah")
                        await trio.sleep(0.5)

            nursery.start_soon(babble)
            await conn.send("listen!")
            with trio.fail_after(13):
                await conn.wait_closed()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.send("late")
        assert isinstance(caught.value.cause, HeartbeatTimeout)
        assert caught.value.cause.writing


# Of a masked frame of more than 64 kB.
HEADER = 14


async def take_slowly(peer: RawPeer, total: int, piece: int) -> None:
    taken = 0
    while taken < total:
        await trio.sleep(1)
        data = await peer.stream.receive_some(piece)
        assert data, f"dropped after {taken} bytes"
        taken += len(data)


async def test_slow_progress_is_progress(autojump_clock: MockClock) -> None:
    """1 MB at 16 kB/s takes ten times ``write_timeout`` and arrives."""
    async with raw_connection(streams=lockstep, write_timeout=6, write_limit=2**21) as (conn, peer):
        await conn.send(bytes(2**20))
        await take_slowly(peer, HEADER + 2**20, 2**14)
        await conn.flush()
        assert conn.status is Status.OPEN


async def test_without_a_write_timeout(autojump_clock: MockClock) -> None:
    """A message is blocked for a day and then delivered."""
    async with raw_connection(streams=lockstep, write_timeout=None) as (conn, peer):
        await conn.send("patience")
        await trio.sleep(86_400)
        assert (await peer.next()).payload == b"patience"
        assert conn.status is Status.OPEN


async def test_a_peer_that_floods_an_echo_and_never_reads(autojump_clock: MockClock) -> None:
    """Reading is paused by our replies; the write timeout still expires."""
    async with raw_connection(
        EchoHook(),
        streams=lockstep,
        ping_interval=2,
        ping_timeout=2,
        write_timeout=20,
        write_limit=10_000,
    ) as (conn, peer):
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await peer.text("x" * 1000)

            nursery.start_soon(flood)
            began = trio.current_time()
            with trio.fail_after(60), pytest.raises(ConnectionClosedError) as caught:
                await conn.receive()
            assert trio.current_time() - began >= 20
            assert isinstance(caught.value.cause, HeartbeatTimeout)
            assert caught.value.cause.writing
        assert conn.statistics().send_queue_bytes <= 100_000


async def test_no_ping_after_the_peer_has_closed(autojump_clock: MockClock) -> None:
    """After the Close frame of the peer we send only our own."""
    async with raw_connection(ping_interval=1, ping_timeout=50, close_timeout=30) as (conn, peer):
        frames: list[RawFrame] = []
        await peer.close(1000)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                frames.extend(await peer.read_all())

            nursery.start_soon(read)
            await conn.wait_closed()
        assert len(frames) == 1


async def test_a_dead_peer_does_not_extend_a_close(autojump_clock: MockClock) -> None:
    """The close ends at ``close_timeout`` or the heartbeat, whichever is first."""
    async with raw_connection(ping_interval=1, ping_timeout=3, close_timeout=math.inf) as (conn, _):
        await trio.sleep(1.5)
        with trio.fail_after(5):
            await conn.aclose()
        assert conn.status is Status.CLOSED
