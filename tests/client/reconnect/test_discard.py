"""discard_unsent(): messages that must not be sent late."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.client.reconnect.helpers import Clock, Notes, drop, frames, joined
from trioglock import ConnectionClosed, MemoryTransport, PreparedMessage, Stop
from trioglock.disconnect import Disconnect


class Trader(Notes):
    """Discards queued orders when the connection is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.taken_back: list[Any] = []

    def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
        self.taken_back += self.streams[-1].connection.discard_unsent()
        return None, state


async def test_what_is_taken_back_is_not_sent(autojump_clock: Clock) -> None:
    """Returns all queued messages, oldest first; later ones are sent."""
    net = MemoryTransport()
    async with joined(net) as conn:
        await drop(await net.accept())
        await conn.send("old")
        await conn.send(b"older")
        conn.send_frame_nowait(PreparedMessage("prepared"))
        assert conn.discard_unsent() == ("old", b"older", "prepared")
        assert conn.discard_unsent() == ()
        await conn.send("new")
        assert (conn.statistics().send_queue, conn.statistics().send_queue_bytes) == (1, 3)
        assert await frames(await net.accept()) == ["new"]
    assert conn.statistics().unsent == 0


async def test_a_hook_takes_back_what_an_outage_would_delay(autojump_clock: Clock) -> None:
    """In handle_disconnect; a message that is being written is in doubt, and not returned."""
    net, trader = MemoryTransport(capacity=0), Trader()
    async with joined(net, trader) as conn:
        far = await net.accept()
        await conn.send("in doubt")
        await conn.send("queued")
        await drop(far)
        assert trader.taken_back == ["queued"]
        assert conn.statistics().in_doubt == 1
        await conn.send("new")
        assert await frames(await net.accept()) == ["new"]


async def test_a_flush_of_what_was_taken_back_raises(autojump_clock: Clock) -> None:
    """It was not written; a flush of later messages succeeds."""
    net = MemoryTransport()
    flushed: list[str] = []
    async with joined(net) as conn, trio.open_nursery() as nursery:
        await drop(await net.accept())

        async def flush() -> None:
            with pytest.raises(ConnectionClosed):
                await conn.flush()
            flushed.append("raised")

        await conn.send("old")
        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked()
        conn.discard_unsent()
        await trio.testing.wait_all_tasks_blocked()
        assert flushed == ["raised"]
        await conn.send("new")
        far = await net.accept()
        await conn.flush()
        assert await frames(far) == ["new"]


async def test_senders_who_wait_get_the_room(autojump_clock: Clock) -> None:
    """Discarding frees the send queue."""
    net = MemoryTransport()
    async with joined(net, write_limit=4) as conn, trio.open_nursery() as nursery:
        await drop(await net.accept())
        await conn.send("full")
        nursery.start_soon(conn.send, "waits")
        await trio.testing.wait_all_tasks_blocked()
        assert conn.discard_unsent() == ("full",)
        assert await frames(await net.accept()) == ["waits"]


async def test_taking_back_at_the_end_leaves_nothing_unsent(autojump_clock: Clock) -> None:
    """ConnectionClosed.unsent has the messages that were not discarded."""

    class Stops(Trader):
        def handle_disconnect(self, reason: Disconnect, state: int) -> Any:
            _, state = super().handle_disconnect(reason, state)
            return Stop(), state

    net, stops = MemoryTransport(capacity=0), Stops()
    async with joined(net, stops) as conn:
        far = await net.accept()
        await conn.send("in doubt")
        await conn.send("queued")
        await drop(far)
        with pytest.raises(ConnectionClosed) as caught:
            await conn.send("x")
        assert (caught.value.unsent, caught.value.in_doubt) == ((), ("in doubt",))
        assert stops.taken_back == ["queued"]
