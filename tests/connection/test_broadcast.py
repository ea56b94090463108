"""``broadcast(connections, message)``: skips who is gone, and counts who is slow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from trioglock import (
    BroadcastResult,
    Close,
    Connection,
    InvalidFrame,
    InvalidOption,
    MemoryTransport,
    NativeTransport,
    Ping,
    Pong,
    PreparedMessage,
    TrioWebsocketTransport,
    broadcast,
    connect,
    serve,
)

MakeTransport = Callable[[], NativeTransport | TrioWebsocketTransport]

real_transports = pytest.mark.parametrize("transport", [NativeTransport, TrioWebsocketTransport])


class Room:
    """A room as users write it."""

    def __init__(self) -> None:
        self.members: list[Connection[None]] = []
        self.results: list[BroadcastResult] = []

    async def __call__(self, conn: Connection[None]) -> None:
        self.members.append(conn)
        async for message in conn:
            self.results.append(broadcast(self.members, message))


@real_transports
async def test_fault_31_a_room_survives_a_member_who_leaves(
    transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler of another member goes on, and all others get the message."""
    room = Room()
    caplog.set_level(logging.WARNING)
    with trio.fail_after(300):
        async with serve(room, "127.0.0.1", 0, transport=transport()) as server:
            url = f"ws://127.0.0.1:{server.port}/"
            async with connect(url) as one, connect(url) as two:
                async with connect(url) as leaving:
                    await leaving.send("hello")
                    for conn in (one, two, leaving):
                        assert await conn.receive() == "hello"
                while len(server.connections) == 3:
                    await trio.sleep(0.01)
                for message in ("text", b"bytes"):
                    await one.send(message)
                    for conn in (one, two):
                        assert await conn.receive() == message
    assert [tuple(result) for result in room.results] == [(3, 0, 0), (2, 0, 1), (2, 0, 1)]
    assert not caplog.records


async def test_fault_31_slow_members_are_counted(autojump_clock: object) -> None:
    """A member whose ``write_limit`` is reached is skipped, and others get everything."""
    slow, quick = MemoryTransport(capacity=0), MemoryTransport()
    url = "ws://memory.test/"
    async with (
        connect(url, transport=slow, ping_interval=None, write_limit=5000) as stuck,
        connect(url, transport=quick, ping_interval=None) as other,
        connect(url, transport=MemoryTransport(), ping_interval=None) as gone,
    ):
        far = await quick.accept()
        gone.abort()
        await gone.wait_closed()
        connections = {stuck, other, gone}
        results = []
        for number in range(20):
            results.append(broadcast(connections, f"{number:1000}"))
            await trio.testing.wait_all_tasks_blocked()
        assert results[0] == BroadcastResult(queued=2, slow=0, closed=1)
        assert results[-1] == BroadcastResult(queued=1, slow=1, closed=1)
        assert broadcast(connections, Ping(b"?")) == (1, 1, 1)
        received: list[Any] = []
        while len(received) < 21:
            for event in await far.receive():
                received.extend(event if isinstance(event, list) else [event])
        assert received == [*(f"{number:1000}" for number in range(20)), Ping(b"?")]
        stuck.abort()


@pytest.mark.parametrize(
    "message", ["text", b"bytes", bytearray(b"bytes"), PreparedMessage("once"), Pong(b"!")]
)
async def test_what_can_be_broadcast(message: Any, autojump_clock: object) -> None:
    """Every frame but Close; to no connections as well."""
    net = MemoryTransport()
    async with connect("ws://memory.test/", transport=net, ping_interval=None) as conn:
        far = await net.accept()
        assert broadcast([conn], message) == (1, 0, 0)
        assert broadcast([], message) == (0, 0, 0)
        [event] = await far.receive()
        expected = message.message if isinstance(message, PreparedMessage) else message
        assert event in ([expected], expected)


async def test_what_cannot_be_broadcast(autojump_clock: object) -> None:
    """The error is raised by the call, and nothing is sent."""
    net = MemoryTransport()
    async with connect("ws://memory.test/", transport=net, ping_interval=None) as conn:
        wrong: Any
        for wrong in (5, None, {"a": 1}, Close(1000), "\ud800"):
            with pytest.raises(InvalidFrame):
                broadcast([conn], wrong)
        for wrong in ([conn, "x"], [None]):
            with pytest.raises(InvalidOption, match="Connection"):
                broadcast(wrong, "x")
        await trio.testing.wait_all_tasks_blocked()
        assert conn.statistics().messages_sent == 0
