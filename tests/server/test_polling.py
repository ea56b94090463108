"""Many real connections of one run: with a poller on Linux, with a task per link elsewhere.

Every test passes with each value of the option ``--poller``.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import signal
import socket
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.scripts import run_python
from tests.transports.native.frame_bytes import BINARY, FIN, apply_key, frame, header
from tests.transports.servers import client_context, server_context
from trioglock import (
    Close,
    Connection,
    ConnectionClosed,
    Deliver,
    Reply,
    Server,
    Socket,
    connect,
    serve,
)
from trioglock.telemetry import LinkClosed, listen
from trioglock.transports.native import link, poller, socket_io, tls_io

name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

Hook = Callable[[Any], Any]


class Hooked(Socket[None]):
    """A server's socket that calls a function of the test for each message."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return self.hook(frame), None


class Named(Socket[None]):
    """Replies with a context variable of its own connection, which each message extends."""

    def init_stream(self, info: Any) -> None:
        name.set(info.url.rpartition("/")[2])

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        name.set(name.get() + frame)
        return Reply(name.get()), None


@asynccontextmanager
async def serving(target: Any, **options: Any) -> AsyncIterator[Server]:
    """A server on a real port, and a time limit."""
    with trio.fail_after(300):
        async with serve(target, "127.0.0.1", 0, ping_interval=None, **options) as server:
            yield server


def client(server: Server, path: str = "", user: Any = None, **options: Any) -> Any:
    """A connection to the server."""
    url = f"ws://127.0.0.1:{server.port}/{path}"
    return connect(url, user, proxy=None, ping_interval=None, **options)


@asynccontextmanager
async def clients(
    server: Server, count: int, **options: Any
) -> AsyncIterator[list[Connection[Any]]]:
    """Several connections, which are aborted at the end."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(client(server, str(at), **options))
            for at in range(count)
        ]
        for connection in list(server.connections):
            connection.abort()


async def assert_echo(connection: Connection[Any], text: str = "hello") -> None:
    """The server still echoes."""
    await connection.send(text)
    assert await connection.receive() == text


@pytest.fixture(params=["auto", "never"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a poller, whatever ``--poller`` says; for what depends on it most."""
    if request.param == "auto" and not poller.is_supported:
        pytest.skip("needs epoll")
    monkeypatch.setattr(poller, "enabled", request.param == "auto")
    monkeypatch.setattr(link, "CLIENTS_TO_POLL", 4)


# The order of reads and writes.


async def assert_written_in_a_row(
    server: Server, connections: list[Connection[Any]], sent: list[int]
) -> None:
    """All connections send in one turn; ``sent`` shows that no reply left before the last read."""
    # On a busy machine, the kernel may report one of the messages later than the others.
    for _ in range(20):
        before = sum(one.statistics().messages_sent for one in server.connections)
        del sent[:]
        for connection in connections:
            connection.send_frame_nowait("together", immediate=True)
        for connection in connections:
            assert await connection.receive() == "together"
        if sent == [before] * len(connections):
            return
    pytest.fail(f"replies were written between reads: {sent}, {before} before")


@pytest.mark.skipif(not poller.is_supported, reason="needs epoll")
async def test_replies_of_one_turn_are_written_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """All readable links are read before the first reply is written."""
    monkeypatch.setattr(poller, "enabled", True)
    sent: list[int] = []

    def hook(frame: Any) -> Reply:
        sent.append(sum(conn.statistics().messages_sent for conn in server.connections))
        return Reply(frame)

    async with serving(lambda: Hooked(hook)) as server, clients(server, 3) as connections:
        for connection in connections:
            await assert_echo(connection)
        await assert_written_in_a_row(server, connections, sent)


