"""TLS on a socket, against Python's ``ssl`` in threads and the ``openssl`` program."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.transports.servers import (
    CLOSE_1000,
    Request,
    authority,
    client_context,
    failure,
    no_leak,
    server_context,
    text,
    upgrade,
)
from trioglock import (
    Backoff,
    ConnectFailed,
    Connection,
    ConnectionClosedError,
    Headers,
    Reply,
    Response,
    Socket,
    TLSFailed,
    connect,
    serve,
)
from trioglock.transports.native import Decoder, Encoder

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")

Handler = Callable[[Any], None]


def request_of(head: bytes) -> Request:
    line, *rest = head.decode("latin-1").split("\r\n")
    return Request(line, Headers(tuple(header.split(": ", 1)) for header in rest if header))  # type: ignore[misc]


def accept(tls: ssl.SSLSocket) -> None:
    """Do the server's opening handshake."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += tls.recv(1)
    tls.sendall(upgrade(request_of(head)))


@asynccontextmanager
async def in_thread(handler: Handler) -> AsyncIterator[int]:
    """Run ``handler(socket)`` in a thread for one client; returns the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def run() -> None:
            plain, _ = listener.accept()
            plain.settimeout(20)
            with plain, suppress(OSError):
                handler(plain)

        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, run)
                yield listener.getsockname()[1]


def over_tls(handler: Handler, version: ssl.TLSVersion = VERSIONS[-1]) -> Handler:
    """A handler of a plain socket that upgrades it and calls ``handler(ssl_socket)``."""
    context = server_context()
    context.maximum_version = version

    def run(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as tls:
            accept(tls)
            handler(tls)

    return run


def to(port: int, socket: Socket[Any] | None = None, /, **options: Any) -> Any:
    options = {"ssl_context": client_context(), "compression": None, **options}
    return connect(f"wss://127.0.0.1:{port}/", socket, **options)


def echo(tls: ssl.SSLSocket) -> None:
    """Echo messages until the client closes."""
    decoder = Decoder(masked=True, max_size=None, deflate=None)
    encoder = Encoder(mask=False, deflate=None)
    while data := tls.recv(2**16):
        for event in decoder.feed(data):
            if not isinstance(event, list):
                tls.sendall(CLOSE_1000)
                return
            tls.sendall(encoder.encode(event))


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
    async with in_thread(over_tls(late)) as port:
        async with to(port, write_limit=2**30) as conn:
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
        for number in range(20):
            tls.write(text(f"slow {number}"))
        for byte in outgoing.read():
            plain.sendall(bytes([byte]))
        plain.recv(1)

    async with in_thread(run) as port, to(port) as conn:
        for number in range(3000):
            assert await conn.receive() == str(number)
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
    assert ("decryption failed" in repr(caught.value.__cause__)) == (end is corrupt)


def alert(description: int) -> Handler:
    def run(plain: socket.socket) -> None:
        plain.recv(2**16)
        plain.sendall(bytes((0x15, 3, 3, 0, 2, 2, description)))
        plain.recv(2**16)

    return run


@pytest.mark.parametrize(
    ("description", "error"), [(40, TLSFailed), (70, TLSFailed), (80, ConnectFailed)]
)
async def test_alerts_in_the_handshake(description: int, error: type[Exception]) -> None:
    """handshake_failure and protocol_version are verdicts; internal_error may be temporary."""
    async with in_thread(alert(description)) as port:
        assert type(await failure(f"wss://127.0.0.1:{port}/")) is error


def hang_up(plain: socket.socket) -> None:
    plain.recv(2**16)


def hang_up_with_reset(plain: socket.socket) -> None:
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.recv(10)


@pytest.mark.parametrize("script", [hang_up, hang_up_with_reset])
async def test_a_handshake_without_a_verdict_is_retried(script: Handler) -> None:
    """An end inside the TLS handshake is a failure of the network, as behind a load balancer."""
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    attempts = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal attempts
        attempts += 1
        plain = stream.socket._sock if False else socket.socket(fileno=stream.socket.detach())  # type: ignore[attr-defined]
        plain.setblocking(True)
        with plain:
            if attempts == 1:
                await trio.to_thread.run_sync(script, plain)
            else:
                with suppress(OSError):
                    await trio.to_thread.run_sync(over_tls(echo), plain)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listener)
        port = listener[0].socket.getsockname()[1]
        with trio.fail_after(10):
            async with to(port, reconnect=Backoff(initial=0.01)) as conn:
                await conn.send("hello")
                assert await conn.receive() == "hello"
        nursery.cancel_scope.cancel()
    assert attempts == 2


def asking_for_a_certificate(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    authority().configure_trust(context)
    return context


async def echoing(conn: Connection[Any]) -> None:
    async for message in conn:
        await conn.send(message)


@both_versions
async def test_a_server_explains_why_it_rejects_a_client(version: ssl.TLSVersion) -> None:
    """A client without a certificate receives the alert, and does not retry."""

    def client(port: int) -> str:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            pytest.raises(ssl.SSLError) as caught,
            client_context().wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
            tls.recv(100)
        return str(caught.value.reason)

    async with serve(
        echoing, "127.0.0.1", 0, ssl_context=asking_for_a_certificate(version)
    ) as server:
        assert server.port is not None
        reason = await trio.to_thread.run_sync(client, server.port)
        assert "ALERT" in reason
        with pytest.raises(TLSFailed) as caught:
            async with to(server.port, reconnect=True):
                pass
    assert "alert" in str(caught.value)


async def test_an_alert_that_precedes_a_reset() -> None:
    """A server that rejects a certificate (TLS 1.3) and resets the connection is a TLSFailed."""
    context = asking_for_a_certificate(ssl.TLSVersion.TLSv1_3)
    token = trio.lowlevel.current_trio_token()
    closed = trio.Event()

    def run(plain: socket.socket) -> None:
        try:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_side=True)
        finally:
            plain.close()
            trio.from_thread.run_sync(closed.set, trio_token=token)

    class Slow(trio.SocketStream):
        async def send_all(self, data: Any) -> None:
            await super().send_all(data)

    async with in_thread(run) as port:
        assert isinstance(
            await failure(f"wss://127.0.0.1:{port}/", ssl_context=client_context()), TLSFailed
        )
    assert closed.is_set()


# Certificates.


async def test_the_certificate_of_a_server() -> None:
    """``handshake`` has the server's certificate, decoded and in DER form, and does not print it."""
    async with in_thread(over_tls(echo)) as port, to(port) as conn:
        handshake = conn.handshake
        assert handshake is not None
        assert handshake.peer_certificate is not None
        assert handshake.peer_certificate["subjectAltName"] == (("IP Address", "127.0.0.1"),)
        der = handshake.peer_certificate_der
        assert der is not None
        assert ssl.DER_cert_to_PEM_cert(der).startswith("-----BEGIN CERTIFICATE")
        assert "certificate" not in repr(handshake)
        hash(handshake)


