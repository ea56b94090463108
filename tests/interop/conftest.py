"""Fixtures for tests with servers of other libraries.

A test that uses :func:`dial` runs with every pair of server and client, half of them with TLS. It
selects fewer with ``parametrize(..., indirect=True)``.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.interop.peers import CLIENTS, HERE, NODE, Dialer, Server, running
from tests.node_packages import find_node, install_packages

SERVERS = ["websockets", "aiohttp", "node"]


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key."""
    path = tmp_path_factory.mktemp("interop") / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest, certificate: Path) -> Iterator[Server]:
    """Each server; ws for Node.js is installed before its first use."""
    if request.param == "node":
        node = find_node()
        install_packages(NODE)
        command: list[str | Path] = [node, NODE / "server.js"]
    else:
        command = [sys.executable, HERE / f"{request.param}_server.py"]
    with running(*command, certificate) as server:
        yield server


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """The name of each client."""
    name: str = request.param
    return name


@pytest.fixture
def dial(
    request: pytest.FixtureRequest, server: Server, client: str, trust: ssl.SSLContext
) -> Dialer:
    """Connect a client to a server. Each client and each server is used with and without TLS."""
    name = request.node.callspec.params["server"]
    secure = (SERVERS.index(name) + list(CLIENTS).index(client)) % 2 == 0
    return Dialer(server, CLIENTS[client], trust if secure else None)
