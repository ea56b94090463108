"""Broadcasts of one turn of the scheduler leave in one write for each connection."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Unpack

import pytest
import trio
import trio.testing

from tests.server.helpers import Echo
from tests.server.writes import CountingClient, counting_clients, counts_writes, writes_immediately
from trioglock import PreparedMessage, ServeOptions, Server, serve
from trioglock.frames import Frame
from trioglock.telemetry import FrameSent, listen
from trioglock.transports.native.link import NativeServerLink

NUMBERS = [str(number) for number in range(8)]


@asynccontextmanager
async def clients(
    count: int, **options: Unpack[ServeOptions]
) -> AsyncIterator[tuple[Server, list[CountingClient]]]:
    """A server on TCP and some clients."""
    with trio.fail_after(300):
        async with (
            serve(Echo, "127.0.0.1", 0, **options) as server,
            counting_clients(server, count) as opened,
        ):
            yield server, opened


@counts_writes
async def test_broadcasts_in_a_row_are_one_write() -> None:
    """For every client; so are the next ones."""
    async with clients(3) as (server, each):
        for _ in range(3):
            for number in NUMBERS:
                assert server.broadcast(number) == 3
            for client in each:
                assert await client.texts(8) == NUMBERS
                assert client.writes() == 1


async def test_a_single_broadcast_is_written_in_the_same_turn() -> None:
    """At its end: after every other task has run at most once."""
    async with clients(1) as (server, [client]):
        server.broadcast("first")
        assert await client.texts(1) == ["first"]
        server.broadcast("second")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert client.has_data()
        assert await client.texts(1) == ["second"]


async def test_fault_45_a_broadcast_is_freed_when_it_has_been_written() -> None:
    """No connection keeps the latest one, which may be large."""
    message = PreparedMessage("x" * 100)
    references = sys.getrefcount(message)
    async with clients(2) as (server, each):
        server.broadcast(message)
        for client in each:
            assert await client.texts(1) == [message.message]
        assert sys.getrefcount(message) == references


async def test_no_task_remains_when_all_connections_have_ended() -> None:
    """Writing at the end of a turn needs a task, which ends with the last connection."""
    for _ in range(2):
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with clients(2) as (server, each):
            server.broadcast("a")
            server.broadcast("b")
            for client in each:
                assert await client.texts(2) == ["a", "b"]
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks


@counts_writes
async def test_the_order_of_a_connection_is_kept() -> None:
    """Its own messages and the broadcasts leave in the order of the calls, in one write."""
    async with clients(1) as (server, [client]):
        [conn] = server.connections
        server.broadcast("one")
        conn.send_nowait("two")
        server.broadcast("three")
        await conn.send("four")
        conn.send_frame_nowait("five", immediate=True)
        assert await client.texts(5) == ["one", "two", "three", "four", "five"]
        assert client.writes() == 1


async def test_a_chunk_received_meanwhile_does_not_hold_broadcasts_back() -> None:
    """The reader and the end of the turn write in either order, which differs between rounds."""
    async with clients(1) as (server, [client]):
        for number in range(60):
            await client.send(b"\x81\x84\0\0\0\0echo")
            server.broadcast(str(number))
            assert sorted(await client.texts(2)) == [str(number), "echo"]


@writes_immediately
async def test_a_burst_larger_than_write_limit_reaches_a_client_that_reads() -> None:
    """It is not slow because its messages are held back until the end of the turn."""
    async with clients(1, write_limit=1000) as (server, [client]):
        sent = [f"{number:100}" for number in range(50)]
        assert [server.broadcast(text) for text in sent] == [1] * 50
        assert await client.texts(50) == sent


@writes_immediately
async def test_a_slow_client_does_not_delay_the_others() -> None:
    """In the middle of bursts it is passed over once its buffers are full."""
    async with clients(2, write_limit=1000) as (server, [slow, quick]):
        counts: list[int] = []
        while 1 not in counts:
            texts = [f"{len(counts) + number:120}" for number in range(100)]
            counts += [server.broadcast(text) for text in texts]
            assert await quick.texts(100) == texts
        assert int((await slow.texts(1))[0]) == 0


@counts_writes
async def test_clients_that_leave_in_the_same_turn() -> None:
    """One is aborted, which may discard the burst; one gets its Close frame after the burst."""
    async with clients(3) as (server, each):
        for number in NUMBERS:
            server.broadcast(number)
        aborted, closing, _ = server.connections
        aborted.abort()
        with trio.move_on_after(0.1):
            await closing.aclose(1000)
        got: list[list[bytes]] = []
        for client in each:
            got.append([])
            with trio.move_on_after(0.1), suppress(AssertionError):  # the end of the stream
                while True:
                    got[-1].append((await client.frame())[1])
            assert client.writes() <= 1
        numbers = [number.encode() for number in NUMBERS]
        assert got.count([*numbers, b"\x03\xe8"]) == 1
        assert got.count(numbers) + got.count([]) == 2


async def test_every_frame_of_a_burst_is_an_event() -> None:
    """And a listener that broadcasts itself does not disturb it."""
    async with clients(2) as (server, each):
        sent: list[tuple[int, object]] = []

        def listener(event: FrameSent) -> None:
            sent.append((event.connection.id, event.frame))
            if event.frame == "2" and len(sent) < 4:
                server.broadcast("from the listener")

        with listen(listener, FrameSent):
            for number in NUMBERS:
                server.broadcast(number)
            for client in each:
                assert await client.texts(9) == [*NUMBERS, "from the listener"]
        by_connection: dict[int, list[object]] = {}
        for connection, frame in sent:
            by_connection.setdefault(connection, []).append(frame)
        assert list(by_connection.values()) == [[*NUMBERS, "from the listener"]] * 2


@writes_immediately
async def test_a_connection_that_fails_does_not_affect_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is logged, and the others receive the burst."""
    async with clients(3) as (server, each):
        write_now = NativeServerLink.write_now
        failed: list[NativeServerLink] = []

        def write(link: NativeServerLink, frames: Sequence[Frame]) -> bool:
            if not failed:
                failed.append(link)
                raise MemoryError
            return write_now(link, frames)

        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "trioglock"):
            patch.setattr(NativeServerLink, "write_now", write)
            for number in NUMBERS:
                server.broadcast(number)
            await trio.testing.wait_all_tasks_blocked()
        assert "cannot be written" in caplog.text
        got = 0
        for client in each:
            with trio.move_on_after(0.1):
                assert await client.texts(8) == NUMBERS
                got += 1
        assert got == 2
