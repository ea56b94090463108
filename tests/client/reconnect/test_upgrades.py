"""Upgrades: ``handle_connect`` greets on each of them, before anything that was queued."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.client.reconnect.helpers import Clock, Notes, drop, frames, joined
from trioglock import (
    Close,
    ConnectionClosed,
    ConnectionInfo,
    HookError,
    LocalClose,
    MemoryTransport,
    Ping,
    Reply,
)


class Greets(Notes):
    """Says who it is on every upgrade."""

    def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
        self.streams.append(info)
        return Reply(f"hello {info.attempt}", f"after {state}"), state


async def test_the_greeting_goes_out_first(autojump_clock: Clock) -> None:
    """On each upgrade, before anything that was queued meanwhile."""
    net, greets = MemoryTransport(), Greets()
    async with joined(net, greets) as conn:
        far = await net.accept()
        assert await frames(far) == ["hello 1", "after 0"]
        await far.write(["x"])
        await conn.receive()
        await drop(far)
        await conn.send("queued")
        net.refuse_next()
        far = await net.accept()
        assert await frames(far) == ["hello 2", "after 1", "queued"]
    assert [stream.attempt for stream in greets.streams] == [1, 2]
    assert {stream.connection for stream in greets.streams} == {conn}


async def test_a_slow_greeting_goes_out_first(autojump_clock: Clock) -> None:
    """Also when the hook is async and takes its time: what is queued waits for it."""

    class Slow(Greets):
        async def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
            await trio.sleep(5)
            return super().handle_connect(info, state)

    net = MemoryTransport()
    async with joined(net, Slow()) as conn:
        await drop(await net.accept())
        await conn.send("queued")
        far = await net.accept()
        await conn.send("queued too")
        await trio.sleep(6)
        assert await frames(far) == ["hello 2", "after 0", "queued", "queued too"]
        conn.abort()


async def test_a_greeting_for_a_lost_link_is_not_sent_on_the_next(autojump_clock: Clock) -> None:
    """A link that is lost while the hook still runs gets no greeting; the next gets its own."""

    class Slow(Greets):
        async def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
            await trio.sleep(5)
            return super().handle_connect(info, state)

    net = MemoryTransport()
    async with joined(net, Slow()) as conn:
        await drop(await net.accept())
        second = await net.accept()
        await trio.sleep(1)
        await drop(second)
        third = await net.accept()
        await trio.sleep(10)
        assert await frames(third) == ["hello 3", "after 0"]
        conn.abort()


async def test_the_greeting_is_not_held_by_a_full_outbox(autojump_clock: Clock) -> None:
    """What was queued fills the send queue; the greeting is taken all the same."""
    net = MemoryTransport()
    async with joined(net, Greets(), write_limit=4) as conn:
        await drop(await net.accept())
        await conn.send("queued")
        assert await frames(await net.accept()) == ["hello 2", "after 0", "queued"]


async def test_a_greeting_with_a_ping_and_a_delivery(autojump_clock: Clock) -> None:
    """All results of ``handle_connect`` work on later upgrades as on the first."""

    class Both(Notes):
        def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
            return Reply("hello", Ping(b"x"), deliver=info.attempt), state

    net = MemoryTransport()
    async with joined(net, Both()) as conn:
        await drop(await net.accept())
        await conn.send("queued")
        seen = await frames(await net.accept())
        assert sorted(map(str, seen)) == sorted(map(str, ["hello", Ping(b"x"), "queued"]))
        assert seen.index("hello") < seen.index("queued")
        assert await conn.receive_batch() == [1, 2]


async def test_a_greeting_may_close(autojump_clock: Clock) -> None:
    """``Close`` from a later ``handle_connect`` is our own close: it is over."""

    class Enough(Notes):
        def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
            return Close(4000, "enough") if info.attempt > 1 else None, state

    net, enough = MemoryTransport(), Enough()
    async with joined(net, enough, close_timeout=1) as conn:
        await drop(await net.accept())
        assert await frames(await net.accept()) == [Close(4000, "enough")]
        await conn.wait_closed()
    assert [type(end) for end in enough.ends] == [LocalClose]
    assert len(net.dialed) == 2


async def test_a_greeting_that_raises_ends_it(autojump_clock: Clock) -> None:
    """1011 to the peer, and the exception out of the block."""

    class Broken(Notes):
        def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
            if info.attempt > 1:
                raise ValueError("no greeting")
            return None, state

    net, broken = MemoryTransport(), Broken()
    with pytest.raises(ValueError, match="no greeting"):
        async with joined(net, broken, close_timeout=1):
            await drop(await net.accept())
            await trio.sleep_forever()
    assert await frames(await net.accept()) == [Close(1011, "internal error")]
    assert [type(end) for end in broken.ends] == [HookError]
    assert len(net.dialed) == 2


async def test_a_greeting_belongs_to_its_link(autojump_clock: Clock) -> None:
    """What handle_connect replied and a lost link never took is not sent on the next one."""
    net, greets = MemoryTransport(capacity=0), Greets()
    async with joined(net, greets) as conn:
        far = await net.accept()
        # The link takes nothing: the greeting is with the writer, "queued" waits behind it.
        await conn.send("queued")
        await drop(far)
        far = await net.accept()
        assert await frames(far) == ["hello 2", "after 0", "queued"]
        with pytest.raises(ConnectionClosed):
            await drop(far)
            await conn.send("late")
            conn.abort()
            await conn.flush()


async def test_a_greeting_held_back_by_pings_does_not_outlive_its_link(
    autojump_clock: Clock,
) -> None:
    """Also when the writer had not even come to it."""

    class Slow(Greets):
        async def handle_connect(self, info: ConnectionInfo, state: int) -> Any:
            if info.attempt == 1:
                info.connection.send_frame_nowait(Ping(b"blocks the writer"))
                await trio.sleep(5)
            return super().handle_connect(info, state)

    net = MemoryTransport(capacity=0)
    async with joined(net, Slow(), write_timeout=None):
        far = await net.accept()
        await trio.sleep(6)
        await drop(far)
        far = await net.accept()
        assert await frames(far) == ["hello 2", "after 0"]
