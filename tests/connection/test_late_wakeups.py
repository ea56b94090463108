"""A program that was blocked or suspended does not take its own pause for the peer's silence."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
import websockets.sync.client
import websockets.sync.server

from tests.pauses import PAUSING_CLOCK, block
from tests.transports.servers import client_context, server_context
from trioglock import (
    Connection,
    ConnectionClosedError,
    HeartbeatTimeout,
    NativeTransport,
    TrioWebsocketTransport,
    connect,
    serve,
)
from trioglock.routing import EventSocket, RequestTimeout, Router

MakeTransport = Callable[[], NativeTransport | TrioWebsocketTransport]

TIMEOUT = 0.3
PAUSE = 3 * TIMEOUT

every_way = pytest.mark.parametrize(
    ("transport", "tls", "pauses"),
    [
        (NativeTransport, False, "block_often"),
        (NativeTransport, False, "work_in_chunks"),
        (NativeTransport, True, "block_often"),
        (TrioWebsocketTransport, False, "block_often"),
        (TrioWebsocketTransport, False, "work_in_chunks"),
    ],
)


@contextmanager
def peer_server(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a server of websockets in a thread, which answers pings while this thread is blocked."""

    def handler(peer: websockets.sync.server.ServerConnection) -> None:
        for message in peer:
            peer.send(message)

    with websockets.sync.server.serve(handler, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{'ws' if context is None else 'wss'}://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


async def block_often() -> None:
    """Block the program from every phase of a ping."""
    for phase in (0.5, 1.1):
        await trio.sleep(TIMEOUT * phase)
        block(PAUSE)


async def work_in_chunks() -> None:
    """Let other tasks run only between long computations."""
    for _ in range(5):
        await trio.lowlevel.checkpoint()
        block(1.4 * TIMEOUT)


PAUSES: dict[str, Callable[[], Awaitable[object]]] = {
    "block_often": block_often,
    "work_in_chunks": work_in_chunks,
}


@pytest.mark.slow
@PAUSING_CLOCK
@every_way
async def test_fault_01_a_blocked_client_stays_connected(
    transport: MakeTransport, tls: bool, pauses: str
) -> None:
    """The pongs lie unread in the socket meanwhile."""
    with peer_server(server_context() if tls else None) as url:
        async with connect(
            url,
            transport=transport(),
            ssl_context=client_context() if tls else None,
            ping_interval=TIMEOUT,
            ping_timeout=TIMEOUT,
        ) as conn:
            await PAUSES[pauses]()
            await conn.send("alive")
            with trio.fail_after(5):
                assert await conn.receive() == "alive"


@pytest.mark.slow
@PAUSING_CLOCK
@every_way
async def test_fault_01_a_blocked_server_keeps_its_clients(
    transport: MakeTransport, tls: bool, pauses: str
) -> None:
    """Each client answers the pings in time."""
    ended = []

    async def handler(conn: Connection[None]) -> None:
        try:
            async for message in conn:
                await conn.send(message)
        finally:
            ended.append(conn)

    async with serve(
        handler,
        "127.0.0.1",
        0,
        transport=transport(),
        ssl_context=server_context() if tls else None,
        ping_interval=TIMEOUT,
        ping_timeout=TIMEOUT,
    ) as server:
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.port}"
        context = client_context() if tls else None

        def be_client() -> None:
            with websockets.sync.client.connect(url, ping_interval=None, ssl=context) as peer:
                peer.recv(timeout=60)
                peer.send("alive")
                assert peer.recv(timeout=5) == "alive"

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(trio.to_thread.run_sync, be_client)
            while len(server.connections) < 5:
                await trio.sleep(0.01)
            await PAUSES[pauses]()
            assert not ended
            server.broadcast("go")