async def test_a_certificate_that_is_not_verified() -> None:
    """Without verification only the DER form is known, to compare a fingerprint."""
    context = client_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with in_thread(over_tls(echo)) as port, to(port, ssl_context=context) as conn:
        assert conn.handshake.peer_certificate == {}
        assert conn.handshake.peer_certificate_der


@pytest.mark.parametrize("has_certificate", [True, False])
async def test_the_certificate_of_a_client(has_certificate: bool) -> None:
    """A request and the connection have the client's certificate, which may decide."""
    seen: list[Any] = []

    def decide(request: Any) -> Response | None:
        seen.append(request.peer_certificate)
        assert "certificate" not in repr(request)
        return None if request.peer_certificate_der else Response(403)

    async def handler(conn: Connection[Any]) -> None:
        assert conn.handshake is not None
        seen.append(conn.handshake.peer_certificate)
        await echoing(conn)

    server = server_context()
    server.verify_mode = ssl.CERT_OPTIONAL
    authority().configure_trust(server)
    context = client_context()
    if has_certificate:
        authority().issue_cert("me@example.org").configure_cert(context)
    async with serve(handler, "127.0.0.1", 0, ssl_context=server, process_request=decide) as served:
        assert served.port is not None
        url = f"wss://127.0.0.1:{served.port}/"
        if not has_certificate:
            assert "403" in str(await failure(url, ssl_context=context))
            assert seen == [None]
            return
        async with connect(url, ssl_context=context) as conn:
            await conn.send("x")
            assert await conn.receive() == "x"
    assert [found["subjectAltName"] for found in seen] == [(("email", "me@example.org"),)] * 2


# The openssl program, which can update keys and renegotiate.


class Openssl:
    """An ``openssl`` process; lines that it receives as input are data or commands."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._output = bytearray()

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(data)

    async def read_until(self, end: bytes) -> bytes:
        assert self._process.stdout is not None
        while end not in self._output:
            data = await self._process.stdout.receive_some()
            assert data, self._output
            self._output += data
        found, _, rest = bytes(self._output).partition(end)
        self._output[:] = rest
        return found + end


@asynccontextmanager
async def openssl(*arguments: str) -> AsyncIterator[Openssl]:
    pipe = subprocess.PIPE
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process,
                    ["openssl", *arguments],
                    stdin=pipe,
                    stdout=pipe,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            )
            yield Openssl(process)
            process.kill()


@needs_openssl
@pytest.mark.parametrize(
    ("option", "command"),
    [("-tls1_3", b"k\n"), ("-tls1_3", b"K\n"), ("-tls1_2", b"r\n")],
    ids=["key update", "key update of both", "renegotiation"],
)
async def test_a_server_that_changes_the_keys(tmp_path: Path, option: str, command: bytes) -> None:
    """Key updates (TLS 1.3) and renegotiation (TLS 1.2) do not disturb the connection."""
    pem = tmp_path / "server.pem"
    authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with openssl("s_server", "-accept", str(port), "-cert", str(pem), option) as server:
        await server.read_until(b"ACCEPT\n")
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                head = await server.read_until(b"\r\n\r\n")
                await server.write(upgrade(request_of(head[head.index(b"GET ") :])))

            nursery.start_soon(answer)
            async with to(port, ping_interval=None) as conn:
                for number in range(3):
                    await conn.send_frame("ping")  # masked, so only its length can be seen
                    await trio.sleep(0.05)
                    await server.write(command)
                    await trio.sleep(0.2)
                    await server.write(text(f"after {number}\n"))
                    assert await conn.receive() == f"after {number}\n"
                await conn.send("x" * 100_000)
                await conn.flush()
                conn.abort()


class Echo(Socket[None]):
    def handle_receive(self, frame: Any, state: None) -> Any:
        return Reply(frame), state


@needs_openssl
@pytest.mark.parametrize("command", [b"k\n", b"K\n"], ids=["one", "both"])
async def test_a_client_that_updates_the_keys(command: bytes) -> None:
    """A server continues with the new keys in both directions."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    async with serve(Echo(), "127.0.0.1", 0, ssl_context=server_context()) as server:
        async with openssl("s_client", "-tls1_3", "-connect", f"127.0.0.1:{server.port}") as client:
            await client.write(
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
            )
            await client.read_until(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            for number in range(3):
                await client.write(command)
                await client.read_until(b"KEYUPDATE\n")
                message = f"after {number}".encode()
                await client.write(bytes((0x81, 0x80 | len(message), 0, 0, 0, 0)) + message)
                await client.read_until(message)
