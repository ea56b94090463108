"""Consecutive links: the old link cannot affect the new one."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.client.reconnect.helpers import (
    URL,
    Clock,
    Notes,
    drop,
    frames,
    joined,
    policy,
    remote_close,
)
from tests.connection.raw_server import CLOSE, TEXT, RawPeer, encode, texts, unbounded
from trioglock import (
    HeartbeatTimeout,
    LocalClose,
    MemoryTransport,
    Ping,
    Pong,
    ProtocolViolation,
    Status,
    connect,
)
from trioglock.testing import MemoryLink, MockServer


async def pings_of(far: MemoryLink) -> list[Ping]:
    return [frame for frame in await frames(far) if isinstance(frame, Ping)]


async def test_scenario_24_an_old_pong_answers_no_new_ping(autojump_clock: Clock) -> None:
    """The pong of the old link's ping arrives over the new one: it measures nothing."""
    net = MemoryTransport()
    async with joined(net, ping_interval=5, ping_timeout=100) as conn:
        old = await net.accept()
        await trio.sleep(7)
        [ping] = await pings_of(old)
        await drop(old)
        new = await net.accept()
        await trio.sleep(6)
        [other] = await pings_of(new)
        assert other != ping
        await new.write([Pong(ping.payload)])
        await trio.testing.wait_all_tasks_blocked()
        assert conn.latency is None
        await new.write([Pong(other.payload)])
        await trio.testing.wait_all_tasks_blocked()
        assert conn.latency is not None


async def test_scenario_24_an_old_ping_does_not_expire_on_the_new_link(
    autojump_clock: Clock,
) -> None:
    """An unanswered ping is dropped with its link: the new link has its own timeout."""
    net, notes = MemoryTransport(), Notes()
    async with joined(net, notes, ping_interval=10, ping_timeout=10) as conn:
        old = await net.accept()
        await trio.sleep(19)
        assert await pings_of(old)
        await drop(old)
        new = await net.accept()
        began = trio.current_time()
        await trio.sleep(9)
        assert conn.status is Status.OPEN
        assert not await pings_of(new)
        await trio.sleep(20)
        [_, expired] = notes.losses
        assert isinstance(expired, HeartbeatTimeout)
        assert trio.current_time() - began > 20


async def test_pongs_for_the_old_link_are_not_sent_over_the_new(autojump_clock: Clock) -> None:
    """A ping that could not be answered any more stays unanswered."""
    net = MemoryTransport(capacity=1)
    async with joined(net) as conn:
        old = await net.accept()
        for word in ("a", "b"):
            await conn.send(word)
            await trio.testing.wait_all_tasks_blocked()
        await old.write([Ping(b"old")])
        await trio.testing.wait_all_tasks_blocked()
        await drop(old)
        assert await frames(await net.accept()) == []


async def test_a_violation_of_the_old_link_leaves_the_new_one_alone(
    autojump_clock: Clock,
) -> None:
    """The peer gets a Close frame, and a new link is opened."""
    notes = Notes()
    send, peers = trio.open_memory_channel[RawPeer](9)

    async def open_stream() -> trio.abc.Stream:
        near, far = unbounded()
        await send.send(RawPeer(far))
        return near

    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            first = await peers.receive()
            await first.accept(rest=encode(TEXT, b"bad", rsv=4))
            frame = await first.next()
            assert (frame.opcode, frame.code) == (CLOSE, 1002)
            await first.drop()
            second = await peers.receive()
            await second.accept(rest=texts("fine"))
            await second.answer()

        nursery.start_soon(serve)
        async with connect(URL, notes, stream=open_stream, reconnect=policy()) as conn:
            assert await conn.receive() == "fine"
            assert conn.status is Status.OPEN
    assert [type(loss) for loss in notes.losses] == [ProtocolViolation, LocalClose]


async def test_scenario_25_a_dead_link_is_aborted(autojump_clock: Clock) -> None:
    """Heartbeat expiry sends no Close frame and waits for none."""
    net, notes = MemoryTransport(), Notes()
    async with joined(net, notes, ping_interval=5, ping_timeout=5, close_timeout=100):
        old = await net.accept()
        await net.accept()
        assert trio.current_time() == 5 + 5 + 1
        assert {type(frame) for frame in await frames(old)} == {Ping}
    assert isinstance(notes.losses[0], HeartbeatTimeout)


# What else goes on as before.


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", ["3", "4"]), ("drop_newest", ["1", "2"])]
)
async def test_overflow_works_after_a_reconnect(
    overflow: Any, kept: list[str], autojump_clock: Clock
) -> None:
    """The limit holds for both links together, and drops are counted over both."""
    net = MemoryTransport()
    async with joined(net, max_queue=2, overflow=overflow) as conn:
        for words in (["1", "2", "3"], ["4"]):
            far = await net.accept()
            await far.write(words)
            await drop(far)
        assert await conn.receive_batch() == kept
        assert conn.statistics().dropped == 2
        conn.abort()


async def test_an_overflow_that_closes_is_no_loss(autojump_clock: Clock) -> None:
    """It is our own close, so no reconnect follows."""
    net = MemoryTransport()
    async with joined(net, max_queue=1, overflow="close", close_timeout=1) as conn:
        await drop(await net.accept())
        await (await net.accept()).write(["1", "2"])
        await conn.wait_closed()
    assert len(net.dialed) == 2


async def test_backpressure_works_after_a_reconnect(autojump_clock: Clock) -> None:
    """A full receive queue stops reading on the new link too, and resumes it."""
    net = MemoryTransport(capacity=1)
    words = [str(number) for number in range(10)]
    async with joined(net, max_queue=1) as conn, trio.open_nursery() as nursery:
        await drop(await net.accept())
        far = await net.accept()
        with trio.move_on_after(5) as scope:
            await far.write(words)
        assert scope.cancelled_caught
        nursery.start_soon(far.write, ["last"])
        got: list[Any] = []
        while "last" not in got:
            got.append(await conn.receive())
        assert got[:-1] == words[: len(got) - 1]
        conn.abort()


async def test_the_heartbeat_of_a_quiet_new_link(autojump_clock: Clock) -> None:
    """A peer that answers stays connected, before and after a reconnect."""
    async with (
        MockServer(memory=True) as server,
        connect(server.url, stream=server.open_stream, reconnect=policy()) as conn,
    ):
        first = await server.accept()
        await trio.sleep(500)
        await first.abort()
        await server.accept()
        await trio.sleep(500)
        assert conn.status is Status.OPEN
        assert conn.statistics().reconnects == 1
        assert conn.latency is not None


async def test_a_full_inbox_holds_the_next_link_too(autojump_clock: Clock) -> None:
    """Reading without a limit after the peer's close ends with that link."""
    net = MemoryTransport()
    async with joined(net, max_queue=2) as conn:
        await remote_close(await net.accept(), 1012)
        second = await net.accept()
        for number in range(5):
            await second.write([str(number)])
            await trio.sleep(1)
        assert conn.statistics().dropped == 0
        assert conn.statistics().receive_queue == 2
        assert [await conn.receive() for _ in range(5)] == list("01234")
