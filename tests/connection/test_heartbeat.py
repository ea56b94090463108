"""The heartbeat."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    BINARY,
    PING,
    PONG,
    Ends,
    MakeTransport,
    SlowReceive,
    encode,
    every_transport,
    lockstep,
    numbered,
    raw_connection,
    texts,
)
from trioglock import (
    ConnectionClosed,
    ConnectionClosedError,
    HeartbeatTimeout,
    MemoryTransport,
    Status,
    connect,
)


@every_transport
async def test_pings_are_sent_at_every_interval(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Each has a different payload."""
    async with raw_connection(transport=transport(), ping_interval=3, ping_timeout=1) as (
        conn,
        peer,
    ):
        times, payloads = [], set()
        began = trio.current_time()
        for _ in range(5):
            frame = await peer.next()
            assert frame.opcode == PING
            times.append(trio.current_time() - began)
            payloads.add(frame.payload)
            await peer.send(encode(PONG, frame.payload))
        assert times == pytest.approx([3, 6, 9, 12, 15])
        assert len(payloads) == 5
        assert conn.status is Status.OPEN


async def test_without_an_interval_there_are_no_pings(autojump_clock: MockClock) -> None:
    """A peer may be silent indefinitely."""
    async with raw_connection() as (conn, peer):
        with trio.move_on_after(10_000):
            await peer.next()
            pytest.fail("something was sent")
        assert conn.status is Status.OPEN


async def test_without_a_timeout_nothing_expires(autojump_clock: MockClock) -> None:
    """Pings are sent, but silence has no consequence."""
    async with raw_connection(ping_interval=5, ping_timeout=None) as (conn, peer):
        await trio.sleep(1000)
        assert conn.status is Status.OPEN
        assert (await peer.next()).opcode == PING


async def test_latency(autojump_clock: MockClock) -> None:
    """It is None before the first pong, and then the latest round-trip time."""
    async with raw_connection(ping_interval=10) as (conn, peer):

        async def answer_late(seconds: float) -> None:
            frame = await peer.next()
            await trio.sleep(seconds)
            await peer.send(encode(PONG, frame.payload))

        assert conn.latency is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_late, 2)
            assert await conn.ping() == pytest.approx(2)
        assert conn.latency == conn.statistics().latency == pytest.approx(2)
        await answer_late(3)
        await trio.testing.wait_all_tasks_blocked()
        assert conn.latency == pytest.approx(3)


async def test_a_latency_longer_than_the_interval(autojump_clock: MockClock) -> None:
    """A late pong is still measured."""
    async with raw_connection(ping_interval=1, ping_timeout=5) as (conn, peer):
        async with trio.open_nursery() as nursery:

            async def answer_late(payload: bytes) -> None:
                await trio.sleep(1.5)
                await peer.send(encode(PONG, payload))

            for _ in range(5):
                nursery.start_soon(answer_late, (await peer.next()).payload)
        await trio.testing.wait_all_tasks_blocked()
        assert conn.latency == pytest.approx(1.5)


async def test_unsolicited_pongs_are_ignored(autojump_clock: MockClock) -> None:
    """One answer completes all earlier pings."""
    async with raw_connection() as (conn, peer):
        done: list[str] = []

        async def ping(name: str) -> None:
            await conn.ping()
            done.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, "one")
            first = await peer.next()
            nursery.start_soon(ping, "two")
            second = await peer.next()
            assert first.payload != second.payload
            await peer.send(encode(PONG) + encode(PONG, b"unasked"))
            await trio.sleep(1)
            assert done == []
            await peer.send(encode(PONG, second.payload))
        assert sorted(done) == ["one", "two"]