SUSPENDED = """
import sys, trio, trioglock

async def main():
    async with trioglock.connect(sys.argv[1], ping_interval=0.2, ping_timeout=0.2) as conn:
        print("connected", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        await conn.send("alive")
        print(await conn.receive(), flush=True)

trio.run(main)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals that stop a process")
def test_fault_01_a_suspended_process_stays_connected() -> None:
    """SIGSTOP and SIGCONT are a suspended machine, seen from the process."""
    with (
        peer_server() as url,
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", SUSPENDED, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        for _ in range(2):
            time.sleep(0.27)
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.6)
            os.kill(process.pid, signal.SIGCONT)
        assert process.poll() is None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "alive\n"


@pytest.mark.slow
@PAUSING_CLOCK
async def test_fault_01_a_dead_peer_is_found_despite_pauses() -> None:
    """They postpone the detection, but do not prevent it."""
    stop = threading.Event()

    def handler(peer: websockets.sync.server.ServerConnection) -> None:
        peer.recv()
        peer.protocol.receive_data = lambda data: None  # type: ignore[method-assign]
        stop.wait(30)

    with websockets.sync.server.serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        try:
            with trio.fail_after(30), pytest.raises(ConnectionClosedError) as caught:
                async with connect(url, ping_interval=TIMEOUT, ping_timeout=TIMEOUT) as conn:
                    await conn.send("be silent")
                    await trio.sleep(TIMEOUT / 2)
                    await block_often()
                    await conn.receive()
            assert isinstance(caught.value.cause, HeartbeatTimeout)
        finally:
            stop.set()
            server.shutdown()
            thread.join()


every_transport = pytest.mark.parametrize("transport", [NativeTransport, TrioWebsocketTransport])


async def block_later(delay: float) -> None:
    """Block the program twice for longer than a timeout, with a checkpoint in between."""
    await trio.sleep(delay)
    for _ in range(2):
        block(1.5 * TIMEOUT)
        await trio.lowlevel.checkpoint()


@pytest.mark.slow
@PAUSING_CLOCK
@every_transport
@pytest.mark.parametrize("tls", [False, True])
async def test_fault_01_a_blocked_client_opens_and_closes_in_time(
    transport: MakeTransport, *, tls: bool
) -> None:
    """The server has answered meanwhile."""
    context = client_context() if tls else None
    with peer_server(server_context() if tls else None) as url:
        for delay in (0, 0.001, 0.003):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(block_later, delay)
                async with connect(
                    url, transport=transport(), ssl_context=context, open_timeout=TIMEOUT
                ):
                    pass
        for delay in (0, 0.001):
            async with connect(
                url, transport=transport(), ssl_context=context, close_timeout=TIMEOUT
            ) as conn:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(conn.aclose)
                    nursery.start_soon(block_later, delay)
                assert conn.close_code == 1000


@every_transport
@pytest.mark.parametrize("tls", [False, True])
async def test_fault_32_a_normal_close_is_seen_as_one(
    transport: MakeTransport, *, tls: bool
) -> None:
    """Although the peer ends the stream at once: the answer has been read before."""
    context = client_context() if tls else None
    with peer_server(server_context() if tls else None) as url:
        for _ in range(10):
            async with connect(url, transport=transport(), ssl_context=context) as conn:
                pass
            assert conn.close_code == 1000


@pytest.mark.slow
@PAUSING_CLOCK
@every_transport
async def test_fault_01_a_blocked_server_opens_in_time(transport: MakeTransport) -> None:
    """The requests of its clients have arrived meanwhile."""

    async def handler(conn: Connection[None]) -> None:
        await conn.send("welcome")

    async with serve(
        handler,
        "127.0.0.1",
        0,
        transport=transport(),
        ssl_context=server_context(),
        open_timeout=TIMEOUT,
    ) as server:

        def be_client() -> None:
            url = f"wss://127.0.0.1:{server.port}"
            with websockets.sync.client.connect(url, ssl=client_context()) as peer:
                assert peer.recv(timeout=5) == "welcome"

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.to_thread.run_sync, be_client)
            for _ in range(4):
                await trio.sleep(0.003)
                block(1.5 * TIMEOUT)


@pytest.mark.slow
@PAUSING_CLOCK
async def test_fault_01_a_blocked_program_gets_its_answers() -> None:
    """An answer that has arrived is not a RequestTimeout; one that is absent still is."""

    def answer(peer: websockets.sync.server.ServerConnection) -> None:
        for message in peer:
            if "silent" not in str(message):
                peer.send(message)

    with websockets.sync.server.serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            socket: EventSocket[None] = EventSocket(Router())
            async with connect(f"ws://127.0.0.1:{server.socket.getsockname()[1]}", socket):
                for delay in (0, 0, 0.0001, 0.0002):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(block_later, delay)
                        await socket.request("echo", 1, timeout=TIMEOUT)
                with pytest.raises(RequestTimeout):
                    await socket.request("silent", 1, timeout=TIMEOUT)
        finally:
            server.shutdown()
            thread.join()
