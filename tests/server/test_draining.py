"""``drain``: at shutdown, connections are closed one by one, evenly spread over its seconds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosed as LibraryConnectionClosed
from websockets.sync.client import connect as library_connect

from tests.server.helpers import Echo, MakeTransport, Site, on_both, request, serving
from trioglock import (
    Backoff,
    Connection,
    ConnectionClosedError,
    ConnectionInfo,
    InvalidOption,
    MemoryListener,
    Reply,
    Socket,
    connect,
    serve,
    serve_forever,
)


class Closes:
    """Clients, and the times at which they are closed, in seconds after the last :meth:`open`."""

    def __init__(self, listener: MemoryListener, nursery: trio.Nursery) -> None:
        self.began = 0.0
        self.times: list[float] = []
        self.codes: Counter[int | None] = Counter()
        self._listener = listener
        self._nursery = nursery

    async def open(self, number: int) -> list[Connection[Any]]:
        """Open clients, and start the clock."""
        clients = [await self._nursery.start(self._run) for _ in range(number)]
        self.began = trio.current_time()
        return clients

    async def _run(self, task_status: trio.TaskStatus[Connection[Any]]) -> None:
        async with connect("ws://memory.test/", stream=self._listener.open_stream) as conn:
            task_status.started(conn)
            await conn.wait_closed()
            self.times.append(trio.current_time() - self.began)
            self.codes[conn.close_code] += 1


@asynccontextmanager
async def open_clients(
    number: int, target: Any = Echo, **options: Any
) -> AsyncIterator[tuple[Site, Closes, list[Connection[Any]]]]:
    """A server with clients whose ends are recorded."""
    async with serving(target, **options) as site, trio.open_nursery() as nursery:
        closes = Closes(site.listener, nursery)
        yield site, closes, await closes.open(number)


@on_both
async def test_clients_are_closed_with_1012_evenly_spread(
    transport: MakeTransport, autojump_clock: object
) -> None:
    """Each tenth of the time gets a tenth of them, and no gap differs from the others."""
    number, drain = 50, 10
    async with open_clients(number, drain=drain, transport=transport()) as (site, closes, _):
        site.server.close()
        await site.server.wait_closed()
    assert closes.codes == {1012: number}
    assert closes.times == pytest.approx([at * drain / number for at in range(number)], abs=0.001)
    histogram = Counter(int(seconds + 0.001) for seconds in closes.times)
    assert histogram == dict.fromkeys(range(10), 5)


async def test_delays_of_the_process_do_not_accumulate(mock_clock: trio.testing.MockClock) -> None:
    """It wakes too late each time: what was due meanwhile is closed, not more and not less."""
    async with open_clients(100, drain=10) as (site, closes, _):
        site.server.close()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.05)
        for step in range(1, 11):
            mock_clock.jump(1)
            await trio.testing.wait_all_tasks_blocked()
            assert len(closes.times) == min(10 * step + 1, 100)


async def test_connections_work_until_they_are_closed(autojump_clock: object) -> None:
    async with open_clients(10, drain=10) as (site, closes, clients):
        site.server.close()
        await trio.sleep(4.5)
        assert len(closes.times) == 5
        assert len(site.server.connections) == 5
        for conn in clients[5:]:
            await conn.send("still here")
            assert await conn.receive() == "still here"
        assert site.server.broadcast("soon") == 5
        assert await clients[-1].receive() == "soon"


async def test_nobody_is_let_in_while_connections_are_closed(autojump_clock: object) -> None:
    async with serving(Echo, drain=10) as site, site.dial(), site.dial():
        early = await site.raw()
        await early.send(request()[:30])
        await trio.testing.wait_all_tasks_blocked()
        site.server.close()
        await early.send(request()[30:])
        assert (await early.head()).startswith(b"HTTP/1.1 503 ")
        await early.stream.aclose()
        with pytest.raises(ConnectionRefusedError):
            await site.listener.open_stream()


async def test_connections_that_end_by_themselves_shorten_nothing_for_the_others(
    autojump_clock: object,
) -> None:
    """Those that remain are spread over the time that remains."""
    async with open_clients(10, drain=10) as (site, closes, clients):
        site.server.close()
        await trio.sleep(2.5)  # three are closed, seven are left
        for conn in clients[6:]:
            await conn.aclose()
        await site.server.wait_closed()
    assert closes.times == pytest.approx(
        [0, 1, 2] + [2.5] * 4 + [3, 3 + 7 / 3, 3 + 14 / 3], abs=0.01
    )


@pytest.mark.parametrize("is_handler", [True, False])
async def test_the_server_closes_once_nobody_is_left(
    is_handler: bool, autojump_clock: object
) -> None:
    async def handler(conn: Connection[None]) -> None:
        async for _ in conn:
            pass

    target = handler if is_handler else Echo
    async with open_clients(3, target, drain=1000) as (site, closes, clients):
        site.server.close()
        await trio.sleep(1)
        for conn in clients[1:]:
            await conn.aclose()
        await site.server.wait_closed()
        assert trio.current_time() - closes.began == pytest.approx(1, abs=0.1)


async def test_a_handler_that_goes_on_without_its_client_takes_no_time_of_others(
    autojump_clock: object,
) -> None:
    async def handler(conn: Connection[None]) -> None:
        async for _ in conn:
            pass
        await trio.sleep(20)

    async with open_clients(4, handler, drain=10) as (site, closes, clients):
        for conn in clients[:2]:
            await conn.aclose()
        site.server.close()
        await site.server.wait_closed()
    assert closes.times == pytest.approx([0, 0, 0, 5], abs=0.1)


async def test_a_server_without_connections_closes_immediately(autojump_clock: object) -> None:
    began = trio.current_time()
    async with serving(Echo, drain=1000) as site, site.dial():
        pass
    async with serving(Echo, drain=1000) as site:
        site.server.close()
    assert trio.current_time() - began < 1


async def test_a_second_close_hurries(autojump_clock: object) -> None:
    async with open_clients(10, drain=1000) as (site, closes, _):
        site.server.close()
        await trio.sleep(150)
        assert len(closes.times) == 2
        site.server.close(1001)
        site.server.close(1000)
        await site.server.wait_closed()
    assert closes.times == pytest.approx([0, 100] + [150] * 8, abs=0.1)
    assert closes.codes == {1012: 2, 1001: 8}


async def test_leaving_the_block_drains_and_does_not_hurry(autojump_clock: object) -> None:
    for closes_itself in (True, False):
        listener = MemoryListener()
        async with (
            trio.open_nursery() as nursery,
            serve(Echo, listeners=[listener], drain=4) as server,
        ):
            closes = Closes(listener, nursery)
            await closes.open(4)
            if closes_itself:
                server.close()
        assert closes.times == pytest.approx([0, 1, 2, 3], abs=0.01)


@pytest.mark.parametrize("aborts", [True, False])
async def test_draining_can_be_ended_by_cancellation_and_abort(
    aborts: bool, autojump_clock: object
) -> None:
    """Connections are dropped without a Close frame, and ``terminate`` runs."""
    ended: list[object] = []

    class Recording(Echo):
        async def terminate(self, reason: object, state: None) -> None:
            ended.append(reason)

    listener = MemoryListener()
    with trio.CancelScope() as scope:
        async with serve(Recording, listeners=[listener], drain=1000) as server:
            streams = [await listener.open_stream() for _ in range(3)]
            for stream in streams:
                await stream.send_all(request())
                while not (await stream.receive_some()).endswith(b"\r\n\r\n"):
                    pass
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            server.close()
            await trio.sleep(1)
            if aborts:
                server.abort()
            else:
                scope.cancel()
    assert trio.current_time() - began == pytest.approx(1, abs=0.1)
    assert len(ended) == 3
    assert await streams[0].receive_some() == b"\x88\x02\x03\xf4"  # a Close frame with 1012
    for stream in streams[1:]:
        assert await stream.receive_some() == b""


async def test_abort_while_draining_limits_terminate(autojump_clock: object) -> None:
    class Endless(Echo):
        async def terminate(self, reason: object, state: None) -> None:
            await trio.sleep_forever()

    async with serving(Endless, drain=1000, shutdown_timeout=5, close_timeout=None) as site:
        client, other = await site.upgraded(), await site.upgraded()
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        site.server.abort()
        await site.server.wait_closed()
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
        await client.stream.aclose()
        await other.stream.aclose()


async def test_the_shutdown_timeout_begins_after_draining(autojump_clock: object) -> None:
    async def stays(conn: Connection[None]) -> None:
        await trio.sleep_forever()

    async with serving(stays, drain=10, shutdown_timeout=3, close_timeout=1) as site:
        clients = [await site.upgraded() for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        site.server.close()
        await site.server.wait_closed()
        assert trio.current_time() - began == pytest.approx(5 + 3, abs=0.1)
        for client in clients:
            await client.stream.aclose()


async def test_a_connection_that_opens_meanwhile_is_closed_too(autojump_clock: object) -> None:
    class Slow(Socket[None]):
        async def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[object, None]:
            await trio.sleep(3)
            return Reply("welcome"), state

    async with open_clients(2, Slow, drain=8) as (site, closes, early):
        for conn in early:
            assert await conn.receive() == "welcome"
        [late] = await closes.open(1)
        await trio.sleep(1)
        site.server.close()
        assert await late.receive() == "welcome"
        await site.server.wait_closed()
    assert closes.codes == {1012: 3}
    assert closes.times[0] == pytest.approx(1, abs=0.01)
    assert closes.times[1:] == pytest.approx([5, 7], abs=0.01)


async def test_a_client_that_reconnects_finds_the_new_server(autojump_clock: object) -> None:
    """1012 is not final, unlike 1000."""
    listener, visits = MemoryListener(), 0

    class Visited(Socket[None]):
        def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[object, None]:
            nonlocal visits
            visits += 1
            return Reply("hello"), state

    async def open_stream() -> trio.abc.Stream:
        return await listener.open_stream()

    policy: Any = {"stream": open_stream, "reconnect": Backoff(initial=0.1)}
    async with trio.open_nursery() as nursery:
        start = partial(serve_forever, Visited, drain=5)
        old = await nursery.start(partial(start, listeners=[listener]))
        async with connect("ws://memory.test/", **policy) as conn:
            assert await conn.receive() == "hello"
            listener = MemoryListener()
            new = await nursery.start(partial(start, listeners=[listener]))
            old.close()
            assert await conn.receive() == "hello"
            assert visits == 2
        new.close()


@pytest.mark.parametrize(
    ("drain", "reason"),
    [
        (-1, "drain must be more than 0 seconds"),
        (None, "drain must be a number of seconds"),
        (True, "drain must be a number of seconds"),
        ("10", "drain must be a number of seconds"),
        (float("nan"), "drain must be more than 0 seconds"),
        (float("inf"), "drain must be finite"),
    ],
)
def test_the_option_is_checked(drain: Any, reason: str) -> None:
    with pytest.raises(InvalidOption, match=reason):
        serve(Echo, listeners=[MemoryListener()], drain=drain)


async def test_without_drain_a_loop_ends_normally_and_with_it_not(autojump_clock: object) -> None:
    """1001 is a normal end of a client, 1012 is not: messages may be missing."""
    for drain in (0, 5):
        async with serving(Echo, drain=drain) as site, site.dial() as conn:
            site.server.close()
            if drain:
                with pytest.raises(ConnectionClosedError, match="1012"):
                    await anext(conn)
            else:
                assert [message async for message in conn] == []


@pytest.mark.slow
async def test_the_clients_of_another_library() -> None:
    """They exchange messages until they are closed with 1012."""
    number = 20
    first_closed = threading.Event()

    def run(port: int, opened: threading.Semaphore) -> tuple[int | None, bool]:
        works = False
        with library_connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
            try:
                client.send("hello")
                assert client.recv(30) == "hello"
                opened.release()
                while True:
                    was_closed = first_closed.is_set()
                    client.send("more")
                    client.recv(30)
                    time.sleep(0.05)
                    works = works or was_closed
            except LibraryConnectionClosed as closed:
                first_closed.set()
                return (closed.rcvd.code if closed.rcvd else None), works

    opened = threading.Semaphore(0)
    with trio.fail_after(300), ThreadPoolExecutor(number) as pool:
        async with serve(Echo, "127.0.0.1", 0, drain=5) as server:
            assert server.port is not None
            runs = [pool.submit(run, server.port, opened) for _ in range(number)]
            for _ in range(number):
                await trio.to_thread.run_sync(opened.acquire)
        results = [await trio.to_thread.run_sync(run.result) for run in runs]
    assert [code for code, _ in results] == [1012] * number
    assert any(works for _, works in results)
