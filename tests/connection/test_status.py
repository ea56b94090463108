"""The status of a connection while a link ends and ``handle_disconnect`` decides."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.hooks.helpers import both_styles, current_status, linked, styled
from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionClosed,
    ConnectionInfo,
    Disconnect,
    LocalClose,
    MemoryTransport,
    Reconnect,
    Socket,
    Status,
    Stop,
    connect,
)
from trioglock.telemetry import LinkClosed, listen

POLICY = Backoff(initial=5, jitter="none")


class Deciding(Socket[int]):
    """Records the status in ``handle_disconnect``, and returns one decision after the other."""

    def __init__(self, *decisions: Reconnect | Stop | None) -> None:
        self.statuses: list[Status] = []
        self.reasons: list[Disconnect] = []
        self.at_terminate: Status | None = None
        self._decisions = list(decisions)
        self._conn: Connection[int] | None = None

    def init_stream(self, info: ConnectionInfo) -> int:
        self._conn = info.connection
        return 0

    def handle_disconnect(self, reason: Disconnect, state: int) -> tuple[Any, int]:
        self.reasons.append(reason)
        if self._conn is not None:
            self.statuses.append(self._conn.status)
        return (self._decisions.pop(0) if self._decisions else None), state

    def terminate(self, reason: Disconnect, state: int) -> None:
        assert self._conn is not None
        self.at_terminate = self._conn.status


class SlowlyDeciding(Deciding):
    """Takes five seconds to decide."""

    async def handle_disconnect(  # type: ignore[override]
        self, reason: Disconnect, state: int
    ) -> tuple[Any, int]:
        await trio.sleep(5)
        return super().handle_disconnect(reason, state)


@both_styles
@pytest.mark.parametrize("decision", [None, Stop()], ids=["none", "stop"])
async def test_deciding_and_then_closed(
    style: str, decision: Stop | None, autojump_clock: MockClock
) -> None:
    """The policy does not reconnect: the hook runs in DECIDING, ``terminate`` in CLOSED."""
    hooks = styled(Deciding, style, decision)
    async with linked(hooks) as (conn, far):
        await far.aclose()
        await conn.wait_closed()
        assert current_status(conn) is Status.CLOSED
    assert hooks.statuses == [Status.DECIDING]
    assert hooks.at_terminate is Status.CLOSED


@both_styles
async def test_deciding_and_then_reconnecting(style: str, autojump_clock: MockClock) -> None:
    """A Reconnect decision changes DECIDING to RECONNECTING, and the new link to OPEN."""
    hooks = styled(Deciding, style, Reconnect(delay=5))
    transport = MemoryTransport()
    async with connect("ws://h/", hooks, transport=transport, ping_interval=None) as conn:
        await (await transport.accept()).aclose()
        await trio.sleep(1)
        assert current_status(conn) is Status.RECONNECTING
        far = await transport.accept()
        await trio.sleep(1)
        assert current_status(conn) is Status.OPEN
        await far.aclose()
        await conn.wait_closed()
    assert hooks.statuses == [Status.DECIDING, Status.DECIDING]


@both_styles
async def test_reconnecting_while_the_hook_runs(style: str, autojump_clock: MockClock) -> None:
    """The policy reconnects: the hook runs in RECONNECTING, and CLOSED follows if it stops."""
    hooks = styled(Deciding, style, None, Stop())
    transport = MemoryTransport()
    async with connect(
        "ws://h/", hooks, transport=transport, reconnect=POLICY, ping_interval=None
    ) as conn:
        await (await transport.accept()).aclose()
        await trio.sleep(1)
        assert current_status(conn) is Status.RECONNECTING
        await (await transport.accept()).aclose()
        await conn.wait_closed()
        assert current_status(conn) is Status.CLOSED
    assert hooks.statuses == [Status.RECONNECTING, Status.RECONNECTING]


async def test_deciding_after_a_failed_first_attempt(autojump_clock: MockClock) -> None:
    """The hook may decide to retry before there is any state."""
    hooks = Deciding(Reconnect(delay=1))
    transport = MemoryTransport()
    transport.refuse_next(OSError("refused"))
    async with connect("ws://h/", hooks, transport=transport, ping_interval=None) as conn:
        assert current_status(conn) is Status.OPEN
        conn.abort()
    assert len(hooks.reasons) == 1


async def test_calls_while_the_hook_decides(autojump_clock: MockClock) -> None:
    """In DECIDING sends raise and the close code is known; after Reconnect sends work again."""
    transport = MemoryTransport()
    hooks = SlowlyDeciding(Reconnect(delay=0))
    async with connect("ws://h/", hooks, transport=transport, ping_interval=None) as conn:
        far = await transport.accept()
        await far.write([Close(4000, "bye")])
        await far.send_eof()
        await trio.sleep(1)
        assert current_status(conn) is Status.DECIDING
        assert (conn.close_code, conn.close_reason) == (4000, "bye")
        with pytest.raises(ConnectionClosed):
            conn.send_nowait("x")
        far = await transport.accept()
        assert conn.close_code is None
        await conn.send("y")
        assert await far.receive() == [["y"]]
        conn.abort()


async def test_closing_while_the_hook_decides(autojump_clock: MockClock) -> None:
    """A close by the program takes precedence over a Reconnect decision."""
    hooks = SlowlyDeciding(Reconnect())
    async with linked(hooks) as (conn, far):
        await far.aclose()
        await trio.sleep(1)
        assert current_status(conn) is Status.DECIDING
        await conn.aclose()
        assert current_status(conn) is Status.CLOSED
    assert hooks.statuses == [Status.DECIDING]
    assert not isinstance(hooks.reasons[0], LocalClose)


async def test_without_the_hook_there_is_nothing_to_decide(autojump_clock: MockClock) -> None:
    """With the default hook the status at the end of the link is CLOSED."""
    statuses: list[Status] = []
    async with linked() as (conn, far):
        with listen(lambda _: statuses.append(conn.status), LinkClosed):
            await far.aclose()
            await conn.wait_closed()
    assert statuses == [Status.CLOSED]
