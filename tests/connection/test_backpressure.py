"""The receive queue is bounded: what a full one does, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.connection.raw_server import (
    CLOSE,
    MakeTransport,
    every_transport,
    lockstep,
    numbered,
    raw_connection,
)
from trioglock import (
    ConnectionClosedError,
    Socket,
    Status,
)

Clock = trio.testing.MockClock


# The receive_queue.


@every_transport
async def test_a_full_inbox_stops_reading_and_an_empty_one_goes_on(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """``wait``: the peer is stopped soon after ``max_queue`` messages; none is lost, in order."""
    messages, sent = numbered(200), list[str]()
    async with (
        raw_connection(
            streams=lockstep, transport=transport(), max_queue=10, ping_interval=None
        ) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, messages, sent)
        await trio.sleep(1)
        assert conn.statistics().receive_queue == 10
        # The transport may hold a few that it has read ahead.
        assert 10 <= len(sent) <= 15
        assert [await conn.receive() for _ in messages] == messages
    assert conn.statistics().dropped == 0
    assert conn.statistics().messages_received == 200


async def test_taking_one_message_at_a_time_keeps_the_inbox_bounded(
    autojump_clock: Clock,
) -> None:
    """A slow reader never finds more than ``max_queue`` waiting."""
    messages = numbered(100)
    async with (
        raw_connection(streams=lockstep, max_queue=8, ping_interval=None) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, messages, [])
        depths = []
        for message in messages:
            await trio.sleep(1)
            depths.append(conn.statistics().receive_queue)
            assert await conn.receive() == message
    assert max(depths) == 8


async def test_without_a_limit_reading_never_stops(autojump_clock: Clock) -> None:
    """``max_queue=None``: all that comes is kept."""
    messages, sent = numbered(1000), list[str]()
    async with raw_connection(streams=lockstep, max_queue=None, ping_interval=None) as (
        conn,
        peer,
    ):
        await peer.push(messages, sent)
        await trio.testing.wait_all_tasks_blocked()
        assert conn.statistics().receive_queue == 1000
        assert await conn.receive_batch() == messages


@pytest.mark.parametrize("at_once", [True, False], ids=["one write", "many writes"])
@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", slice(-5, None)), ("drop_newest", slice(5))]
)
@every_transport
async def test_a_dropping_inbox_keeps_its_limit_and_counts(
    transport: MakeTransport, overflow: Any, kept: slice, at_once: bool, autojump_clock: Clock
) -> None:
    """The latest or the first ``max_queue`` messages stay, the others are counted; it reads on."""
    messages = numbered(50)
    async with raw_connection(
        streams=lockstep,
        transport=transport(),
        max_queue=5,
        overflow=overflow,
        ping_interval=None,
    ) as (conn, peer):
        if at_once:
            await peer.text(*messages)
        else:
            await peer.push(messages, [])
        await trio.testing.wait_all_tasks_blocked()
        assert conn.statistics().dropped == 45
        assert conn.statistics().messages_received == 50
        assert await conn.receive_batch() == messages[kept]
        await peer.text("next")
        assert await conn.receive() == "next"
        assert conn.status is Status.OPEN


async def test_nothing_is_dropped_up_to_the_limit(autojump_clock: Clock) -> None:
    """Exactly ``max_queue`` messages are kept by every policy."""
    for overflow in ("drop_oldest", "drop_newest", "close"):
        async with raw_connection(max_queue=5, overflow=overflow) as (conn, peer):
            await peer.text(*numbered(5))
            await trio.sleep(1)
            assert conn.statistics().dropped == 0
            assert await conn.receive_batch() == numbered(5)
            assert conn.status is Status.OPEN


@every_transport
async def test_an_inbox_may_close_when_it_overflows(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """``close``: 1008 to the peer, the drop is counted, what was kept stays readable."""
    async with raw_connection(
        transport=transport(), max_queue=5, overflow="close", close_timeout=2
    ) as (conn, peer):
        await peer.push(numbered(6), [])
        frame = await peer.next()
        assert (frame.opcode, frame.code) == (CLOSE, 1008)
        await peer.close(1008)
        await peer.drop()
        assert [await conn.receive() for _ in range(5)] == numbered(5)
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1008
        assert conn.statistics().dropped == 1


class Slow(Socket[None]):
    """Takes a second for each message."""

    async def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        await trio.sleep(1)
        return frame, state


async def test_an_inbox_closes_also_when_an_async_hook_fills_it(autojump_clock: Clock) -> None:
    """The message that is too much is delivered while the peer is silent: closed at once."""
    async with raw_connection(
        Slow(), max_queue=3, overflow="close", close_timeout=2, ping_interval=None
    ) as (conn, peer):
        for number in range(4):
            await peer.text(str(number))
            await trio.sleep(2)
        with trio.fail_after(1):
            assert (await peer.next()).code == 1008
        assert conn.statistics().dropped == 1


class Notes(Socket[None]):
    """Delivers what it is cast."""

    def handle_cast(self, message: Any, state: None) -> tuple[Any, None]:
        return message, state


async def test_an_inbox_closes_also_when_a_cast_fills_it(autojump_clock: Clock) -> None:
    """What casts deliver counts like what the peer sends."""
    async with raw_connection(
        Notes(), max_queue=3, overflow="close", close_timeout=2, ping_interval=None
    ) as (conn, peer):
        for number in range(4):
            conn.cast(number)
        with trio.fail_after(1):
            assert (await peer.next()).code == 1008
        assert conn.statistics().dropped == 1


async def test_slow_hooks_stop_reading(autojump_clock: Clock) -> None:
    """At most ``max_queue`` messages wait for an async hook; the peer is stopped meanwhile."""
    messages, sent = numbered(30), list[str]()
    async with (
        raw_connection(Slow(), streams=lockstep, max_queue=4, ping_interval=None) as (
            conn,
            peer,
        ),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, messages, sent)
        await trio.sleep(0.5)
        assert len(sent) <= 6
        assert conn.statistics().mailbox <= 6
        assert [await conn.receive() for _ in messages] == messages


class Quiet(Socket[int]):
    """Swallows everything and counts it."""

    def init_stream(self, info: Any) -> int:
        return 0

    def handle_receive(self, frame: Any, state: int) -> tuple[None, int]:
        return None, state + 1


async def test_what_hooks_swallow_fills_nothing(autojump_clock: Clock) -> None:
    """Nobody iterates and nothing stops: only delivered messages count."""
    async with raw_connection(Quiet(), streams=lockstep, max_queue=1, ping_interval=None) as (
        conn,
        peer,
    ):
        await peer.push(numbered(500), [])
        await trio.testing.wait_all_tasks_blocked()
        assert conn.state == 500
        assert conn.statistics().receive_queue == 0
