"""Data over TLS on a socket, against Python's ``ssl`` in threads."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.transports.servers import (
    no_leak,
    server_context,
    text,
    upgrade,
)
from tests.transports.tls_peers import (
    both_versions,
    echo,
    in_thread,
    over_tls,
    request_of,
    to,
)
from trioglock import (
    ConnectionClosedError,
)
from trioglock.transports.native import Decoder


@both_versions
async def test_messages_of_every_size(version: ssl.TLSVersion) -> None:
    """Messages below, at and above the size of a record come back unchanged."""
    messages = [bytes([n % 251]) * n for n in (0, 1, 70, 16383, 16384, 16385, 65536, 2**20)]
    with no_leak():
        async with in_thread(over_tls(echo, version)) as port, to(port, max_size=None) as conn:
            for message in messages:
                await conn.send(message)
                assert await conn.receive() == message


@both_versions
async def test_both_directions_at_once(version: ssl.TLSVersion) -> None:
    """Partial writes, while data arrives, lose and repeat nothing."""
    count = 300
    messages = [bytes([n % 256]) * (n * 97) for n in range(count)]
    async with (
        in_thread(over_tls(echo, version)) as port,
        to(port, write_limit=2**30, max_queue=None) as conn,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            for message in messages:
                await conn.send(message)

        nursery.start_soon(send)
        for message in messages:
            assert await conn.receive() == message


async def test_a_full_socket() -> None:
    """What a stalled peer does not accept at first is sent once, in order."""
    ready = trio.Event()
    token = trio.lowlevel.current_trio_token()
    received = bytearray()

    def late(tls: ssl.SSLSocket) -> None:
        trio.from_thread.run(ready.wait, trio_token=token)
        while data := tls.recv(2**16):
            received.extend(data)

    messages = [bytes([n]) * 100_000 for n in range(100)]
    async with in_thread(over_tls(late)) as port, to(port, write_limit=2**30) as conn:
        for message in messages:
            await conn.send(message)
        with trio.move_on_after(0.2) as scope:
            await conn.flush()
        assert scope.cancelled_caught
        ready.set()
        await conn.flush()
        conn.abort()
    decoder = Decoder(masked=True, max_size=None, deflate=None)
    events: list[Any] = []
    with memoryview(received) as view:
        for start in range(0, len(view), 2**16):
            events += decoder.feed(bytes(view[start : start + 2**16]))
    assert [message for event in events for message in event] == messages


async def test_records_that_arrive_in_bursts_and_in_pieces() -> None:
    """Many records in one segment, and a record in many segments, are decrypted completely."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def run(plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = server_context().wrap_bio(incoming, outgoing, server_side=True)

        def until_done(function: Callable[[], Any]) -> Any:
            while True:
                try:
                    return function()
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(plain.recv(2**16))

        until_done(tls.do_handshake)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += until_done(lambda: tls.read(2**14))
        tls.write(upgrade(request_of(head)))
        for number in range(3000):
            tls.write(text(str(number)))
        plain.sendall(outgoing.read())
        plain.recv(2**16)  # nothing else arrives before all have been received
        for number in range(20):
            tls.write(text(f"slow {number}"))
        for byte in outgoing.read():
            plain.sendall(bytes([byte]))
        plain.recv(1)

    async with in_thread(run) as port, to(port) as conn:
        for number in range(3000):
            assert await conn.receive() == str(number)
        await conn.send("done")
        for number in range(20):
            assert await conn.receive() == f"slow {number}"
        conn.abort()


def notify(tls: ssl.SSLSocket) -> None:
    tls.unwrap()


def finish(tls: ssl.SSLSocket) -> None:
    tls.shutdown(socket.SHUT_RDWR)


def reset(tls: ssl.SSLSocket) -> None:
    tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def corrupt(tls: ssl.SSLSocket) -> None:
    fd = tls.detach()
    with socket.socket(fileno=fd) as plain:
        plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        plain.recv(2**16)


@both_versions
@pytest.mark.parametrize("end", [notify, finish, reset, corrupt])
async def test_a_stream_that_ends_without_a_close_frame(
    version: ssl.TLSVersion, end: Callable[[ssl.SSLSocket], None]
) -> None:
    """The connection is lost; messages that arrived before are delivered."""
    token = trio.lowlevel.current_trio_token()
    seen = trio.Event()

    def run(tls: ssl.SSLSocket) -> None:
        tls.sendall(text("first"))
        if end is reset:
            trio.from_thread.run(seen.wait, trio_token=token)  # a reset discards unread data
        end(tls)

    with no_leak():
        async with in_thread(over_tls(run, version)) as port:
            with pytest.raises(ConnectionClosedError) as caught:
                async with to(port) as conn:
                    assert await conn.receive() == "first"
                    seen.set()
                    await conn.receive()
    assert caught.value.received is None
    # The wording depends on the version of OpenSSL.
    wordings = ("decryption failed", "record layer failure")
    assert any(text in repr(caught.value) for text in wordings) == (end is corrupt)