@pytest.mark.skipif(not poller.is_supported, reason="needs epoll")
async def test_answers_of_handlers_are_written_at_the_end_of_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in a row, if several connections received messages in the same turn."""
    monkeypatch.setattr(poller, "enabled", True)
    sent: list[int] = []

    async def handler(conn: Connection[None]) -> None:
        async for message in conn:
            await conn.send(message)
            sent.append(sum(one.statistics().messages_sent for one in server.connections))

    async with serving(handler) as server, clients(server, 3) as connections:
        for connection in connections:
            await assert_echo(connection)
        await assert_written_in_a_row(server, connections, sent)


# Fairness.


@pytest.mark.slow
async def test_one_of_300_connections_floods() -> None:
    """The others get their echoes meanwhile, and so do other tasks."""
    flood = frame(BINARY, b"x" * 100, masked=True) * 2000
    flooded = 0

    def hook(message: Any) -> Any:
        nonlocal flooded
        if isinstance(message, str):
            return Reply(message)
        flooded += 1
        return None

    async def send_flood(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(flood)

    async with (
        serving(lambda: Hooked(hook)) as server,
        clients(server, 299) as connections,
        await raw_client(server) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_flood, stream)
        while flooded < 1000:
            await trio.sleep(0)
        for turn in range(3):
            async with trio.open_nursery() as echoes:
                for connection in connections:
                    echoes.start_soon(assert_echo, connection, f"echo {turn}")
        nursery.cancel_scope.cancel()
    assert flooded > 3000


async def raw_client(server: Server, *headers: str) -> trio.SocketStream:
    """A stream after its opening handshake."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port or 0)
    lines = [
        "GET / HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    await stream.send_all("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some()
    assert b" 101 " in head
    return stream


@pytest.mark.usefixtures("each_way")
async def test_what_inflates_a_thousandfold_leaves_room_for_others() -> None:
    """The messages of one small chunk are handled in several turns."""
    compressor = zlib.compressobj(wbits=-15)
    packed = compressor.compress(b"a" * 2**20) + compressor.flush(zlib.Z_SYNC_FLUSH)
    message = header(FIN | 0x40 | BINARY, len(packed[:-4]), masked=True) + apply_key(packed[:-4])
    order: list[Any] = []
    total = 40

    def hook(message: Any) -> Any:
        order.append(message if isinstance(message, str) else len(message))
        return Reply(message) if isinstance(message, str) else None

    async def echo(connection: Connection[Any]) -> None:
        while len(order) < total:
            await assert_echo(connection)

    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
    async with (
        serving(lambda: Hooked(hook)) as server,
        clients(server, 1) as [other],
        await raw_client(server, offer) as stream,
        trio.open_nursery() as nursery,
    ):
        await stream.send_all(message * total)
        nursery.start_soon(echo, other)
    big = [at for at, item in enumerate(order) if item == 2**20]
    assert len(big) >= 2
    assert big[-1] - big[0] > len(big)  # echoes in between


# Hooks.


@pytest.mark.usefixtures("each_way")
async def test_each_hook_runs_in_the_context_of_its_connection() -> None:
    """What a hook sets is seen by the next hook of the connection, and by no other."""
    async with serving(Named) as server, clients(server, 8) as connections:
        for letter in "xyz":
            for connection in connections:
                await connection.send(letter)
        for at, connection in enumerate(connections):
            received = [await connection.receive() for _ in range(3)]
            assert received == [f"{at}x", f"{at}xy", f"{at}xyz"]


@pytest.mark.usefixtures("each_way")
async def test_a_hook_that_raises_ends_its_own_connection() -> None:
    """The close code is 1011."""

    def hook(message: Any) -> Any:
        if message == "fail":
            raise ValueError(message)
        return Reply(message)

    async with serving(lambda: Hooked(hook)) as server, clients(server, 6) as connections:
        failing, *others = connections
        await failing.send("fail")
        with pytest.raises(ConnectionClosed) as caught:
            await failing.receive()
        assert caught.value.received is not None
        assert caught.value.received.code == 1011
        for connection in others:
            await assert_echo(connection)


class _Fatal(BaseException):
    pass


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("kind", [_Fatal, SystemExit])
async def test_what_is_no_exception_ends_the_server(kind: type[BaseException]) -> None:
    """It leaves the block of ``serve``, as from any other task, with its traceback."""

    def hook(message: Any) -> Any:
        raise kind

    caught: list[BaseException] = []
    try:
        async with serving(lambda: Hooked(hook)) as server, client(server) as connection:
            await connection.send("x")
            await trio.sleep_forever()
    except BaseException as error:
        caught = leaves(error)
    assert any(isinstance(error, kind) for error in caught)
    [fatal] = [error for error in caught if isinstance(error, kind)]
    names = set()
    traceback = fatal.__traceback__
    while traceback is not None:
        names.add(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "hook" in names


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a tree of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in leaves(one)]
    return [error]


@pytest.mark.usefixtures("each_way")
def test_ctrl_c_interrupts_a_hook() -> None:
    """KeyboardInterrupt is raised in the hook, not after it."""
    after: list[str] = []

    def hook(message: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        after.append("not interrupted")

    async def main() -> None:
        async with serving(lambda: Hooked(hook)) as server, client(server) as connection:
            await connection.send("x")
            await trio.sleep_forever()

    # A shell starts its background jobs with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(BaseException) as caught:
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
    assert any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(caught.value))
    assert not after


async def until_ended(connections: list[Connection[Any]], count: int) -> None:
    """Wait until so many of the connections have ended."""
    ended = 0

    async def wait(connection: Connection[Any]) -> None:
        nonlocal ended
        await connection.wait_closed()
        ended += 1
        if ended == count:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(wait, connection)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("how", ["abort", "close", "abort others", "server.abort"])
async def test_hooks_that_end_connections(how: str) -> None:
    """Of their own or of the same turn; nothing more is received on them."""
    received: list[Any] = []

    class Ending(Socket[Any]):
        def init_stream(self, info: Any) -> Any:
            return info.connection

        def handle_receive(self, frame: Any, state: Any) -> tuple[Any, Any]:
            received.append(frame)
            if how == "close":
                return Close(4000), state
            if how == "abort":
                state.abort()
            elif how == "server.abort":
                server.abort()
            else:
                for other in server.connections - {state}:
                    other.abort()
            return None, state

    async with serving(Ending) as server, clients(server, 6) as connections:
        for connection in connections:
            await connection.send("x")
        # All of them are readable in the same turn.
        await until_ended(connections, 5 if how == "abort others" else 6)
    if how == "abort others":
        assert len(received) <= 2
    elif how != "server.abort":
        assert received == ["x"] * 6


@pytest.mark.usefixtures("each_way")
async def test_hooks_that_cancel_their_own_client() -> None:
    """A client's hook cancels the scope around its connection while its messages are handled."""

    def hook(message: Any) -> Any:
        return Reply(message)

    async def cancelled(at: int) -> None:
        with trio.CancelScope() as scope:

            def cancel(message: Any) -> Any:
                scope.cancel()
                return Deliver("too late")

            async with client(server, user=Hooked(cancel)) as connection:
                opened[at].set()
                await go.wait()
                await connection.send("x")
                await connection.receive()
                await trio.sleep_forever()
        assert scope.cancelled_caught

    opened = [trio.Event() for _ in range(8)]
    go = trio.Event()
    async with serving(lambda: Hooked(hook)) as server, trio.open_nursery() as nursery:
        for at in range(8):
            nursery.start_soon(cancelled, at)
        for event in opened:
            await event.wait()
        go.set()


@pytest.mark.usefixtures("each_way")
async def test_backpressure_pauses_and_resumes() -> None:
    """With space for one message, nothing is lost or reordered, and the others go on."""

    async def handler(connection: Connection[Any]) -> None:
        async for message in connection:
            await trio.sleep(0)
            await connection.send(message)

    async with serving(handler, max_queue=1) as server, clients(server, 5) as connections:
        slow, *others = connections
        sent = [str(number) for number in range(300)]

        async def send_all() -> None:
            for message in sent:
                await slow.send(message)
                await trio.sleep(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all)
            for connection in others:
                nursery.start_soon(assert_echo, connection)
            assert [await slow.receive() for _ in sent] == sent


class ShortWrites:
    """The module ``os``, whose writes are often short or have to wait."""

    def __init__(self) -> None:
        self._random = random.Random(1)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(os, attribute)

    def write(self, fd: int, data: Any) -> int:
        chance = self._random.random()
        if chance < 0.3:
            raise BlockingIOError
        return os.write(fd, data if chance < 0.6 else data[: len(data) // 2 or 1])


@pytest.mark.slow
@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_replies_that_do_not_fit_into_the_socket(
    monkeypatch: pytest.MonkeyPatch, *, secure: bool
) -> None:
    """Sockets take only a part of a write, or nothing; each client gets its replies in order."""
    short_writes = ShortWrites()
    monkeypatch.setattr(socket_io, "os", short_writes)
    monkeypatch.setattr(tls_io, "os", short_writes)
    sizes = [1, 16_370, 100, 2**14, 40_000, 70_000] * 30
    tls = server_context() if secure else None
    trust = client_context() if secure else None

    async def converse(url: str) -> None:
        opening = connect(url, proxy=None, ssl_context=trust)
        async with opening as connection, trio.open_nursery() as nursery:
            nursery.start_soon(send_all, connection)
            received = [len(await connection.receive()) for _ in sizes]
        assert received == sizes

    async def send_all(connection: Connection[Any]) -> None:
        for size in sizes:
            await connection.send(bytes(size))

    async with serving(lambda: Hooked(Reply), ssl_context=tls) as server:
        scheme = "wss" if secure else "ws"
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(converse, f"{scheme}://127.0.0.1:{server.port}/")


# Runs, threads and processes.


async def test_a_server_in_each_of_two_threads() -> None:
    """Each run has its own poller."""

    async def main() -> None:
        async with serving(lambda: Hooked(Reply)) as server, clients(server, 5) as connections:
            for turn in range(50):
                barrier.wait(20) if not turn else None
                for connection in connections:
                    await assert_echo(connection, str(turn))

    barrier = threading.Barrier(2)
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(trio.to_thread.run_sync, trio.run, main)


def test_as_a_guest_of_asyncio() -> None:
    """A server and its clients run in guest mode."""

    async def main() -> str:
        async with serving(lambda: Hooked(Reply)) as server, clients(server, 5) as connections:
            for connection in connections:
                await assert_echo(connection)
        return "done"

    async def host() -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )
        return (await done).unwrap()

    assert asyncio.run(host()) == "done"


FORK = """
import os, signal, trio, warnings
from trioglock import Reply, Socket, connect, serve

class Echo(Socket):
    def handle_receive(self, frame, state):
        return Reply(frame), state

async def check(server, count):
    for _ in range(count):
        async with connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as conn:
            await conn.send("x")
            assert await conn.receive() == "x"

async def child():
    async with serve(Echo, "127.0.0.1", 0) as server:
        await check(server, 2)

def fork():
    # Python 3.12 and later warn because other threads may hold locks, which is no concern here.
    warnings.simplefilter("ignore", DeprecationWarning)
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = 1
    signal.set_wakeup_fd(-1)  # the parent's
    try:
        trio.run(child)
        code = 0
    finally:
        os._exit(code)

async def main():
    async with serve(Echo, "127.0.0.1", 0) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as conn:
            await check(server, 2)
            print("child", await trio.to_thread.run_sync(fork))
            await conn.send("still here")
            print(await conn.receive())
            await check(server, 2)

trio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.slow
async def test_a_fork_while_a_server_runs() -> None:
    """The child has a run of its own, and the parent's connections go on."""
    done = await run_python("-c", FORK)
    assert done.stderr == ""
    assert done.stdout.split("\n") == ["child 0", "still here", ""]


# Sockets.


@pytest.mark.usefixtures("each_way")
async def test_connections_come_and_go() -> None:
    """The numbers of descriptors are used again and again."""

    async def visit(at: int) -> None:
        for turn in range(5):
            async with client(server) as connection:
                await assert_echo(connection, f"{at} {turn}")
                if turn % 2:
                    connection.abort()

    async with serving(lambda: Hooked(Reply)) as server, trio.open_nursery() as nursery:
        for at in range(10):
            nursery.start_soon(visit, at)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("closing", ["the client", "the server"])
async def test_the_server_ends_the_stream_after_a_close(closing: str) -> None:
    """Immediately, although the client waits for it (RFC 6455, section 7.1.1)."""
    ended: list[Any] = []
    async with serving(lambda: Hooked(lambda _: Close(1000))) as server:
        with listen(ended.append, LinkClosed):
            async with client(server) as connection:
                if closing == "the server":
                    await connection.send("close")
                    await connection.wait_closed()
            while len(ended) < 2:
                await trio.sleep(0.01)
    assert [event.forced for event in ended] == [False, False]


@pytest.mark.usefixtures("each_way")
async def test_a_client_that_resets_its_connection() -> None:
    """The server's connection ends with an error; the others go on."""
    ended: list[Any] = []

    class Recording(Hooked):
        def terminate(self, reason: Any, state: None) -> None:
            ended.append(reason)

    async with serving(lambda: Recording(Reply)) as server, clients(server, 3) as connections:
        stream = await raw_client(server)
        linger = b"\x01\0\0\0\0\0\0\0"
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await stream.aclose()
        while not ended:
            await trio.sleep(0.01)
        assert isinstance(ended[0].error, ConnectionResetError)
        for connection in connections:
            await assert_echo(connection)


async def test_a_closed_stream_is_noticed_by_a_write() -> None:
    """The connection ends immediately, although the operating system reports nothing."""
    async with serving(lambda: Hooked(Reply)) as server, clients(server, 5):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port or 0)
        async with client(server, stream=stream, close_timeout=60) as connection:
            await assert_echo(connection)
            stream.socket.close()
            with pytest.raises(ConnectionClosed):
                await connection.send("x")
                await connection.receive()
            await connection.wait_closed()


async def test_the_number_of_a_closed_stream_is_used_again() -> None:
    """The old and the new connection are not confused."""
    async with serving(lambda: Hooked(Reply)) as server, clients(server, 5) as connections:
        for _ in range(3):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port or 0)
            async with client(server, stream=stream) as connection:
                await assert_echo(connection)
                stream.socket.close()
                other = await trio.open_tcp_stream("127.0.0.1", server.port or 0)
                async with client(server, stream=other) as again:
                    await assert_echo(again)
                    with pytest.raises(ConnectionClosed):
                        await connection.send("x")
                        await connection.receive()
                    await connection.wait_closed()
                    await assert_echo(again)
        for connection in connections:
            await assert_echo(connection)