@every_transport
async def test_a_silent_peer_is_detected_in_time(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """``ping_interval`` plus ``ping_timeout`` after the last received byte."""
    socket = Ends()
    async with raw_connection(socket, transport=transport(), ping_interval=7, ping_timeout=4) as (
        conn,
        _,
    ):
        began = trio.current_time()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert trio.current_time() - began == pytest.approx(11)
        assert caught.value.code == 1006
        assert caught.value.cause == HeartbeatTimeout(silence=4)
    assert socket.disconnects == socket.ends == [HeartbeatTimeout(silence=4)]


async def test_messages_before_the_timeout_can_be_received(autojump_clock: MockClock) -> None:
    """The body is not cancelled, and receives them before the exception."""
    async with raw_connection(ping_interval=1, ping_timeout=1) as (conn, peer):
        await peer.send(texts("one", "two"))
        await trio.sleep(100)
        assert (conn.status, conn.close_code) == (Status.CLOSED, 1006)
        assert [await conn.receive(), await conn.receive()] == ["one", "two"]
        with pytest.raises(ConnectionClosedError):
            await conn.receive()


async def test_a_peer_that_becomes_silent_is_detected(autojump_clock: MockClock) -> None:
    """The peer answers ten pings first."""
    async with raw_connection(ping_interval=2, ping_timeout=1) as (conn, peer):
        for _ in range(10):
            await peer.send(encode(PONG, (await peer.next()).payload))
        began = trio.current_time()
        await conn.wait_closed()
        assert trio.current_time() - began == pytest.approx(3)


SIGNS = {
    "a byte of an endless frame": encode(BINARY, bytes(10_000)),
    "messages": texts("x") * 1000,
    "pings": encode(PING) * 1000,
    "pongs for nothing": encode(PONG, b"x") * 1000,
}


@pytest.mark.parametrize("sign", SIGNS)
@every_transport
async def test_any_received_byte_counts(
    transport: MakeTransport, sign: str, autojump_clock: MockClock
) -> None:
    """A peer that sends a byte per second and no pongs is alive, until it stops."""
    async with raw_connection(
        transport=transport(), ping_interval=2, ping_timeout=2, max_queue=None
    ) as (conn, peer):
        data = SIGNS[sign]
        for at in range(200):
            await peer.send(data[at : at + 1])
            await trio.sleep(1)
        assert conn.status is Status.OPEN
        stopped = trio.current_time()
        await conn.wait_closed()
        assert trio.current_time() - stopped <= 6


@pytest.mark.parametrize("held", [10, 100])
@every_transport
async def test_no_timeout_while_the_program_does_not_receive(
    transport: MakeTransport, held: int, autojump_clock: MockClock
) -> None:
    """The pongs are behind messages in a paused stream."""
    messages = numbered(40)
    # A peer blocked in its pong does not read, and nothing fits in between: only here that shows.
    async with (
        raw_connection(
            streams=lockstep,
            transport=transport(),
            ping_interval=1,
            ping_timeout=1,
            write_timeout=None,
            max_queue=2,
        ) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, messages, [])
        nursery.start_soon(peer.answer)
        await trio.sleep(held)
        assert conn.status is Status.OPEN
        assert [await conn.receive() for _ in messages] == messages
        await trio.sleep(held)
        assert conn.status is Status.OPEN
        nursery.cancel_scope.cancel()


async def test_the_timeout_restarts_when_reading_resumes(autojump_clock: MockClock) -> None:
    """A peer that died during the pause is detected afterwards."""
    async with (
        raw_connection(
            streams=lockstep, ping_interval=2, ping_timeout=2, max_queue=1, write_timeout=None
        ) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.text, "one", "two")
        nursery.start_soon(peer.read_all)
        await trio.sleep(60)
        assert conn.status is Status.OPEN
        assert await conn.receive_batch() == ["one", "two"]
        began = trio.current_time()
        with pytest.raises(ConnectionClosed) as caught:
            await conn.receive()
        assert isinstance(caught.value.cause, HeartbeatTimeout)
        assert 2 <= trio.current_time() - began <= 6


async def test_no_timeout_while_slow_hooks_pause_reading(autojump_clock: MockClock) -> None:
    """The same applies to an async hook."""
    async with (
        raw_connection(
            SlowReceive(10),
            streams=lockstep,
            ping_interval=1,
            ping_timeout=1,
            write_timeout=None,
            max_queue=2,
        ) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, numbered(12), [])
        nursery.start_soon(peer.answer)
        assert [await conn.receive() for _ in range(12)] == numbered(12)
        assert conn.status is Status.OPEN
        nursery.cancel_scope.cancel()


async def test_later_messages_do_not_postpone_the_timeout(autojump_clock: MockClock) -> None:
    """The timeout starts when the ping was written, which may be immediately."""
    net = MemoryTransport()
    with pytest.raises(ConnectionClosedError):
        async with connect(
            "ws://memory.test/", transport=net, ping_interval=10, ping_timeout=10
        ) as conn:
            await net.accept()
            await trio.sleep(15)
            await conn.send("late")
            await conn.receive()
    assert trio.current_time() == pytest.approx(20)
