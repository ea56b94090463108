"""The send queue is bounded: senders wait, replies stop the reader, and what never left is told."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.raw_server import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    MakeTransport,
    encode,
    every_transport,
    lockstep,
    numbered,
    raw_connection,
    texts,
)
from trioglock import (
    ConnectionClosedError,
    HeartbeatTimeout,
    Reply,
    Socket,
)

Clock = trio.testing.MockClock


# The send_queue.


@every_transport
async def test_a_full_outbox_makes_senders_wait(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """Past ``write_limit`` bytes ``send`` waits and ``send_nowait`` says so; then all goes on."""
    async with raw_connection(
        streams=lockstep, transport=transport(), write_limit=100, ping_interval=None
    ) as (conn, peer):
        for number in range(10):
            conn.send_nowait(f"{number:010}")
        with pytest.raises(trio.WouldBlock):
            conn.send_nowait("x")
        with trio.move_on_after(1) as scope:
            await conn.send("x")
        assert scope.cancelled_caught
        assert conn.statistics().send_queue_bytes == 100
        for number in range(10):
            assert (await peer.next()).payload == b"%010d" % number
        await trio.testing.wait_all_tasks_blocked()
        assert conn.statistics().send_queue_bytes == 0
        conn.send_nowait("again")
        assert (await peer.next()).payload == b"again"


async def test_many_senders_keep_the_outbox_bounded_and_their_own_order(
    autojump_clock: Clock,
) -> None:
    """Fifty tasks and room for a few messages: never more than one message past the limit."""
    async with raw_connection(streams=lockstep, write_limit=1000, ping_interval=None) as (
        conn,
        peer,
    ):
        depths: list[int] = []
        got: list[list[str]] = [[] for _ in range(50)]

        async def sender(name: int) -> None:
            for number in range(10):
                await conn.send(f"{name} {number} {'x' * 90}")
                depths.append(conn.statistics().send_queue_bytes)

        async with trio.open_nursery() as nursery:
            for name in range(50):
                nursery.start_soon(sender, name)
            for _ in range(500):
                sender_name, number, _ = (await peer.next()).payload.decode().split()
                got[int(sender_name)].append(number)
        assert max(depths) < 1100
        assert got == [numbered(10)] * 50


async def test_a_message_larger_than_the_outbox_passes(autojump_clock: Clock) -> None:
    """The limit is a mark, not the largest message."""
    async with (
        raw_connection(streams=lockstep, write_limit=10, ping_interval=None) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(conn.send, "x" * 100_000)
        assert len((await peer.next()).payload) == 100_000


@every_transport
async def test_flush_waits_for_what_was_queued_before_it(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """It returns when the peer's side has taken the last byte, and not before."""
    async with raw_connection(streams=lockstep, transport=transport(), ping_interval=None) as (
        conn,
        peer,
    ):
        flushed: list[float] = []

        async def send_and_flush(delay: float) -> None:
            await trio.sleep(delay)
            await conn.send("x")
            await conn.flush()
            flushed.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_flush, 0)
            nursery.start_soon(send_and_flush, 1)
            await trio.sleep(5)
            assert flushed == []
            read_at = trio.current_time()
            for _ in range(2):
                assert (await peer.next()).opcode == TEXT
                await trio.sleep(1)
        assert min(flushed) >= read_at
        await conn.flush()


class EchoHook(Socket[None]):
    """Sends everything back, tenfold."""

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return Reply(*[frame] * 10), state


@every_transport
async def test_replies_that_nobody_takes_stop_reading(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """An echo to a peer that floods and does not read stays small, and goes on when it reads."""
    messages, sent = ["x" * 100] * 100, list[str]()
    async with (
        raw_connection(
            EchoHook(),
            streams=lockstep,
            transport=transport(),
            write_limit=5000,
            ping_interval=None,
            write_timeout=None,
        ) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, messages, sent)
        await trio.sleep(1)
        assert len(sent) <= 10
        assert conn.statistics().send_queue_bytes <= 7000
        for _ in range(1000):
            assert len((await peer.next()).payload) == 100


async def test_a_flood_of_pings_to_a_peer_that_does_not_read_stays_small(
    autojump_clock: Clock,
) -> None:
    """A hundred thousand pings: at most so many pongs wait as the standard's latest need."""
    async with raw_connection(streams=lockstep, ping_interval=None, write_timeout=None) as (
        _,
        peer,
    ):
        for _ in range(100):
            await peer.send(encode(PING, b"ping") * 1000)
        await peer.send(encode(PING, b"last"))
        await trio.testing.wait_all_tasks_blocked()
        pongs = 1
        while (await peer.next()).payload != b"last":
            pongs += 1
        assert pongs < 300


async def test_our_ping_survives_a_flood_of_pings(autojump_clock: Clock) -> None:
    """Pongs that pile up may push out older pongs, not the ping that a task waits for."""
    async with raw_connection(streams=lockstep, ping_interval=None, write_timeout=None) as (
        conn,
        peer,
    ):
        await conn.send("in the way")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.ping)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(encode(PING, b"flood") * 1000 + texts("done"))
            assert await conn.receive() == "done"
            with trio.fail_after(10):
                while (frame := await peer.next()).opcode != PING:
                    pass
                await peer.send(encode(PONG, frame.payload))


# What never left.


@every_transport
async def test_unsent_and_in_doubt_account_for_every_message(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """A peer that never reads: what was queued and what was being written is given back."""
    async with raw_connection(
        streams=lockstep,
        transport=transport(),
        ping_interval=1,
        ping_timeout=1,
        write_limit=2**20,
    ) as (conn, _):
        for number in range(20):
            await conn.send(f"{number} {'x' * 10_000}")
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.flush()
        assert isinstance(caught.value.cause, HeartbeatTimeout)
        lost = (*caught.value.in_doubt, *caught.value.unsent)
        assert [str(message).split()[0] for message in lost] == numbered(20)
        assert len(caught.value.in_doubt) <= 7
        assert conn.statistics().messages_sent == 0
        assert conn.statistics().unsent == len(caught.value.unsent)


async def test_unsent_after_a_remote_close(autojump_clock: Clock) -> None:
    """What still waited when the peer closed is given back, not sent behind its Close."""
    async with raw_connection(streams=lockstep, ping_interval=None, write_limit=2**20) as (
        conn,
        peer,
    ):
        await conn.send("x" * 70_000)
        await conn.send("one")
        await conn.send("two")
        await trio.testing.wait_all_tasks_blocked()
        await peer.close(4000)
        frames = [await peer.next(), await peer.next()]
        assert [frame.opcode for frame in frames] == [TEXT, CLOSE]
        await peer.drop()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.unsent == ("one", "two")


async def test_our_close_goes_behind_what_was_queued(autojump_clock: Clock) -> None:
    """``aclose`` sends everything first."""
    async with raw_connection(streams=lockstep, ping_interval=None) as (conn, peer):
        for number in range(20):
            await conn.send(str(number))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.aclose)
            frames = await peer.answer()
        assert [frame.payload.decode() for frame in frames[:-1]] == numbered(20)
        assert frames[-1].code == 1000
        assert conn.statistics().unsent == 0
