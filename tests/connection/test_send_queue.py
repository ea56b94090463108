"""The limit of the send queue, flush, unsent and in_doubt."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    EchoHook,
    MakeTransport,
    encode,
    every_transport,
    lockstep,
    numbered,
    raw_connection,
    texts,
)
from trioglock import ConnectionClosedError, HeartbeatTimeout, Socket, connect
from trioglock.testing import MockServer


async def test_a_full_send_queue_makes_senders_wait(autojump_clock: MockClock) -> None:
    """At ``write_limit`` bytes ``send`` waits and ``send_nowait`` raises."""
    async with raw_connection(streams=lockstep, write_limit=100) as (conn, peer):
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


async def test_many_senders_keep_the_queue_bounded(autojump_clock: MockClock) -> None:
    """Fifty tasks exceed the limit by at most one message, and keep their order."""
    async with raw_connection(streams=lockstep, write_limit=1000) as (conn, peer):
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


async def test_a_message_larger_than_the_limit(autojump_clock: MockClock) -> None:
    """The limit does not restrict the size of a message."""
    async with (
        raw_connection(streams=lockstep, write_limit=10) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(conn.send, "x" * 100_000)
        assert len((await peer.next()).payload) == 100_000


@every_transport
async def test_flush_waits_for_earlier_messages(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """It returns when the last byte was written, not earlier."""
    async with raw_connection(streams=lockstep, transport=transport()) as (conn, peer):
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


async def test_unread_replies_pause_reading(autojump_clock: MockClock) -> None:
    """An echo to a peer that does not read stays small, and continues when it reads."""
    messages, sent = ["x" * 100] * 100, list[str]()
    async with (
        raw_connection(EchoHook(10), streams=lockstep, write_limit=5000, write_timeout=None) as (
            conn,
            peer,
        ),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, messages, sent)
        await trio.sleep(1)
        assert len(sent) <= 10
        assert conn.statistics().send_queue_bytes <= 7000
        for _ in range(1000):
            assert len((await peer.next()).payload) == 100


async def test_a_flood_of_pings_keeps_the_queue_small(autojump_clock: MockClock) -> None:
    """Twenty thousand pings leave only the latest pongs in the queue."""
    async with raw_connection(streams=lockstep, write_timeout=None) as (_, peer):
        for _ in range(20):
            await peer.send(encode(PING, b"ping") * 1000)
        await peer.send(encode(PING, b"last"))
        await trio.testing.wait_all_tasks_blocked()
        pongs = 1
        while (await peer.next()).payload != b"last":
            pongs += 1
        assert pongs < 300


async def test_our_ping_survives_a_flood_of_pings(autojump_clock: MockClock) -> None:
    """Queued pongs may replace older pongs, but not our ping."""
    async with raw_connection(streams=lockstep, write_timeout=None) as (conn, peer):
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


@every_transport
async def test_unsent_and_in_doubt_account_for_every_message(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """For a peer that never reads, both contain all messages together."""
    async with raw_connection(
        streams=lockstep, transport=transport(), ping_interval=1, ping_timeout=1, write_limit=2**20
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


async def test_unsent_after_a_remote_close(autojump_clock: MockClock) -> None:
    """Messages that are queued when the peer closes are unsent."""
    async with raw_connection(streams=lockstep, write_limit=2**20) as (conn, peer):
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


async def test_senders_do_not_wait_while_the_socket_accepts_data() -> None:
    """Tasks that send in the same turn fill the queue several times, but never wait."""
    sent: list[int] = []

    async with MockServer() as server, connect(server.url, write_limit=1000, proxy=None) as conn:

        async def send(number: int) -> None:
            await conn.send(f"{number:0300}")
            sent.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(send, number)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            assert len(sent) == 50
        await conn.flush()
        assert {int(await server.receive()) for _ in range(50)} == set(sent)


async def test_later_senders_do_not_overtake_waiting_ones(autojump_clock: MockClock) -> None:
    """Even if the queue has space again when they come."""
    sent: list[str] = []

    async with raw_connection(streams=lockstep, write_limit=1000) as (conn, peer):

        async def send(name: str) -> None:
            await conn.send(name * 300)
            sent.append(name)

        async with trio.open_nursery() as nursery:
            for name in "abcdefghij":
                nursery.start_soon(send, name)
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(10):
                assert (await peer.next()).opcode == TEXT
                nursery.start_soon(send, "z")
            for _ in range(10):
                await peer.next()
        # Senders that are woken together run in any order.
        assert set(sent[:8]) <= set("abcdefghij")
        assert sent.index("j") < 13


async def test_a_sender_that_sends_nothing_passes_its_turn_on(autojump_clock: MockClock) -> None:
    """Neither a cancelled sender, nor one whose hook drops the message, blocks those behind it."""

    class Hooks(Socket[None]):
        def handle_send(self, message: str, state: None) -> tuple[str | None, None]:
            if message == "raise":
                raise ValueError(message)
            return (None if message == "drop" else message), state

    received: list[str] = []

    async with raw_connection(Hooks(), streams=lockstep, write_limit=1000) as (conn, peer):

        async def send(message: str) -> None:
            with suppress(ValueError):
                await conn.send(message)
            received.append(message[:5])

        async with trio.open_nursery() as nursery:
            await conn.send("x" * 200_000)
            for _ in range(20):
                for message in ("drop", "raise", "last" * 10):
                    nursery.start_soon(send, message)
            cancelled = trio.CancelScope()

            async def send_cancelled() -> None:
                with cancelled:
                    await conn.send("never")
                    pytest.fail("it was not cancelled")

            nursery.start_soon(send_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            cancelled.cancel()
            for _ in range(21):
                await peer.next()
        assert len(received) == 60
