"""The foreign servers, each in its own process, and how to connect to them: a pytest plugin.

A test that asks for :func:`dial` runs against every server, plain and encrypted, through every
client; one that needs less chooses with ``parametrize(..., indirect=True)``.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any, Literal, Unpack
from urllib.parse import urlencode

import pytest
import trio
import trustme

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

SECONDS_TO_INSTALL = 60
SECONDS_TO_START = 30
SECONDS_TO_STOP = 10
SECONDS_OF_A_TEST = 30

MAX_SIZE = 2**21
"""As the servers have it."""


@dataclass(frozen=True)
class Certificate:
    """What the servers show, and what makes clients trust it."""

    path: Path
    trust: ssl.SSLContext


@dataclass(frozen=True)
class Server:
    """A server that listens on two ports of 127.0.0.1."""

    plain: int
    tls: int


@dataclass(frozen=True)
class Client:
    """One way in which trioglock connects."""

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
        """Where it leads to."""
        return self.server.plain if self.trust is None else self.server.tls

    def url(self, path: str, **query: object) -> str:
        """The address of one of the server's behaviours."""
        scheme = "ws" if self.trust is None else "wss"
        question = f"?{urlencode(query)}" if query else ""
        return f"{scheme}://127.0.0.1:{self.port}/{path}{question}"

    @asynccontextmanager
    async def __call__(
        self, url: str, socket: Socket[Any] | None = None, **options: Unpack[ConnectOptions]
    ) -> AsyncIterator[Connection[Any]]:
        """A connection to ``url``; everything within :data:`SECONDS_OF_A_TEST`."""
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
    """Run ``command`` for the time of the block; no process remains, whatever happens."""
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
    """Close the server's stdin, which ends it; one that stays is killed."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(SECONDS_TO_STOP)
    finally:
        process.kill()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1 from an authority that only the clients trust."""
    path = tmp_path_factory.mktemp("interop") / "server.pem"
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return Certificate(path, trust)


@pytest.fixture(scope="session")
def websockets_server(certificate: Certificate) -> Iterator[Server]:
    """The server on websockets."""
    with running(sys.executable, HERE / "websockets_server.py", certificate.path) as server:
        yield server


@pytest.fixture(scope="session")
def aiohttp_server(certificate: Certificate) -> Iterator[Server]:
    """The server on aiohttp."""
    with running(sys.executable, HERE / "aiohttp_server.py", certificate.path) as server:
        yield server


@pytest.fixture(scope="session")
def node_server(certificate: Certificate) -> Iterator[Server]:
    """The server on Node's ws, which is installed on its first use."""
    node = which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    install_ws()
    with running(node, NODE / "server.js", certificate.path) as server:
        yield server


def install_ws() -> None:
    """Install the package ws as locked, unless it is there already."""
    if (NODE / "node_modules" / "ws").is_dir():
        return
    npm = which("npm")
    if npm is None:
        pytest.skip("there is no npm on this machine to install ws")
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(  # noqa: S603 - our own package.json
            install, cwd=NODE, timeout=SECONDS_TO_INSTALL, capture_output=True, encoding="utf-8"
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not install ws within {SECONDS_TO_INSTALL} seconds")
    if done.returncode:
        pytest.skip(f"npm could not install ws: {done.stderr}")


@pytest.fixture(params=["websockets", "aiohttp", "node"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each server in turn; it is started on its first use and stays."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    """Each client in turn."""
    return CLIENTS[request.param]


@pytest.fixture(params=["plain", "tls"])
def dial(
    request: pytest.FixtureRequest, server: Server, client: Client, certificate: Certificate
) -> Dialer:
    """What connects, in each combination of server, client and encryption."""
    return Dialer(server, client, certificate.trust if request.param == "tls" else None)
