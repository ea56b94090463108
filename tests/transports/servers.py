"""Servers written by hand, which send exactly the bytes of a test.

A script is ``async def script(stream)`` and plays the server on one raw stream. It can be
served over TCP (:func:`serving`) or in memory (``memory_stream_pair``, for tests with a clock).
"""

from __future__ import annotations

import base64
import gc
import hashlib
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair

from trioglock import (
    ConnectOptions,
    Headers,
    NativeTransport,
    Transport,
    TrioglockError,
    TrioWebsocketTransport,
    connect,
)

Script: TypeAlias = Callable[[trio.abc.Stream], Awaitable[object]]
MakeTransport: TypeAlias = Callable[[], Transport]

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
CLOSE_1000 = b"\x88\x02\x03\xe8"

URL = "ws://memory.test/"

on_both = pytest.mark.parametrize(
    "transport", [NativeTransport, TrioWebsocketTransport], ids=["native", "trio-websocket"]
)


@dataclass(frozen=True)
class Request:
    """The request of a client."""

    line: str
    headers: Headers

    @property
    def target(self) -> str:
        return self.line.split()[1]


async def read_request(stream: trio.abc.Stream) -> Request:
    """Read the head of an HTTP request; the client sends nothing more before the response."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            raise trio.BrokenResourceError("the client hung up")
        data += more
    assert data.endswith(b"\r\n\r\n")
    line, *rest = data.decode("latin-1").split("\r\n")
    pairs = (header.partition(": ") for header in rest if header)
    return Request(line, Headers((name, value) for name, _, value in pairs))


def response(status: str, *headers: str, body: bytes = b"") -> bytes:
    """An HTTP response, its headers exactly as given."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


def upgrade(
    request: Request, *headers: str, connection: str = "Upgrade", protocol: str = "websocket"
) -> bytes:
    """A valid 101, with additional headers at the end."""
    key = request.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    digest = hashlib.sha1(key.encode(), usedforsecurity=False).digest()
    return response(
        "101 Switching Protocols",
        f"Upgrade: {protocol}",
        f"Connection: {connection}",
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
        *headers,
    )


def text(message: str) -> bytes:
    """A short text frame as servers send it."""
    return bytes([0x81, len(message)]) + message.encode()


async def close(stream: trio.abc.Stream) -> None:
    """Wait for the client's Close frame or the end, reply and disconnect."""
    await stream.receive_some()
    await stream.send_all(CLOSE_1000)
    await stream.aclose()


async def hold(stream: trio.abc.Stream) -> None:
    """Send nothing and wait for the client to disconnect."""
    while await stream.receive_some():
        pass


def answering(*parts: bytes) -> Script:
    """A script that reads a request, sends ``parts`` and disconnects."""

    async def script(stream: trio.abc.Stream) -> None:
        await read_request(stream)
        for part in parts:
            await stream.send_all(part)

    return script


def upgrading(requests: list[Request], *headers: str) -> Script:
    """A script that upgrades every client, records its request and closes cleanly."""

    async def script(stream: trio.abc.Stream) -> None:
        requests.append(await read_request(stream))
        await stream.send_all(upgrade(requests[-1], *headers))
        await close(stream)

    return script


async def play(script: Script, stream: trio.abc.Stream) -> None:
    """Run a script to its end or the client's, then disconnect."""
    try:
        await script(stream)
    except GONE:
        pass
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def serving(
    script: Script, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Run ``script`` for every client, over TCP or TLS; returns the port."""

    async def serve(stream: trio.abc.Stream) -> None:
        if context is not None:
            stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await play(script, stream)

    [listener] = await trio.open_tcp_listeners(0, host=host)
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, serve, [listener])
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def failure(url: str, **options: Unpack[ConnectOptions]) -> TrioglockError:
    """The exception of connecting, which must be a TrioglockError."""
    with pytest.raises(TrioglockError) as caught:
        async with connect(url, **options):
            pass
    return caught.value


@asynccontextmanager
async def memory_server(script: Script) -> AsyncIterator[trio.abc.Stream]:
    """A stream to a script that runs in memory; fails after 1000 seconds."""
    near, far = memory_stream_pair()
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, script, far)
            yield near
            nursery.cancel_scope.cancel()


async def connect_error(
    script: Script, transport: MakeTransport = NativeTransport, /, **options: Unpack[ConnectOptions]
) -> tuple[TrioglockError, float]:
    """The error of connecting to this server, and the seconds until it was raised."""
    async with memory_server(script) as stream:
        start = trio.current_time()
        options["transport"], options["stream"] = transport(), stream
        error = await failure(URL, **options)
        seconds = trio.current_time() - start
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"it leaked")
    return error, seconds


@contextmanager
def no_leak() -> Iterator[None]:
    """Fail if the block leaves a descriptor open, or closes one only by garbage collection."""
    gc.collect()  # what earlier code has left, which would count as left by the block
    before = _descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
    assert _descriptors() <= before


def _descriptors() -> set[Path]:
    found = set()
    for entry in list(Path("/proc/self/fd").iterdir()):
        # Listing the directory opens one itself, which is gone by the time it is looked at.
        with suppress(FileNotFoundError):
            found.add(entry.readlink())
    return found


class Deaf(trio.abc.SocketFactory):
    """Creates real sockets; those of these families never finish connecting."""

    def __init__(self, *families: int) -> None:
        self.families = families

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> Any:  # noqa: A002
        plain = trio.socket.from_stdlib_socket(socket.socket(family, type, proto))
        if family in self.families:
            plain.connect = lambda address: trio.sleep_forever()  # type: ignore[method-assign]
        return plain


class Unconnected(trio.abc.SocketFactory):
    """Makes sockets that connect with a function, whatever the family of the address."""

    def __init__(self, connect: Callable[[Any], Coroutine[Any, Any, None]] | None = None) -> None:
        self.connect = connect

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> Any:  # noqa: A002
        plain: Any = trio.socket.from_stdlib_socket(socket.socket(socket.AF_INET, type, 0))
        to_loopback = plain.connect
        plain.connect = self.connect or (lambda address: to_loopback(("127.0.0.1", address[1])))
        return plain


class Resolver(trio.abc.HostnameResolver):
    """Resolves every name to the given addresses, in order."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the resolver's own interface
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        assert host is not None
        self.asked.append(host.decode())
        await trio.lowlevel.checkpoint()
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.addresses
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def resolve_to(*addresses: str) -> Resolver:
    """Resolve every name to these addresses during this test."""
    resolver = Resolver(*addresses)
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


@cache
def authority() -> trustme.CA:
    """The authority that issues the tests' certificates; only the tests trust it."""
    return trustme.CA()


def server_context(*names: str) -> ssl.SSLContext:
    """For a server whose certificate has these names, by default ``127.0.0.1``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _certificate(*(names or ("127.0.0.1",))).configure_cert(context)
    return context


@cache
def _certificate(*names: str) -> trustme.LeafCert:
    return authority().issue_cert(*names)


def client_context() -> ssl.SSLContext:
    """For a client that trusts only the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context
