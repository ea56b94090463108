"""Servers of other libraries, each in its own process, and trioglock clients for them."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack
from urllib.parse import urlencode

import trio

from trioglock import (
    Connection,
    ConnectOptions,
    NativeTransport,
    Socket,
    Transport,
    TrioWebsocketTransport,
    connect,
)

HERE = Path(__file__).parent
NODE = HERE / "node"

SECONDS_TO_START = 30
SECONDS_TO_STOP = 10
SECONDS_OF_A_TEST = 30

MAX_SIZE = 2**21
"""The same as that of the servers."""


@dataclass(frozen=True)
class Server:
    """A server that listens on two ports of 127.0.0.1."""

    plain: int
    tls: int


@dataclass(frozen=True)
class Client:
    """A transport with its compression."""

    transport: Transport
    compression: Literal["deflate"] | None


CLIENTS = {
    "deflate": Client(NativeTransport(), "deflate"),
    "native": Client(NativeTransport(), None),
    "trio-websocket": Client(TrioWebsocketTransport(), None),
}


@dataclass(frozen=True)
class Dialer:
    """Connects one client to one server."""

    server: Server
    client: Client
    trust: ssl.SSLContext | None

    @property
    def port(self) -> int:
        return self.server.plain if self.trust is None else self.server.tls

    def url(self, path: str, **query: object) -> str:
        """The URL of a path, which selects the behaviour of the server."""
        scheme = "ws" if self.trust is None else "wss"
        question = f"?{urlencode(query)}" if query else ""
        return f"{scheme}://127.0.0.1:{self.port}/{path}{question}"

    @asynccontextmanager
    async def __call__(
        self, url: str, socket: Socket[Any] | None = None, **options: Unpack[ConnectOptions]
    ) -> AsyncIterator[Connection[Any]]:
        """Connect to a URL or path, and limit the time of the block."""
        if "://" not in url:
            url = self.url(url)
        every: ConnectOptions = {
            "transport": self.client.transport,
            "compression": self.client.compression,
            "ssl_context": self.trust,
            "max_size": MAX_SIZE,
            **options,
        }
        with trio.fail_after(SECONDS_OF_A_TEST):
            async with connect(url, socket or Socket(), **every) as connection:
                yield connection


@contextmanager
def running(*command: str | Path) -> Iterator[Server]:
    """Run a server for the duration of a block."""
    process = subprocess.Popen(  # noqa: S603 - our own scripts
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    with process:
        # A server that is too slow is killed: then there is no line to read.
        watchdog = threading.Timer(SECONDS_TO_START, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            ports = process.stdout.readline().split()
            watchdog.cancel()
            assert ports, f"{command} did not start within {SECONDS_TO_START} seconds"
            yield Server(*map(int, ports))
        finally:
            watchdog.cancel()
            watchdog.join()
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """Close the stdin of the server, which ends it; kill it if it stays."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(SECONDS_TO_STOP)
    finally:
        process.kill()
