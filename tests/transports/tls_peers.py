"""TLS servers on Python's ``ssl`` in threads, and connections to them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from tests.transports.servers import (
    CLOSE_1000,
    Request,
    authority,
    client_context,
    server_context,
    upgrade,
)
from trioglock import (
    Connection,
    Headers,
    Socket,
    connect,
)
from trioglock.transports.native import Decoder, Encoder

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])

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

        with trio.fail_after(300):
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


def asking_for_a_certificate(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    authority().configure_trust(context)
    return context


async def echoing(conn: Connection[Any]) -> None:
    async for message in conn:
        await conn.send(message)
