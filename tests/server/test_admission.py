"""A rush of clients, silent clients, and servers that may open few files."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.scripts import ROOT
from tests.server.helpers import Echo, logged, request, serving
from trioglock import Request, Response, connect

RUSH = 500


# Handshakes in progress.


@pytest.mark.slow
async def test_fault_43_a_rush_of_clients_is_served_in_turn(autojump_clock: object) -> None:
    """About 100 are worked on at a time, so the first ones are done while others still wait."""
    current = most = 0

    async def decide(asked: Request) -> Response | None:
        nonlocal current, most
        current += 1
        most = max(most, current)
        await trio.sleep(1)
        current -= 1
        return None

    async with serving(Echo, process_request=decide, open_timeout=3) as site:
        clients = [await site.raw() for _ in range(RUSH)]
        for client in clients:
            await client.send(request())
        for client in clients:
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
            await client.stream.aclose()
    assert 100 <= most < 120


async def test_silent_clients_keep_nobody_out(autojump_clock: object) -> None:
    """Those that connect and send nothing, or half a request, delay others by a moment only."""
    async with serving(Echo) as site:
        silent = [await site.raw() for _ in range(RUSH)]
        for client in silent[::2]:
            await client.send(request()[:40])
        began = trio.current_time()
        async with site.dial() as conn:
            await conn.ping()
        assert trio.current_time() - began < 0.5
        for client in silent:
            await client.stream.aclose()


async def test_slow_readers_of_a_refusal_keep_nobody_out(autojump_clock: object) -> None:
    """A client that does not hang up after its response is not in progress any more."""
    async with serving(Echo, process_request=_refuse_some) as site:
        slow = [await site.raw() for _ in range(RUSH)]
        for client in slow:
            await client.send(request("/refused"))
        began = trio.current_time()
        async with site.dial("/") as conn:
            await conn.ping()
        assert trio.current_time() == began
        for client in slow:
            await client.stream.aclose()


def _refuse_some(asked: Request) -> Response | None:
    return Response(403, "no") if asked.path == "/refused" else None


async def test_a_silent_client_that_wakes_up_is_served(autojump_clock: object) -> None:
    """Browsers open connections in advance, and use them later."""
    async with serving(Echo) as site:
        client = await site.raw()
        await trio.sleep(9)
        await client.send(request())
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        await client.stream.aclose()


async def test_closing_drops_silent_clients_but_not_slow_decisions(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that was complete in time gets its response, however long that takes."""

    async def decide(asked: Request) -> Response | None:
        await trio.sleep(5)
        return Response(200, "at last")

    caplog.set_level("DEBUG")
    async with serving(Echo, process_request=decide) as site:
        silent, asking = await site.raw(), await site.raw()
        await asking.send(request())
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        site.server.close()
        assert await silent.everything() == b""
        assert trio.current_time() - began == pytest.approx(1)
        assert (await asking.everything()).endswith(b"at last")
        assert trio.current_time() - began == pytest.approx(5)
    assert "a client: sent no request before the server closed" in logged(caplog)


# Descriptors.

SERVER = """
import os, resource, sys, trio
from trioglock import Socket, serve

async def main():
    options = {}
    if sys.argv[3:]:
        options["open_timeout"] = float(sys.argv[3])
    async with serve(Socket, "127.0.0.1", 0, **options) as server:
        print(
            server.port, os.getpid(), *resource.getrlimit(resource.RLIMIT_NOFILE), flush=True
        )
        await trio.sleep_forever()

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
trio.run(main)
"""


@asynccontextmanager
async def limited_server(soft: int, hard: int, *arguments: str) -> AsyncIterator[tuple[int, ...]]:
    """A server in a process with these limits; yields its port, its id and its limits."""
    resource = pytest.importorskip("resource", reason="no limits of open files on this system")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < max(hard, 4000):
        pytest.skip("too few files may be open, see ulimit -Hn")
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (ours[1], ours[1]))
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", SERVER, str(soft), str(hard), *arguments],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(120):
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
            yield tuple(map(int, line.split()))
    finally:
        process.kill()
        await process.wait()
        resource.setrlimit(resource.RLIMIT_NOFILE, ours)


