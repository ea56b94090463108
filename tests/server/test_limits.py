"""18, 42: a bad client never affects another; its resources are bounded."""

from __future__ import annotations

import errno
import gc
import socket
import tracemalloc

import pytest
import trio
import trio.testing

from tests.server.helpers import (
    Echo,
    LockstepListener,
    MakeTransport,
    RawClient,
    frame,
    logged,
    on_both,
    plain_request,
    request,
    serving,
)
from trioglock import HandshakeRefused, MemoryListener, Response, connect, serve

HALF_OPEN = 2000
MAX_SIZE = 1000


async def test_a_handshake_that_never_ends_is_dropped_at_open_timeout(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Silent, or one byte a second: the time is the same, with one log line."""
    caplog.set_level("INFO")
    async with serving(Echo, open_timeout=7) as site:
        for trickle in (b"", b"x"):
            began = trio.current_time()
            client = await site.raw()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_trickle, client, trickle)
                assert await client.stream.receive_some() == b""
                assert trio.current_time() - began == pytest.approx(7)
                nursery.cancel_scope.cancel()
            await client.stream.aclose()
    assert logged(caplog) == ["a client: the opening handshake timed out"] * 2


async def test_a_refused_client_that_stays_is_logged_once(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Its timeout expires while the server waits for it to disconnect."""
    caplog.set_level("INFO")
    async with serving(Echo, open_timeout=7) as site:
        client = await site.raw()
        await trio.sleep(6.5)
        await client.send(plain_request())
        assert (await client.head()).startswith(b"HTTP/1.1 426 ")
        while await client.stream.receive_some():
            pass
        await trio.sleep(2)
        await client.stream.aclose()
    [line] = logged(caplog)
    assert "refused: 426" in line


async def _trickle(client: RawClient, byte: bytes) -> None:
    await client.send(b"GET / HTTP/1.1\r\nX: ")
    while True:
        await trio.sleep(1)
        if byte:
            await client.send(byte)


@pytest.mark.slow
async def test_scenario_42_2000_half_open_connections_are_bounded_and_the_others_served(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """They cost little, end at open_timeout, are logged once each; others are served."""
    caplog.set_level("INFO")
    async with serving(Echo, open_timeout=10) as site, site.dial() as before:
        gc.collect()
        tracemalloc.start()
        half_open = [await site.raw() for _ in range(HALF_OPEN)]
        for client in half_open:
            await client.send(b"GET /chat HTTP/1.1\r\nHost: ")
        await trio.testing.wait_all_tasks_blocked()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert held < HALF_OPEN * 20_000
        async with site.dial() as conn:
            for other in (conn, before):
                await other.send("served")
                assert await other.receive() == "served"
        began = trio.current_time()
        for client in half_open:
            assert await client.everything() == b""
        assert trio.current_time() - began <= 10
        await before.ping()
    assert len(logged(caplog)) == HALF_OPEN


@pytest.mark.slow
async def test_scenario_42_2000_half_open_sockets_are_bounded_and_the_others_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same on the network, with fewer allowed: all resources are released."""
    resource = pytest.importorskip("resource", reason="no limits of open files on this system")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * HALF_OPEN + 100:
        pytest.skip("too few files may be open for 2,000 connections, see ulimit -n")
    caplog.set_level("INFO")
    allowed = HALF_OPEN // 2
    with trio.fail_after(300):
        async with serve(Echo, "127.0.0.1", 0, max_handshakes=allowed, open_timeout=60) as server:
            await trio.testing.wait_all_tasks_blocked()
            tasks = trio.lowlevel.current_statistics().tasks_living
            half_open = []
            for number in range(HALF_OPEN):
                client = socket.create_connection(("127.0.0.1", server.port))
                half_open.append(client)
                client.sendall(b"GET /chat HTTP/1.1\r\nHost: ")
                # The server accepts before its backlog is full.
                await trio.lowlevel.checkpoint()
                if number % 500 == 499:
                    async with connect(f"ws://127.0.0.1:{server.port}/") as conn:
                        await conn.send("served")
                        assert await conn.receive() == "served"
            assert trio.lowlevel.current_statistics().tasks_living < tasks + allowed + 100
            for client in half_open:
                client.close()
            while trio.lowlevel.current_statistics().tasks_living > tasks:
                await trio.sleep(0.01)
    dropped = HALF_OPEN + 4 - allowed
    assert HALF_OPEN - allowed <= len(logged(caplog)) <= dropped
    assert all("dropped" in line for line in logged(caplog))


async def test_too_many_handshakes_drop_the_one_that_began_first(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """So many that the timeout is too long: new clients are served."""
    caplog.set_level("INFO")
    async with serving(Echo, max_handshakes=3) as site:
        clients = []
        for _ in range(5):
            clients.append(await site.raw())
            await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        assert [await client.everything() for client in clients[:2]] == [b"", b""]
        assert trio.current_time() == began
        await clients[4].send(request())
        assert b"101" in await clients[4].head()
        async with site.dial() as conn:
            await conn.ping()
        for client in clients:
            await client.stream.aclose()
    assert (
        logged(caplog)
        == ["a client: dropped because of too many concurrent opening handshakes"] * 2
    )


@on_both
async def test_an_oversized_message_is_told_1009_and_nobody_else_minds(
    transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole or in fragments; the header alone is enough to refuse it."""
    caplog.set_level("INFO")
    async with (
        serving(Echo, max_size=MAX_SIZE, transport=transport()) as site,
        site.dial() as good,
    ):
        bad = await site.upgraded()
        await bad.send(frame(0x81, b"x" * MAX_SIZE))
        assert len(await _receive(bad, 4 + MAX_SIZE)) == 4 + MAX_SIZE
        await bad.send(frame(0x81, b"x" * (MAX_SIZE + 1)))
        assert await bad.close_code() == 1009
        await bad.stream.aclose()
        pieces = await site.upgraded()
        await pieces.send(frame(0x01, b"x" * MAX_SIZE) + frame(0x80, b"x"))
        assert await pieces.close_code() == 1009
        await pieces.stream.aclose()
        await good.send("good")
        assert await good.receive() == "good"
    assert len(logged(caplog)) == 2
    assert all("closed with 1009" in line for line in logged(caplog))


async def _receive(client: RawClient, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await client.stream.receive_some(size - len(data))
    return data


VIOLATIONS = {
    "invalid UTF-8": (frame(0x81, b"ok\xff"), 1007),
    "invalid UTF-8, the message not at its end": (frame(0x01, b"ok\xff"), 1007),
    "a frame without a mask": (b"\x81\x02hi", 1002),
    "a reserved opcode": (frame(0x83, b""), 1002),
    "a reserved bit": (frame(0xA1, b""), 1002),
    "a long ping": (frame(0x89, b"x" * 126), 1002),
    "a continuation of nothing": (frame(0x80, b"x"), 1002),
}


@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=list(VIOLATIONS))
async def test_a_broken_protocol_is_told_its_code_and_nobody_else_minds(
    data: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Earlier messages are answered; there is one log line; the stream ends immediately."""
    caplog.set_level("INFO")
    async with serving(Echo) as site, site.dial() as good:
        bad = await site.upgraded()
        await bad.send(frame(0x81, b"before") + data)
        assert await bad.frame() == (0x81, b"before")
        assert await bad.close_code() == code
        assert await bad.everything() == b""
        await good.send("good")
        assert await good.receive() == "good"
    [line] = logged(caplog)
    assert f"closed with {code}" in line


async def test_max_connections_are_let_in_and_the_next_gets_503(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With Retry-After; after a disconnect the next one is accepted. Plain HTTP still works."""
    caplog.set_level("INFO")
    async with serving(Echo, max_connections=2) as site, site.dial() as first:
        async with site.dial():
            with pytest.raises(HandshakeRefused) as caught:
                async with site.dial():
                    raise AssertionError
            assert caught.value.status == 503
            assert caught.value.headers["retry-after"] == "5"
            assert (await site.ask(plain_request())).status == 426
        await trio.testing.wait_all_tasks_blocked()
        async with site.dial() as conn:
            await conn.ping()
        await first.ping()
    assert sum("503 too many connections" in line for line in logged(caplog)) == 1


async def test_refused_clients_take_no_place(autojump_clock: object) -> None:
    """Refused, slow and disconnected clients do not count."""
    async with serving(Echo, max_connections=1, open_timeout=1) as site:
        for _ in range(3):
            await site.ask(plain_request())
            gone = await site.raw()
            await gone.send(request())
            await gone.stream.aclose()
            silent = await site.raw()
            assert await silent.everything() == b""
        async with site.dial() as conn:
            await conn.ping()


async def test_scenario_18_a_client_gone_in_mid_handshake_is_nobodys_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """18: however much it had sent, nothing is logged above INFO, and the server survives."""
    caplog.set_level("INFO")
    with trio.fail_after(300):
        async with serve(Echo, "127.0.0.1", 0) as server:
            assert server.port is not None
            for size in (0, 1, 20, len(request()) - 1, len(request())):
                for reset in (False, True):
                    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                    if reset:  # RST instead of FIN
                        stream.setsockopt(
                            trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1" + 7 * b"\0"
                        )
                    if size:
                        await stream.send_all(request()[:size])
                    await stream.aclose()
            async with connect(f"ws://127.0.0.1:{server.port}") as conn:
                await conn.send("alive")
                assert await conn.receive() == "alive"
    assert not logged(caplog, "WARNING")
    assert not logged(caplog, "ERROR")


class Exhausted(MemoryListener):
    """A listener that has no file descriptors for a while."""

    failures = 25

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return await super().accept()


async def test_a_process_without_file_descriptors_accepts_again_later(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """EMFILE is logged once, not for every attempt; clients wait in the backlog meanwhile."""
    listener = Exhausted()
    began = trio.current_time()
    async with (
        serve(Echo, listeners=[listener]),
        connect("ws://memory.test/", stream=listener.open_stream) as conn,
    ):
        assert 1 < trio.current_time() - began < 5
        await conn.send("at last")
        assert await conn.receive() == "at last"
    [line] = logged(caplog, "ERROR")
    assert "too many open files" in line


async def test_a_client_that_does_not_read_is_dropped_and_the_others_served(
    autojump_clock: object,
) -> None:
    """Its send queue stays bounded, and write_timeout ends it."""
    async with serving(Echo, LockstepListener(), write_timeout=5, ping_interval=None) as site:
        began = trio.current_time()
        stuck = await site.upgraded()
        await trio.testing.wait_all_tasks_blocked()
        [conn] = site.server.connections
        with trio.move_on_after(2):
            while True:
                await stuck.send(frame(0x82, bytes(1000)))
        assert conn.statistics().send_queue_bytes < 2**17
        async with site.dial() as good:
            await good.send("good")
            assert await good.receive() == "good"
        await conn.wait_closed()
        assert 5 <= trio.current_time() - began <= 10
        await stuck.stream.aclose()


@pytest.mark.parametrize(("pause", "is_complete"), [(0.9, True), (3, False)])
async def test_a_long_response_has_more_time(
    pause: float, is_complete: bool, autojump_clock: object
) -> None:
    """A client that reads 64 KiB per second gets all of it; a slower one is dropped."""
    body = b"x" * 2**22
    received = b""
    async with serving(
        Echo, LockstepListener(), process_request=lambda _: Response(200, body)
    ) as site:
        client = await site.raw()
        await client.send(plain_request())
        await client.head()
        while data := await client.stream.receive_some(2**16):
            received += data
            await trio.sleep(pause)
    assert (received == body) is is_complete
    assert trio.current_time() < 10 + 2**22 / 2**16 + 10
