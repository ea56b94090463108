"""The TLS handshake on a socket: alerts, ends, and the certificates of both sides."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from tests.transports.servers import (
    authority,
    client_context,
    failure,
    server_context,
)
from tests.transports.tls_peers import (
    Handler,
    asking_for_a_certificate,
    both_versions,
    echo,
    echoing,
    in_thread,
    over_tls,
    to,
)
from trioglock import (
    Backoff,
    ConnectFailed,
    Connection,
    Response,
    TLSFailed,
    TrioWebsocketTransport,
    connect,
    serve,
)
from trioglock.transports.native.tls_io import TLSSocketIO


def alert(description: int) -> Handler:
    def run(plain: socket.socket) -> None:
        plain.recv(2**16)
        plain.sendall(bytes((0x15, 3, 3, 0, 2, 2, description)))
        plain.recv(2**16)

    return run


@pytest.mark.parametrize(
    ("description", "error"), [(40, TLSFailed), (70, TLSFailed), (80, ConnectFailed)]
)
async def test_fault_02_only_a_verdict_is_final(description: int, error: type[Exception]) -> None:
    """handshake_failure and protocol_version are verdicts; internal_error may be temporary."""
    async with in_thread(alert(description)) as port:
        assert type(await failure(f"wss://127.0.0.1:{port}/")) is error


def hang_up(plain: socket.socket) -> None:
    plain.recv(2**16)


def hang_up_with_reset(plain: socket.socket) -> None:
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.recv(10)


def hang_up_before_the_hello(plain: socket.socket) -> None:
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up_inside_a_record(plain: socket.socket) -> None:
    plain.recv(2**16)
    plain.sendall(b"\x16\x03\x03\x00\x7a\x02")


def close_notify(plain: socket.socket) -> None:
    plain.recv(2**16)
    plain.sendall(bytes((0x15, 3, 3, 0, 2, 1, 0)))


def hang_up_after_the_handshake(plain: socket.socket) -> None:
    server_context().wrap_socket(plain, server_side=True).close()


@asynccontextmanager
async def failing_once(script: Handler) -> AsyncIterator[int]:
    """Run ``script`` for the first client, and a server that works for the second one."""
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    attempts = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal attempts
        attempts += 1
        plain = socket.socket(fileno=stream.socket.detach())
        plain.setblocking(True)
        with plain, suppress(OSError):
            await trio.to_thread.run_sync(script if attempts == 1 else over_tls(echo), plain)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listener)
        with trio.fail_after(300):
            yield listener[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
    assert attempts == 2


ENDS = [
    hang_up,
    hang_up_with_reset,
    hang_up_before_the_hello,
    hang_up_inside_a_record,
    close_notify,
    hang_up_after_the_handshake,
]


@pytest.mark.parametrize("script", ENDS)
@pytest.mark.parametrize("kind", ["socket", "other stream", "other transport"])
async def test_fault_02_a_handshake_without_a_verdict_is_retried(
    script: Handler, kind: str
) -> None:
    """An end inside the TLS handshake is a failure of the network, as behind a load balancer."""
    options: dict[str, Any] = {"reconnect": Backoff(initial=0.01)}
    if kind == "other transport":
        options["transport"] = TrioWebsocketTransport()
    async with failing_once(script) as port:

        async def open_stream() -> trio.abc.Stream:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            return trio.StapledStream(stream, stream)

        if kind == "other stream":
            options["stream"] = open_stream
        async with to(port, **options) as conn:
            await conn.send("hello")
            assert await conn.receive() == "hello"


@pytest.mark.parametrize("script", ENDS[:-1])
async def test_fault_02_the_tls_of_a_proxy_is_retried_too(script: Handler) -> None:
    """The handshake with a proxy fails in the same ways."""
    async with in_thread(script) as port:
        error = await failure("ws://example.org/", proxy=f"https://127.0.0.1:{port}")
    assert type(error) is ConnectFailed


@pytest.mark.skipif(sys.platform == "win32", reason="trio.SSLStream sends no alert")
@both_versions
async def test_fault_49_a_server_explains_why_it_rejects_a_client(version: ssl.TLSVersion) -> None:
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


@pytest.mark.skipif(sys.platform == "win32", reason="trio.SSLStream sends no alert")
async def test_a_client_without_tls_is_not_reset() -> None:
    """A failed handshake ends the stream cleanly: a reset could discard the alert."""

    def client(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n" * 5000)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(100):
                pass

    async with serve(echoing, "127.0.0.1", 0, ssl_context=server_context()) as server:
        assert server.port is not None
        await trio.to_thread.run_sync(client, server.port)


@pytest.mark.skipif(sys.platform == "win32", reason="trio.SSLStream loses the alert")
async def test_fault_49_an_alert_that_precedes_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that rejects a certificate (TLS 1.3) and resets the connection is a TLSFailed."""
    context = asking_for_a_certificate(ssl.TLSVersion.TLSv1_3)
    token = trio.lowlevel.current_trio_token()
    closed = trio.Event()

    def run(plain: socket.socket) -> None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_side=True)
        finally:
            plain.close()
            trio.from_thread.run_sync(closed.set, trio_token=token)

    async def send_all(self: TLSSocketIO, data: bytes) -> None:
        await closed.wait()
        await trio.sleep(0.05)
        await original(self, data)

    original = TLSSocketIO.send_all
    monkeypatch.setattr(TLSSocketIO, "send_all", send_all)
    async with in_thread(run) as port:
        assert isinstance(
            await failure(f"wss://127.0.0.1:{port}/", ssl_context=client_context()), TLSFailed
        )
    assert closed.is_set()


@both_versions
async def test_fault_49_a_proxy_that_misses_a_client_certificate(
    version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a TLSFailed here too, not a proxy that hangs up."""
    context = asking_for_a_certificate(version)

    def run(plain: socket.socket) -> None:
        tls = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            while socket.socket.recv(tls, 2**16):
                pass  # a reset could discard the alert

    with authority().cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        async with in_thread(run) as port:
            error = await failure("ws://example.org/", proxy=f"https://127.0.0.1:{port}")
    assert type(error) is TLSFailed


async def test_the_certificate_of_a_server() -> None:
    """``handshake`` has the server's certificate, decoded and in DER form; its repr does not."""
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
