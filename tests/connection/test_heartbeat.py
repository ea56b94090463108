"""The heartbeat: what it takes for life, what for death, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.raw_server import (
    BINARY,
    PING,
    PONG,
    Ends,
    MakeTransport,
    encode,
    every_transport,
    lockstep,
    raw_connection,
    texts,
)
from trioglock import (
    ConnectionClosed,
    ConnectionClosedError,
    HeartbeatTimeout,
    Socket,
    Status,
)

Clock = trio.testing.MockClock


# Pings.


@every_transport
async def test_pings_leave_at_every_interval(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """One ping each ``ping_interval`` seconds, no two alike, while all are answered."""
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


@every_transport
async def test_without_an_interval_there_are_no_pings(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """``ping_interval=None``: a peer may be silent for ever and is sent nothing."""
    async with raw_connection(transport=transport(), ping_interval=None) as (conn, peer):
        with trio.move_on_after(100_000):
            await peer.next()
            pytest.fail("something was sent")
        assert conn.status is Status.OPEN


@every_transport
async def test_without_a_timeout_nothing_expires(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """``ping_timeout=None``: pings keep the path open, and silence is no reason."""
    async with raw_connection(transport=transport(), ping_interval=5, ping_timeout=None) as (
        conn,
        peer,
    ):
        await trio.sleep(1000)
        assert conn.status is Status.OPEN
        assert (await peer.next()).opcode == PING


@every_transport
async def test_latency_is_the_round_trip_on_the_clock_of_trio(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """None before the first pong; then what ``ping()`` returned, or the heartbeat measured."""
    async with raw_connection(transport=transport(), ping_interval=10) as (conn, peer):

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


@every_transport
async def test_a_pong_later_than_the_next_ping_still_measures(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """A round trip longer than the interval is a latency too."""
    async with raw_connection(transport=transport(), ping_interval=1, ping_timeout=5) as (
        conn,
        peer,
    ):
        async with trio.open_nursery() as nursery:

            async def answer_late(payload: bytes) -> None:
                await trio.sleep(1.5)
                await peer.send(encode(PONG, payload))

            for _ in range(5):
                nursery.start_soon(answer_late, (await peer.next()).payload)
        await trio.testing.wait_all_tasks_blocked()
        assert conn.latency == pytest.approx(1.5)


async def test_pongs_that_answer_nothing_are_ignored(autojump_clock: Clock) -> None:
    """A pong nobody asked for completes no ping; the one answer completes all before it."""
    async with raw_connection(ping_interval=None) as (conn, peer):
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


# Death.


@every_transport
async def test_a_silent_peer_is_found_in_time(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """``ping_interval`` and ``ping_timeout`` after the last sign of life; the hooks know why."""
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


@every_transport
async def test_what_came_before_the_expiry_stays_readable(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """Unread messages of a peer that died are given out before the error."""
    async with raw_connection(transport=transport(), ping_interval=1, ping_timeout=1) as (
        conn,
        peer,
    ):
        await peer.send(texts("one", "two"))
        await trio.sleep(10)
        assert conn.status is Status.CLOSED
        assert [await conn.receive(), await conn.receive()] == ["one", "two"]
        with pytest.raises(ConnectionClosedError):
            await conn.receive()


@every_transport
async def test_expiry_does_not_cancel_the_body(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """A body that does something else goes on, and leaves the block without an error."""
    async with raw_connection(transport=transport(), ping_interval=1, ping_timeout=1) as (
        conn,
        _,
    ):
        await trio.sleep(100)
        assert conn.close_code == 1006


@every_transport
async def test_a_peer_that_falls_silent_later_is_found_as_well(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """Ten answered pings are no licence: the eleventh expires."""
    async with raw_connection(transport=transport(), ping_interval=2, ping_timeout=1) as (
        conn,
        peer,
    ):
        for _ in range(10):
            await peer.send(encode(PONG, (await peer.next()).payload))
        began = trio.current_time()
        await conn.wait_closed()
        assert trio.current_time() - began == pytest.approx(3)


# Life.

SIGNS = {
    "a byte of an endless frame": encode(BINARY, bytes(10_000)),
    "messages": texts("x") * 1000,
    "pings": encode(PING) * 1000,
    "pongs for nothing": encode(PONG, b"x") * 1000,
}


@pytest.mark.parametrize("sign", SIGNS)
@every_transport
async def test_any_received_byte_is_life(
    transport: MakeTransport, sign: str, autojump_clock: Clock
) -> None:
    """A byte each second and never a pong: the peer is not dead. It is, once they stop."""
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


# Our own backpressure.


@pytest.mark.parametrize("held", [10, 1000])
@every_transport
async def test_silence_is_no_evidence_while_the_program_does_not_read(
    transport: MakeTransport, held: int, autojump_clock: Clock
) -> None:
    """The pongs stand behind messages that we do not take: nothing expires, then all goes on."""
    messages = [str(number) for number in range(40)]
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

        async def push() -> None:
            for message in messages:
                await peer.text(message)

        nursery.start_soon(push)
        nursery.start_soon(peer.answer)
        await trio.sleep(held)
        assert conn.status is Status.OPEN
        assert [await conn.receive() for _ in messages] == messages
        await trio.sleep(held)
        assert conn.status is Status.OPEN
        nursery.cancel_scope.cancel()


async def test_the_time_of_the_peer_starts_anew_when_we_read_on(autojump_clock: Clock) -> None:
    """A peer that died while we did not read is found once we do: the promise is only put off."""
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


class Slow(Socket[None]):
    """Takes ten seconds for each message."""

    async def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        await trio.sleep(10)
        return frame, state


async def test_silence_is_no_evidence_while_slow_hooks_hold_the_reader(
    autojump_clock: Clock,
) -> None:
    """The same where it is an async hook that is behind."""
    async with (
        raw_connection(
            Slow(),
            streams=lockstep,
            ping_interval=1,
            ping_timeout=1,
            write_timeout=None,
            max_queue=2,
        ) as (conn, peer),
        trio.open_nursery() as nursery,
    ):

        async def push() -> None:
            for number in range(12):
                await peer.text(str(number))

        nursery.start_soon(push)
        nursery.start_soon(peer.answer)
        for number in range(12):
            assert await conn.receive() == str(number)
        assert conn.status is Status.OPEN
        nursery.cancel_scope.cancel()
