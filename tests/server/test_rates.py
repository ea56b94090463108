"""Limits on the messages and bytes per second of each client."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_library

from tests.server.helpers import Echo, frame, logged, serving
from trioglock import (
    Connection,
    ConnectionClosedError,
    InvalidOption,
    ProtocolViolation,
    Rate,
    Socket,
    TrioWebsocketTransport,
    connect,
    serve,
)
from trioglock.telemetry import BackpressureStarted, listen
from trioglock.transports.native import poller

FRAGMENT, TEXT, BINARY, PING = 0x01, 0x81, 0x82, 0x89


class Recorder(Socket[None]):
    """Records when messages and pings arrive."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.ends: list[object] = []

    def handle_receive(self, frame: Any, state: None) -> tuple[object, None]:
        self.times.append(trio.current_time())
        return None, state

    def handle_ping(self, payload: bytes, state: None) -> tuple[object, None]:
        self.times.append(trio.current_time())
        return None, state

    def terminate(self, reason: object, state: None) -> None:
        self.ends.append(reason)


@pytest.mark.parametrize("head", [TEXT, PING])
async def test_a_client_above_its_message_rate_is_slowed_down(
    head: int, autojump_clock: object
) -> None:
    """Data and pings alike, in one chunk or many; nothing is lost, and others are not affected."""
    recorder = Recorder()
    sockets = iter([recorder, Echo()])
    async with serving(lambda: next(sockets), message_rate=Rate(10, per=1)) as site:
        client = await site.upgraded()
        began = trio.current_time()
        await client.send(frame(head, b"x") * 30)
        async with site.dial() as other:
            await other.send("at once")
            assert await other.receive() == "at once"
            assert trio.current_time() == began
        await trio.sleep(10)
        times = [time - began for time in recorder.times]
        assert times[:10] == [0] * 10
        assert times[10:] == pytest.approx([0.1 * number for number in range(1, 21)])
        # The bucket is full again.
        for _ in range(12):
            await client.send(frame(head, b"x"))
        await trio.testing.wait_all_tasks_blocked()
        assert recorder.times[30:] == [trio.current_time()] * 10
        await client.stream.aclose()
    assert len(recorder.times) >= 40


