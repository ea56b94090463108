"""Properties and statistics of a Connection."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.hooks.helpers import Scripted, current_status, linked, read_frames
from trioglock import (
    Close,
    Handshake,
    Headers,
    MemoryTransport,
    Socket,
    Statistics,
    Status,
    connect,
)


async def test_properties(autojump_clock: MockClock) -> None:
    """Status, url, name, handshake, close code and reason, from connecting to the end."""
    seen: list[Status] = []

    class Watching(Socket[int]):
        def init_stream(self, info: Any) -> int:
            seen.append(info.connection.status)
            return 0

        def handle_receive(self, frame: Any, state: int) -> tuple[None, int]:
            return None, state + 1

        def terminate(self, reason: Any, state: int) -> None:
            seen.append(conn.status)

    transport = MemoryTransport(subprotocol="chat")
    async with connect(
        "ws://user:secret@memory.test/r",
        Watching(),
        transport=transport,
        subprotocols=["chat"],
        additional_headers={"X-A": "1"},
        name="one",
    ) as conn:
        far = await transport.accept()
        assert current_status(conn) is Status.OPEN
        assert (conn.url, conn.name, conn.subprotocol) == ("ws://memory.test/r", "one", "chat")
        assert isinstance(conn.handshake, Handshake)
        assert conn.handshake.request_headers == Headers({"X-A": "1"})
        assert (conn.close_code, conn.close_reason, conn.latency) == (None, None, None)
        assert conn.state == 0
        assert re.fullmatch(r"<Connection one#\d+ to ws://memory.test/r, open>", repr(conn))
        await far.write(["x", "y", Close(4001, "bye")])
        await trio.testing.wait_all_tasks_blocked()
        assert current_status(conn) is Status.CLOSING
        assert (conn.close_code, conn.close_reason) == (None, None)
        await far.send_eof()
        await conn.wait_closed()
        assert current_status(conn) is Status.CLOSED
        assert (conn.close_code, conn.close_reason) == (4001, "bye")
    assert (conn.url, conn.name, conn.subprotocol) == ("ws://memory.test/r", "one", "chat")
    assert conn.state == 2
    assert re.fullmatch(r"<Connection one#\d+ to ws://memory.test/r, closed>", repr(conn))
    assert seen == [Status.OPEN, Status.CLOSED]


async def test_default_names(autojump_clock: MockClock) -> None:
    """The default name consists of the host and the number."""
    names = set()
    for _ in range(3):
        async with linked(close_timeout=1) as (conn, _):
            names.add(conn.name)
            assert conn.name.startswith("memory.test#")
    assert len(names) == 3


async def test_readonly_properties_cannot_be_set(autojump_clock: MockClock) -> None:
    """Assigning to a property raises."""
    async with linked() as (conn, _):
        for name in (
            *("state", "status", "url", "name", "subprotocol"),
            *("handshake", "close_code", "close_reason", "latency"),
        ):
            with pytest.raises(AttributeError):
                setattr(conn, name, None)


async def test_statistics(autojump_clock: MockClock) -> None:
    """Each field counts what its name says, and a snapshot does not change."""
    async with linked(Scripted(handle_receive="x")) as (conn, far):
        start = conn.statistics()
        assert start == Statistics(
            messages_sent=0,
            messages_received=0,
            bytes_sent=0,
            bytes_received=0,
            receive_queue=0,
            send_queue=0,
            send_queue_bytes=0,
            mailbox=0,
            dropped=0,
            invalid=0,
            in_doubt=0,
            unsent=0,
            reconnects=0,
            latency=None,
        )
        conn.send_nowait("leaves on the spot")
        conn.send_nowait("abc")
        conn.send_nowait(b"\0" * 7)
        conn.cast("x")
        queued = conn.statistics()
        # The cast is not done, so the sends of a plain hook came first.
        assert (queued.send_queue, queued.send_queue_bytes, queued.mailbox) == (2, 10, 1)
        await conn.flush()
        await far.write(["12345", "678"])
        await trio.testing.wait_all_tasks_blocked()
        now = conn.statistics()
        assert (now.messages_sent, now.messages_received, now.receive_queue) == (3, 2, 2)
        assert now.bytes_sent >= 28
        assert now.bytes_received >= 8
        assert (now.send_queue, now.send_queue_bytes, now.mailbox) == (0, 0, 0)
        await conn.receive()
        assert conn.statistics().receive_queue == 1
        assert start.messages_sent == 0
    assert conn.statistics().messages_sent == 3


async def test_start_soon_passes_arguments_and_may_finish(autojump_clock: MockClock) -> None:
    """A task that returns does not affect the connection."""
    got: list[tuple[int, int]] = []

    async def task(one: int, two: int) -> None:
        got.append((one, two))

    async with linked() as (conn, far):
        conn.start_soon(task, 1, 2)
        await conn.send("alive")
        assert await read_frames(far) == ["alive"]
        assert got == [(1, 2)]
