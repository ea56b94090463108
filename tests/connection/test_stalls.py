"""Links on which no data arrives although the peer is alive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
import websockets.sync.server
from trio.testing import MockClock

from tests.connection.raw_server import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    Ends,
    MakeTransport,
    encode,
    every_transport,
    lockstep,
    plain_and_tls,
    raw_connection,
)
from tests.pauses import PAUSING_CLOCK, block
from tests.telemetry.helpers import recorded
from trioglock import (
    Backoff,
    Close,
    Connection,
    ConnectionClosedError,
    ConnectOptions,
    InvalidOption,
    MemoryTransport,
    MessageHeartbeat,
    Pong,
    Reply,
    Socket,
    Stalled,
    StallTimeout,
    connect,
    serve,
)
from trioglock.telemetry import LinkClosed, StallDetected

URL = "ws://feed/"


async def wait_end(conn: Connection[Any]) -> float:
    """Wait for the end of the connection; return the time, on trio's clock."""
    await conn.wait_closed()
    return trio.current_time()


async def test_a_stall_ends_the_link(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Exactly after the timeout; the peer gets a Close frame, and its answer is not awaited."""
    transport, socket = MemoryTransport(), Ends()
    caplog.set_level("INFO", "trioglock.client")
    with recorded(StallDetected, LinkClosed) as seen, pytest.raises(ConnectionClosedError) as error:
        async with connect(
            URL, socket, transport=transport, stall_timeout=30, ping_interval=None
        ) as conn:
            far = await transport.accept()
            await trio.sleep(10)
            await far.write(["data"])
            assert await conn.receive() == "data"
            await conn.receive()
    assert trio.current_time() == 40
    assert error.value.cause == Stalled(seconds=30)
    assert str(error.value.cause) == "stalled: the peer sent no data for 30 seconds"
    assert socket.disconnects == socket.ends == [Stalled(seconds=30)]
    assert await far.receive() == [Close(1011, "no data for 30 s")]
    detected, closed = seen
    assert isinstance(detected, StallDetected)
    assert detected.seconds == 30
    assert isinstance(closed, LinkClosed)
    assert not closed.forced
    assert "stalled: the peer sent no data for 30 seconds" in caplog.text


async def test_the_policy_reconnects(autojump_clock: MockClock) -> None:
    """The state, the unread messages and the queued messages survive."""
    transport = MemoryTransport(capacity=1)

    class Counts(Socket[int]):
        def init_stream(self, info: Any) -> int:
            return 0

        def handle_receive(self, frame: Any, state: int) -> tuple[Any, int]:
            return frame, state + 1

    async with connect(
        URL,
        Counts(),
        transport=transport,
        stall_timeout=30,
        ping_interval=None,
        write_timeout=None,
        reconnect=Backoff(initial=1, jitter="none"),
    ) as conn:
        far = await transport.accept()
        await far.write(["one"])
        for message in ("written", "in doubt", "queued"):
            await conn.send(message)
            await trio.testing.wait_all_tasks_blocked()
        far = await transport.accept()
        assert trio.current_time() == 31
        assert await far.receive() == [["queued"]]
        await far.write(["two"])
        assert [await conn.receive(), await conn.receive()] == ["one", "two"]
        assert conn.state == 2
        assert conn.statistics().in_doubt == 1
        conn.abort()


@every_transport
async def test_pongs_are_not_data(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """Neither are pings."""
    async with (
        trio.open_nursery() as nursery,
        raw_connection(
            transport=transport(), ping_interval=2, ping_timeout=2, stall_timeout=15
        ) as (conn, peer),
    ):

        async def ping() -> None:
            while True:
                await trio.sleep(1)
                await peer.send(encode(PING))

        nursery.start_soon(peer.answer)
        nursery.start_soon(ping)
        assert await wait_end(conn) == 15
        nursery.cancel_scope.cancel()


async def test_answers_to_heartbeat_messages_are_not_data(autojump_clock: MockClock) -> None:
    """Other messages are."""
    transport = MemoryTransport()
    heartbeat = MessageHeartbeat(message=lambda: "ping", is_answer=lambda one: one == "pong")
    async with connect(
        URL, transport=transport, heartbeat=heartbeat, ping_interval=5, stall_timeout=12
    ) as conn:
        far = await transport.accept()
        await trio.sleep(7)
        await far.write(["pong", "data"])
        await trio.sleep(5)
        await far.write(["pong", "pong"])
        with pytest.raises(ConnectionClosedError):
            for _ in range(2):
                await conn.receive()
        assert trio.current_time() == 19


@every_transport
async def test_a_large_message_is_data_while_it_arrives(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Once its bytes stop, the link has stalled, whatever control frames follow."""
    message = encode(BINARY, bytes(1000))
    async with raw_connection(transport=transport(), stall_timeout=10) as (conn, peer):
        for at in range(0, 700, 100):
            await peer.send(message[at : at + 100])
            await trio.sleep(6)
        assert conn.status.value == "open"
        began = trio.current_time()
        end = await wait_end(conn)
        assert 4 <= end - began <= 7
        conn.abort()


async def test_a_message_whose_fragments_stop(autojump_clock: MockClock) -> None:
    """The pongs between the fragments do not count."""
    async with raw_connection(stall_timeout=10) as (conn, peer):
        await peer.send(encode(BINARY, b"start", fin=False))
        await trio.sleep(6)
        await peer.send(encode(CONT, b"go on", fin=False))
        async with trio.open_nursery() as nursery:

            async def pong() -> None:
                while True:
                    await peer.send(encode(PONG))
                    await trio.sleep(1)

            nursery.start_soon(pong)
            assert 16 <= await wait_end(conn) <= 18.5
            nursery.cancel_scope.cancel()


async def test_backpressure_does_not_count(autojump_clock: MockClock) -> None:
    """While the reader is paused, it is unknown whether the peer sends."""
    transport = MemoryTransport()
    async with connect(URL, transport=transport, stall_timeout=10, max_queue=1) as conn:
        far = await transport.accept()
        await far.write(["one"])
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(100)
        assert await conn.receive() == "one"
        await trio.sleep(9)
        assert conn.status.value == "open"
        assert await wait_end(conn) == pytest.approx(110)


class TestPredicate:
    """A function decides when silence is abnormal."""

    async def test_a_market_that_opens(self, autojump_clock: MockClock) -> None:
        """Silence counts from its opening."""
        transport = MemoryTransport()
        timeout = StallTimeout(30, when=lambda: trio.current_time() >= 100)
        async with connect(
            URL, transport=transport, stall_timeout=timeout, ping_interval=None
        ) as conn:
            assert 130 <= await wait_end(conn) <= 138

    async def test_a_market_that_closes_and_opens(self, autojump_clock: MockClock) -> None:
        """Silence must be abnormal for the whole timeout."""
        transport = MemoryTransport()
        timeout = StallTimeout(30, when=lambda: not 20 <= trio.current_time() < 200)
        async with connect(
            URL, transport=transport, stall_timeout=timeout, ping_interval=None
        ) as conn:
            assert 230 <= await wait_end(conn) <= 238

    async def test_silence_that_is_always_abnormal(self, autojump_clock: MockClock) -> None:
        """The end is exact."""
        transport = MemoryTransport()
        timeout = StallTimeout(30, when=lambda: True)
        async with connect(
            URL, transport=transport, stall_timeout=timeout, ping_interval=None
        ) as conn:
            far = await transport.accept()
            await trio.sleep(29)
            await far.write(["data"])
            assert await wait_end(conn) == 59

    async def test_exceptions(self, autojump_clock: MockClock) -> None:
        """They end the connection like those of hooks."""
        transport = MemoryTransport()
        timeout = StallTimeout(8, when=lambda: trio.current_time() < 5 or 1 / 0 > 1)
        with pytest.raises(ZeroDivisionError):
            async with connect(URL, transport=transport, stall_timeout=timeout, ping_interval=None):
                try:
                    await trio.sleep_forever()
                finally:
                    assert trio.current_time() == 6
        far = await transport.accept()
        assert await far.receive() == [Close(1011, "internal error")]


async def test_a_close_is_not_a_stall(autojump_clock: MockClock) -> None:
    """It has a deadline of its own."""
    transport, socket = MemoryTransport(), Ends()
    async with connect(URL, socket, transport=transport, stall_timeout=2, close_timeout=9):
        pass
    assert trio.current_time() == 9
    assert [type(end).__name__ for end in socket.ends] == ["LocalClose"]


@plain_and_tls
async def test_a_peer_that_does_not_read(secure: bool, autojump_clock: MockClock) -> None:
    """It cannot get a Close frame, which delays nothing."""
    options: ConnectOptions = {"stall_timeout": 5, "write_timeout": None}
    async with raw_connection(streams=lockstep, secure=False, **options) as (conn, _):
        await conn.send(bytes(1000))
        assert await wait_end(conn) == 5
    async with raw_connection(secure=secure, **options) as (conn, peer):
        began = trio.current_time()
        assert await wait_end(conn) == began + 5
        frames = await peer.read_all()
        assert [(frame.opcode, frame.code) for frame in frames] == [(CLOSE, 1011)]


@every_transport
async def test_the_close_frame_without_immediate_writes(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The task of the writer writes it."""
    async with raw_connection(transport=transport(), stall_timeout=5) as (conn, peer):
        assert await wait_end(conn) == 5
        frames = await peer.read_all()
        assert [(frame.opcode, frame.code) for frame in frames] == [(CLOSE, 1011)]


async def test_servers(autojump_clock: MockClock) -> None:
    """A server drops clients that send nothing."""
    ends = []

    class Records(Socket[None]):
        def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
            return Reply(frame), state

        def terminate(self, reason: Any, state: None) -> None:
            ends.append(reason)

    async with (
        serve(Records, "127.0.0.1", 0, stall_timeout=0.5) as server,
        connect(f"ws://127.0.0.1:{server.port}/") as conn,
    ):
        await conn.send("hello")
        assert await conn.receive() == "hello"
        await conn.wait_closed()
        assert (conn.close_code, conn.close_reason) == (1011, "no data for 0.5 s")
    assert ends == [Stalled(seconds=0.5)]


@contextmanager
def ticking_server(*, silent: bool = False) -> Iterator[str]:
    """Run a server of websockets in a thread, which sends a message every 50 ms."""

    def handler(peer: websockets.sync.server.ServerConnection) -> None:
        while not stop.wait(0.05):
            if not silent:
                peer.send("tick")

    stop = threading.Event()
    with websockets.sync.server.serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            stop.set()
            server.shutdown()
            thread.join()


@pytest.mark.slow
@PAUSING_CLOCK
@every_transport
async def test_a_blocked_program_is_not_a_stall(transport: MakeTransport) -> None:
    """What has arrived meanwhile is read first."""
    with ticking_server() as url:
        async with connect(
            url, transport=transport(), stall_timeout=0.5, max_queue=None, ping_interval=None
        ) as conn:
            for phase in (0.1, 0.45):
                await trio.sleep(phase)
                block(0.9)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                block(0.7)
            await trio.sleep(0.1)
            assert conn.status.value == "open"


@pytest.mark.slow
@PAUSING_CLOCK
async def test_a_silent_server_is_found_despite_pauses() -> None:
    """They postpone it, but do not prevent it."""
    with ticking_server(silent=True) as url:
        with trio.fail_after(5), pytest.raises(ConnectionClosedError) as error:
            async with connect(url, stall_timeout=0.3) as conn:
                await trio.sleep(0.1)
                block(0.9)
                await conn.receive()
        assert error.value.cause == Stalled(seconds=0.3)


def test_options() -> None:
    """They are checked at the call."""
    for wrong, text in [
        ("30", "must be a number of seconds, a StallTimeout or None"),
        (0, "must be more than 0 seconds"),
        (True, "must be a number of seconds"),
    ]:
        with pytest.raises(InvalidOption, match=text):
            connect(URL, stall_timeout=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="when must be a function or None"):
        StallTimeout(30, when=True)  # type: ignore[arg-type]

    async def asks() -> bool:
        return True

    with pytest.raises(InvalidOption, match="plain function"):
        StallTimeout(30, when=asks)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="seconds must be more than 0"):
        StallTimeout(-1)


async def test_unsolicited_pongs(autojump_clock: MockClock) -> None:
    """Some servers send them as a heartbeat; they are not data either."""
    transport = MemoryTransport()
    async with connect(URL, transport=transport, stall_timeout=10) as conn:
        far = await transport.accept()
        for _ in range(9):
            await trio.sleep(1)
            await far.write([Pong()])
        assert await wait_end(conn) == 10