@pytest.mark.parametrize(
    ("head", "rate"),
    [
        (TEXT, {"message_rate": Rate(10, per=2)}),
        (PING, {"message_rate": Rate(10, per=2)}),
        (PING, {"byte_rate": Rate(500, per=2)}),
        (FRAGMENT, {"byte_rate": Rate(500, per=2)}),
    ],
)
async def test_a_client_that_stays_above_its_rate_is_closed_with_1008(
    head: int, rate: Any, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """After it has been slowed down for ten periods; also within one endless message."""
    caplog.set_level("INFO")
    recorder = Recorder()
    async with (
        serving(lambda: recorder, **rate) as site,
        trio.open_nursery() as nursery,
    ):
        client = await site.upgraded()

        async def flood() -> None:
            await client.send(frame(head, b""))
            while True:
                await client.send(frame(0x00 if head == FRAGMENT else head, b"") * 100)
                await trio.sleep(1)

        nursery.start_soon(flood)
        began = trio.current_time()
        while (answer := await client.frame())[0] != 0x88:
            pass
        assert answer[1][:2] == (1008).to_bytes(2)
        assert 20 <= trio.current_time() - began <= 30
        await client.everything()
        assert trio.current_time() - began <= 30 + 10  # close_timeout
        nursery.cancel_scope.cancel()
    [line] = [line for line in logged(caplog) if "1008" in line]
    assert line.endswith(": closed with 1008: too many messages or bytes")
    [end] = recorder.ends
    assert isinstance(end, ProtocolViolation)
    assert len(recorder.times) <= 10 + 5 * 30 or "byte_rate" in rate


async def test_a_client_that_is_slowed_down_less_than_half_of_the_time_stays(
    autojump_clock: object,
) -> None:
    """It sends 15 messages every 2 seconds where 10 are allowed each second."""
    recorder = Recorder()
    async with serving(lambda: recorder, message_rate=Rate(10, per=1)) as site:
        client = await site.upgraded()
        for _ in range(50):
            await client.send(frame(TEXT, b"x") * 15)
            await trio.sleep(2)
        assert len(recorder.times) == 750
        await client.stream.aclose()


async def test_a_client_above_its_byte_rate_is_slowed_down(autojump_clock: object) -> None:
    """Bytes on the wire count, also of parts of a message."""
    recorder = Recorder()
    async with serving(lambda: recorder, byte_rate=Rate(1000, per=1)) as site:
        client = await site.upgraded()
        began = trio.current_time()
        await client.send(frame(BINARY, bytes(5000))[:3000])
        await trio.testing.wait_all_tasks_blocked()
        await client.send(frame(BINARY, bytes(5000))[3000:])
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(3)
        await client.send(frame(TEXT, b"next"))
        await trio.sleep(60)
        # 3,000 bytes cost two seconds, and the other 2,008 as many.
        assert [time - began for time in recorder.times] == pytest.approx([2.0, 4.008], abs=0.01)
        await client.stream.aclose()


async def test_the_end_of_the_server_does_not_wait_for_a_slow_bucket(
    autojump_clock: object,
) -> None:
    async with serving(Recorder, message_rate=Rate(1, per=60), close_timeout=3) as site:
        client = await site.upgraded()
        await client.send(frame(TEXT, b"x") * 100)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        site.server.close()
        await site.server.wait_closed()
        assert trio.current_time() - began == pytest.approx(3)
        await client.stream.aclose()


@pytest.mark.parametrize("closes_server", [True, False])
async def test_a_client_that_is_slowed_down_confirms_a_close_at_once(
    closes_server: bool, autojump_clock: object
) -> None:
    """Its Close frame is behind messages that exceed the rate."""
    took: list[float] = []

    async def handler(conn: Connection) -> None:
        with suppress(ConnectionClosedError):
            await trio.sleep(1)
            began = trio.current_time()
            if closes_server:
                site.server.close()
                await conn.wait_closed()
            else:
                await conn.aclose()
            took.extend((trio.current_time() - began, conn.close_code or 0))

    async with serving(handler, message_rate=Rate(5, per=60)) as site, site.dial() as client:
        for number in range(8):
            await client.send(str(number))
        await client.wait_closed()
    assert took == [0, 1001 if closes_server else 1000]


async def test_messages_of_a_broken_connection_are_received_at_the_rate(
    autojump_clock: object,
) -> None:
    """Also if a ping has failed meanwhile."""
    recorder = Recorder()
    rate = Rate(1, per=5)
    async with serving(lambda: recorder, message_rate=rate, ping_interval=2) as site:
        client = await site.upgraded()
        await client.send(frame(TEXT, b"x") * 9)
        await client.stream.aclose()
        await trio.sleep(100)
    assert len(recorder.times) == 9


async def test_idle_time_does_not_fill_a_bucket_above_its_size(autojump_clock: object) -> None:
    recorder = Recorder()
    async with serving(lambda: recorder, byte_rate=Rate(1000, per=1), ping_interval=None) as site:
        client = await site.upgraded()
        await trio.sleep(60)
        began = trio.current_time()
        for _ in range(2):
            await client.send(frame(BINARY, bytes(4000)))
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(60)
        assert [at - began for at in recorder.times] == pytest.approx([0, 3], abs=0.1)
        await client.stream.aclose()


async def test_a_slow_client_is_not_taken_for_a_dead_one(autojump_clock: object) -> None:
    """Its pongs wait behind its messages."""
    recorder = Recorder()
    async with (
        serving(
            lambda: recorder, message_rate=Rate(1, per=10), ping_interval=5, ping_timeout=5
        ) as site,
        site.dial() as conn,
    ):
        for number in range(8):
            await conn.send(str(number))
        await trio.sleep(65)
        assert len(recorder.times) >= 6
        await conn.send("still open")


@pytest.mark.parametrize("kind", ["poller", "tasks", "tls"])
async def test_on_a_real_socket_the_flood_of_one_client_does_not_delay_another(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops reading, so TCP stops the sender."""
    if kind == "tasks":
        monkeypatch.setattr(poller, "enabled", False)
    authority = trustme.CA()
    served = trusted = None
    if kind == "tls":
        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(served)
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
    recorder = Recorder()
    sockets = iter([recorder, Echo()])
    scheme = "ws" if served is None else "wss"
    with trio.fail_after(30):
        async with serve(
            lambda: next(sockets),
            "localhost",
            0,
            ssl_context=served,
            byte_rate=Rate(2**16, per=60),
            compression=None,
            close_timeout=0.1,
        ) as server:
            url = f"{scheme}://localhost:{server.port}/"

            async def flood() -> None:
                async with connect(url, ssl_context=trusted, close_timeout=0.1) as conn:
                    opened.set()
                    while True:
                        await conn.send(bytes(2**14))

            opened = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood)
                await opened.wait()
                async with connect(url, ssl_context=trusted) as other:
                    while not recorder.times:
                        await trio.sleep(0.01)
                    for number in range(100):
                        await other.send(str(number))
                        assert await other.receive() == str(number)
                nursery.cancel_scope.cancel()
            server.abort()
    # One chunk may be above the limit.
    assert len(recorder.times) < 100


async def test_a_client_of_another_library_is_closed_with_1008() -> None:
    def flood(port: int) -> int | None:
        with connect_library(f"ws://127.0.0.1:{port}/", close_timeout=0.1) as client:
            with suppress(ConnectionClosed):
                while True:
                    client.send("x")
            return client.close_code

    with trio.fail_after(300):
        async with serve(Recorder, "127.0.0.1", 0, message_rate=Rate(5, per=0.02)) as server:
            assert server.port is not None
            assert await trio.to_thread.run_sync(flood, server.port) == 1008
            server.abort()


async def test_a_handler_that_receives_fragments_is_limited(autojump_clock: object) -> None:
    times: list[float] = []

    async def handler(conn: Connection) -> None:
        while True:
            async with conn.receive_fragments() as fragments:
                async for _ in fragments:
                    pass
            times.append(trio.current_time())

    async with serving(handler, fragments=True, message_rate=Rate(1, per=1)) as site:
        client = await site.upgraded()
        await client.send(frame(TEXT, b"x") * 3)
        await trio.sleep(5)
        assert times == pytest.approx([times[0], times[0] + 1, times[0] + 2])
        await client.stream.aclose()


async def test_a_slowed_reader_is_an_event(autojump_clock: object) -> None:
    events: list[BackpressureStarted] = []
    async with serving(Recorder, message_rate=Rate(1, per=1)) as site:
        with listen(events.append, BackpressureStarted):
            client = await site.upgraded()
            await client.send(frame(TEXT, b"x") * 2)
            await trio.sleep(2)
            await client.stream.aclose()
    assert [event.queue for event in events] == ["rate_limit"]


@pytest.mark.parametrize("name", ["message_rate", "byte_rate"])
def test_other_values_are_invalid(name: str) -> None:
    async def handler(conn: Connection) -> None: ...

    options: Any
    for bad in (100, "100", Rate(1, margin=0.1)):
        options = {name: bad}
        with pytest.raises(InvalidOption, match=f"{name} must be a Rate"):
            serve(handler, port=0, **options)
    options = {name: Rate(1), "transport": TrioWebsocketTransport()}
    with pytest.raises(InvalidOption, match="use NativeTransport"):
        serve(handler, port=0, **options)
