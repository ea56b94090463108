"""The limit of the receive queue and the overflow policies."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    CLOSE,
    MakeTransport,
    SlowReceive,
    every_transport,
    lockstep,
    numbered,
    raw_connection,
)
from tests.hooks.helpers import Scripted
from trioglock import ConnectionClosedError, Status


@every_transport
async def test_a_full_receive_queue_pauses_reading(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """With ``wait`` the peer has to wait soon after ``max_queue`` messages; none is lost."""
    messages, sent = numbered(200), list[str]()
    async with (
        raw_connection(streams=lockstep, transport=transport(), max_queue=10) as (conn, peer),
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


async def test_a_slow_receiver_keeps_the_queue_bounded(autojump_clock: MockClock) -> None:
    """A slow receiver never finds more than ``max_queue`` messages."""
    messages = numbered(100)
    async with (
        raw_connection(streams=lockstep, max_queue=8) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, messages, [])
        depths = []
        for message in messages:
            await trio.sleep(1)
            depths.append(conn.statistics().receive_queue)
            assert await conn.receive() == message
    assert max(depths) == 8


async def test_without_a_limit_reading_does_not_pause(autojump_clock: MockClock) -> None:
    """With ``max_queue=None`` all messages are kept."""
    messages, sent = numbered(1000), list[str]()
    async with raw_connection(streams=lockstep, max_queue=None) as (conn, peer):
        await peer.push(messages, sent)
        await trio.testing.wait_all_tasks_blocked()
        assert conn.statistics().receive_queue == 1000
        assert await conn.receive_batch() == messages


@pytest.mark.parametrize("at_once", [True, False], ids=["one write", "many writes"])
@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", slice(-5, None)), ("drop_newest", slice(5))]
)
async def test_dropping_policies(
    overflow: Any, kept: slice, at_once: bool, autojump_clock: MockClock
) -> None:
    """The latest or the first ``max_queue`` messages are kept, the others are counted."""
    messages = numbered(50)
    async with raw_connection(streams=lockstep, max_queue=5, overflow=overflow) as (conn, peer):
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


async def test_nothing_is_dropped_up_to_the_limit(autojump_clock: MockClock) -> None:
    """Every policy keeps exactly ``max_queue`` messages."""
    for overflow in ("drop_oldest", "drop_newest", "close"):
        async with raw_connection(max_queue=5, overflow=overflow) as (conn, peer):
            await peer.text(*numbered(5))
            await trio.sleep(1)
            assert conn.statistics().dropped == 0
            assert await conn.receive_batch() == numbered(5)
            assert conn.status is Status.OPEN


async def test_overflow_close(autojump_clock: MockClock) -> None:
    """The connection closes with 1008, the drop is counted, and kept messages can be received."""
    async with raw_connection(max_queue=5, overflow="close", close_timeout=2) as (conn, peer):
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


async def test_overflow_close_by_an_async_hook(autojump_clock: MockClock) -> None:
    """The connection closes immediately, although the peer sends nothing more."""
    async with raw_connection(SlowReceive(1), max_queue=3, overflow="close", close_timeout=2) as (
        conn,
        peer,
    ):
        for number in range(4):
            await peer.text(str(number))
            await trio.sleep(2)
        with trio.fail_after(1):
            assert (await peer.next()).code == 1008
        assert conn.statistics().dropped == 1


async def test_overflow_close_by_a_cast(autojump_clock: MockClock) -> None:
    """Messages delivered by casts count like those from the peer."""
    async with raw_connection(
        Scripted(handle_cast="note"), max_queue=3, overflow="close", close_timeout=2
    ) as (
        conn,
        peer,
    ):
        for number in range(4):
            conn.cast(number)
        with trio.fail_after(1):
            assert (await peer.next()).code == 1008
        assert conn.statistics().dropped == 1


async def test_slow_hooks_pause_reading(autojump_clock: MockClock) -> None:
    """At most ``max_queue`` messages wait for an async hook; then the peer has to wait."""
    messages, sent = numbered(30), list[str]()
    async with (
        raw_connection(SlowReceive(1), streams=lockstep, max_queue=4) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.push, messages, sent)
        await trio.sleep(0.5)
        assert len(sent) <= 6
        assert conn.statistics().mailbox <= 6
        assert [await conn.receive() for _ in messages] == messages


async def test_undelivered_messages_do_not_count(autojump_clock: MockClock) -> None:
    """Reading does not pause for messages that hooks do not deliver."""
    async with raw_connection(Scripted(), streams=lockstep, max_queue=1) as (conn, peer):
        await peer.push(numbered(500), [])
        await trio.testing.wait_all_tasks_blocked()
        assert conn.state == 501
        assert conn.statistics().receive_queue == 0