class Clients:
    """Many sockets, which are closed at the end of the block.

    Their methods block, as the system accepts connections for the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._stack = ExitStack()

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(
        self, count: int, data: bytes = b"", address: str = "127.0.0.1"
    ) -> list[socket.socket]:
        """Open so many that send ``data`` and nothing else."""
        source = (address, 0) if address else None
        clients = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self._port), 60, source)
            clients.append(self._stack.enter_context(client))
            if data:
                client.sendall(data)
        return clients


def is_upgraded(client: socket.socket) -> bool:
    """Wait for the response."""
    with suppress(ConnectionResetError):
        return client.recv(1000).startswith(b"HTTP/1.1 101 ")
    return False


async def honest(port: int, count: int) -> None:
    """Connect one client after the other, and use each."""
    for _ in range(count):
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as conn:
            await conn.ping()


@pytest.mark.slow
async def test_fault_41_a_server_raises_its_limit_of_open_files() -> None:
    """The soft limit does not bound the connections: the hard limit does."""
    async with limited_server(256, 3000) as (port, _, soft, hard):
        assert (soft, hard) == (3000, 3000)
        with Clients(port) as clients:
            upgraded = clients.open(600, request())
            assert all(is_upgraded(client) for client in upgraded)
            await honest(port, 3)


@pytest.mark.slow
async def test_fault_41_half_open_sockets_keep_nobody_out() -> None:
    """One client with 1,224 of them where 1,024 files may be open. They get half of these.

    On Linux, which has many loopback addresses, at least 95 % of the slow clients of another
    address get in, though their requests arrive while 2,448 are opened.
    """
    async with limited_server(1024, 1024, "60") as (port, pid, *_):
        with Clients(port) as clients:
            clients.open(1224)
            await honest(port, 9)
            if sys.platform != "linux":
                return
            assert len(list(Path(f"/proc/{pid}/fd").iterdir())) < 600
            slow = clients.open(20, request()[:40], "127.0.0.2")
            late = clients.open(2448)
            # When this one has been dropped, another 500 have been accepted after it.
            await trio.to_thread.run_sync(late[900].recv, 1)
            for client in slow:
                with suppress(ConnectionResetError, BrokenPipeError):
                    client.sendall(request()[40:])
            upgraded = [await trio.to_thread.run_sync(is_upgraded, client) for client in slow]
        assert sum(upgraded) >= 0.95 * len(slow)


@pytest.mark.slow
async def test_fault_41_without_descriptors_the_oldest_handshake_is_dropped() -> None:
    """Established connections use so many files that half of the limit is not left."""
    async with limited_server(128, 128) as (port, *_):
        with Clients(port) as clients:
            established = clients.open(80, request())
            assert all(is_upgraded(client) for client in established)
            clients.open(100)
            await honest(port, 9)
            established[0].sendall(b"\x89\x80\0\0\0\0")
            assert established[0].recv(1) == b"\x8a"


@pytest.mark.slow
async def test_fault_43_thousands_of_real_clients_at_once() -> None:
    """None is cut off by ``open_timeout``, though all together take several times as long."""
    async with limited_server(9000, 9000, "1") as (port, *_):
        assert await trio.to_thread.run_sync(upgrade_many, port, 8000) == 8000


def upgrade_many(port: int, count: int) -> int:
    """Connect faster than a server accepts; return how many clients it has upgraded."""
    with Clients(port) as clients:
        return sum(map(is_upgraded, clients.open(count, request())))


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (10, 100, [100, 100]),
        (100, 100, []),
        (10, None, [2**20, 10240]),
        (None, None, []),
        (2**21, 2**21, []),
    ],
)
def test_a_limit_is_only_raised(
    soft: int | None, hard: int | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the hard limit or 1,048,576; a system that refuses is no error."""
    resource = pytest.importorskip("resource", reason="no limits of open files on this system")
    # Infinity, here None, is -1 before Python 3.15.
    limits = [resource.RLIM_INFINITY if limit is None else limit for limit in (soft, hard)]
    from trioglock.server import descriptors  # noqa: PLC0415 - POSIX only

    wanted: list[Any] = []

    def refuse(_: int, new: tuple[int, int]) -> None:
        wanted.append(new)
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.raise_descriptor_limit()
    assert wanted == [(value, limits[1]) for value in expected]
