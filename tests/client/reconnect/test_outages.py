"""Outages: what survives them, what waits for their end, and what remains in doubt."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.client.reconnect.helpers import Clock, Notes, drop, frames, joined
from trioglock import (
    Close,
    ConnectionClosedError,
    MemoryTransport,
    Ping,
    Status,
)


async def outage(net: MemoryTransport, conn: Any) -> None:
    """The link is lost."""
    await drop(await net.accept())
    assert conn.status is Status.RECONNECTING


# What survives.


async def test_the_state_survives(autojump_clock: Clock) -> None:
    """``init_stream`` runs once; the next frame gets the state of the last one."""
    net, notes = MemoryTransport(), Notes()
    async with joined(net, notes) as conn:
        for word in ("a", "b", "c"):
            far = await net.accept()
            await far.write([word])
            assert await conn.receive() == word
            await drop(far)
        assert conn.state == 3
    assert notes.begun == 1
    assert [stream.attempt for stream in notes.streams] == [1, 2, 3]


async def test_the_inbox_survives(autojump_clock: Clock) -> None:
    """What was delivered before the loss is received after it, first."""
    net = MemoryTransport()
    async with joined(net) as conn:
        far = await net.accept()
        await far.write(["a", "b"])
        await drop(far)
        await (await net.accept()).write(["c"])
        await trio.testing.wait_all_tasks_blocked()
        assert await conn.receive_batch() == ["a", "b", "c"]


async def test_a_full_inbox_does_not_lose_what_had_arrived(autojump_clock: Clock) -> None:
    """A slow application receives the messages of the old link before those of the new one."""
    net = MemoryTransport(capacity=2)
    got: list[Any] = []

    async def serve(words: str) -> None:
        far = await net.accept()
        await far.write(list(words))
        await far.send_eof()

    async with joined(net, max_queue=1) as conn, trio.open_nursery() as nursery:
        nursery.start_soon(serve, "abcdef")
        while len(got) < 6:
            await trio.sleep(5)
            got.append(await conn.receive())
        nursery.start_soon(serve, "gh")
        got.extend([await conn.receive(), await conn.receive()])
        conn.abort()
    assert "".join(got) == "abcdefgh"


async def test_a_waiting_receiver_gets_what_the_new_link_brings(autojump_clock: Clock) -> None:
    """``receive`` waits through the outage."""
    net = MemoryTransport()
    got: list[Any] = []
    async with joined(net) as conn, trio.open_nursery() as nursery:

        async def receive() -> None:
            got.append(await conn.receive())

        nursery.start_soon(receive)
        await outage(net, conn)
        await (await net.accept()).write(["back"])
    assert got == ["back"]


async def test_background_tasks_and_timers_survive(autojump_clock: Clock) -> None:
    """``start_soon`` and ``cast_after`` belong to the connection, not to a link."""

    class Timed(Notes):
        def handle_cast(self, message: Any, state: int) -> Any:
            return message, state

    net = MemoryTransport()
    async with joined(net, Timed()) as conn:
        conn.cast_after(5, "timer")
        done = trio.Event()

        async def task() -> None:
            await trio.sleep(6)
            done.set()

        conn.start_soon(task)
        await outage(net, conn)
        assert await conn.receive() == "timer"
        await done.wait()


async def test_the_mailbox_works_during_an_outage(autojump_clock: Clock) -> None:
    """``call`` is answered while there is no link."""

    class Answers(Notes):
        def handle_call(self, request: Any, state: int) -> Any:
            return f"re: {request}", state

    net = MemoryTransport()
    async with joined(net, Answers()) as conn:
        await outage(net, conn)
        assert await conn.call("x") == "re: x"
        assert conn.status is Status.RECONNECTING


# What waits.


async def test_messages_of_an_outage_go_out_in_order(autojump_clock: Clock) -> None:
    """They are queued immediately, and sent over the new link before later ones."""
    net = MemoryTransport()
    async with joined(net) as conn:
        await outage(net, conn)
        for number in range(20):
            await conn.send(f"{number}")
        assert trio.current_time() < 1
        conn.send_nowait("20")
        assert conn.statistics().send_queue == 21
        far = await net.accept()
        await conn.send("21")
        assert await frames(far) == [f"{number}" for number in range(22)]
        assert conn.statistics().messages_sent == 22


async def test_what_waits_behind_a_remote_close_goes_to_the_next_link(
    autojump_clock: Clock,
) -> None:
    """Nothing is written after our Close frame; the queue is kept."""
    net = MemoryTransport(capacity=1)
    async with joined(net, write_limit=1000) as conn:
        far = await net.accept()
        for word in ("a", "b", "c"):
            await conn.send(word)
            await trio.testing.wait_all_tasks_blocked()
        await far.write([Close(1012)])
        await trio.testing.wait_all_tasks_blocked()
        await conn.send("d")
        old = await frames(far)
        assert old[-1] == Close(1012)
        await drop(far)
        new = await frames(await net.accept())
        assert old[:-1] + new == ["a", "b", "c", "d"]


async def test_send_waits_for_room_during_an_outage(autojump_clock: Clock) -> None:
    """The send queue is bounded during an outage: ``send`` waits, ``send_nowait`` raises."""
    net = MemoryTransport()
    async with joined(net, write_limit=10) as conn:
        await outage(net, conn)
        await conn.send("x" * 10)
        with pytest.raises(trio.WouldBlock):
            conn.send_nowait("y")
        await conn.send("z")
        assert trio.current_time() >= 1
        assert await frames(await net.accept()) == ["x" * 10, "z"]


async def test_a_cancelled_send_of_an_outage_queues_nothing(autojump_clock: Clock) -> None:
    """The message of a ``send`` that waits for room is whole or not at all."""
    net = MemoryTransport()
    async with joined(net, write_limit=10) as conn:
        await outage(net, conn)
        await conn.send("x" * 10)
        with trio.move_on_after(0.5) as scope:
            await conn.send("y")
        assert scope.cancelled_caught
        assert await frames(await net.accept()) == ["x" * 10]


async def test_flush_waits_for_the_new_link(autojump_clock: Clock) -> None:
    """What was queued during an outage is flushed after it."""
    net = MemoryTransport()
    async with joined(net) as conn:
        await outage(net, conn)
        await conn.send("a")
        await conn.flush()
        assert trio.current_time() >= 1
        assert await frames(await net.accept()) == ["a"]


async def test_a_ping_needs_a_link(autojump_clock: Clock) -> None:
    """During an outage ``ping`` raises, and one in flight does so when its link is lost."""
    net = MemoryTransport()
    async with joined(net) as conn:
        far = await net.accept()
        async with trio.open_nursery() as nursery:

            async def in_flight() -> None:
                with pytest.raises(ConnectionClosedError):
                    await conn.ping()

            nursery.start_soon(in_flight)
            await trio.testing.wait_all_tasks_blocked()
            await drop(far)
        with pytest.raises(ConnectionClosedError):
            await conn.ping()
        assert not [f for f in await frames(await net.accept()) if isinstance(f, Ping)]


# Messages in doubt.


async def test_what_was_being_written_is_in_doubt(autojump_clock: Clock) -> None:
    """It is counted, not sent twice, and the messages behind it are sent."""
    net = MemoryTransport(capacity=1)
    async with joined(net) as conn:
        far = await net.accept()
        await conn.send("a")
        await trio.testing.wait_all_tasks_blocked()
        for word in ("b", "c"):
            conn.send_nowait(word)  # both in one batch
        await trio.testing.wait_all_tasks_blocked()
        await conn.send("d")  # behind the batch that is stuck
        await drop(far)
        assert await frames(await net.accept()) == ["d"]
        seen = conn.statistics()
        assert (seen.in_doubt, seen.messages_sent, seen.reconnects) == (2, 2, 1)
        conn.abort()


async def test_a_flush_of_what_is_in_doubt_raises(autojump_clock: Clock) -> None:
    """Whether it arrived is unknown, so ``flush`` raises."""
    net = MemoryTransport(capacity=1)
    async with joined(net) as conn:
        far = await net.accept()
        await conn.send("a")
        await trio.testing.wait_all_tasks_blocked()
        await conn.send("b")
        async with trio.open_nursery() as nursery:

            async def flush() -> None:
                with pytest.raises(ConnectionClosedError):
                    await conn.flush()

            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            await drop(far)
        await conn.send("c")
        await conn.flush()
        conn.abort()


async def test_figures_add_up_over_all_links(autojump_clock: Clock) -> None:
    """Messages and bytes of earlier links stay counted."""
    net = MemoryTransport()
    async with joined(net) as conn:
        for number in range(3):
            far = await net.accept()
            await far.write(["12345678"])
            await conn.receive()
            await conn.send("1234")
            await conn.flush()
            await drop(far)
            seen = conn.statistics()
            assert (seen.messages_sent, seen.messages_received) == (number + 1, number + 1)
            assert (seen.bytes_sent, seen.bytes_received) == (6 * number + 6, 10 * number + 10)
            assert seen.reconnects == number
