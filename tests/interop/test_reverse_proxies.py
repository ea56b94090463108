"""The documented configurations of nginx, HAProxy and Caddy, with clients through them."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trustme
from websockets.sync.client import connect as connect_with_websockets

from tests.pubsub.redis_server import find_port
from tests.scripts import ROOT
from tests.server.helpers import Echo
from trioglock import ConnectionClosedError, Deliver, Request, Socket, connect, serve

pytestmark = pytest.mark.slow

DEPLOY = ROOT / "docs/deploy"
SECONDS = 300
"""Time limit for everything that a proxy does."""

NGINX = """
pid nginx.pid;
error_log stderr;
daemon off;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include live.conf;
}
"""


class Configuration:
    """A file of the documentation with the ports and paths of a test."""

    def __init__(self, name: str) -> None:
        self.text = (DEPLOY / name).read_text()

    def replace(self, old: str, new: object) -> None:
        assert old in self.text, f"the file does not contain {old!r}"
        self.text = self.text.replace(old, str(new))


def nginx(folder: Path, port: int, servers: tuple[int, int], timeout: str) -> list[str]:
    """Write the configuration of nginx; return its command."""
    file = Configuration("nginx.conf")
    for number, server in enumerate(servers, 11):
        file.replace(f"10.0.0.{number}:8020", f"127.0.0.1:{server}")
    file.replace("443 ssl", f"127.0.0.1:{port} ssl")
    file.replace("/etc/ssl/live.example.org", folder / "live")
    file.replace("75s", timeout)
    (folder / "live.conf").write_text(file.text)
    (folder / "nginx.conf").write_text(NGINX)
    return [find_program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]


def haproxy(folder: Path, port: int, servers: tuple[int, int], timeout: str) -> list[str]:
    """Write the configuration of HAProxy; return its command."""
    file = Configuration("haproxy.cfg")
    for number, server in enumerate(servers, 11):
        file.replace(f"10.0.0.{number}:8020", f"127.0.0.1:{server}")
    file.replace("maxconn 20000", "maxconn 100")  # needs no higher limit of open files
    file.replace("bind :443", f"bind 127.0.0.1:{port}")
    file.replace("/etc/haproxy/live.example.org.pem", folder / "both.pem")
    file.replace("75s", timeout)
    (folder / "haproxy.cfg").write_text(file.text)
    return [find_program("haproxy"), "-f", str(folder / "haproxy.cfg")]


def caddy(folder: Path, port: int, servers: tuple[int, int], timeout: str) -> list[str]:
    """Write the configuration of Caddy; return its command."""
    file = Configuration("Caddyfile")
    for number, server in enumerate(servers, 11):
        file.replace(f"10.0.0.{number}:8020", f"127.0.0.1:{server}")
    file.replace("live.example.org {", f"https://127.0.0.1:{port} {{\n\ttls live.pem live.key")
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(options + file.text)
    return [find_program("caddy"), "run", "--config", "Caddyfile", "--adapter", "caddyfile"]


def find_program(name: str) -> str:
    """Return the path of a program; skip the test without it."""
    # Debian installs servers in a directory that is not on the PATH of every user.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        pytest.skip(f"needs {name}: install the system's package")
    return path


class Proxy(NamedTuple):
    """A proxy with TLS, and how to connect to it."""

    port: int
    trusting: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.port}/"


Configure = Callable[[Path, int, tuple[int, int], str], list[str]]


@contextmanager
def running(
    configure: Configure, folder: Path, servers: tuple[int, int], timeout: str
) -> Iterator[Proxy]:
    """Run a proxy for the duration of a block."""
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    certificate.private_key_pem.write_to_path(folder / "live.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "live.pem")
    port = find_port()
    process = subprocess.Popen(  # noqa: S603
        configure(folder, port, servers, timeout),
        cwd=folder,
        stderr=(log := (folder / "log").open("w")),
        env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)},
    )
    deadline = time.monotonic() + SECONDS
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the proxy does not start"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.01)
            else:
                break
        yield Proxy(port, context)
    finally:
        process.terminate()
        process.wait(SECONDS)
        log.close()


class Upstream:
    """Two servers behind a proxy."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, Request]] = []

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[tuple[int, int]]:
        """Serve twice; yield the ports."""
        options["forwarded"] = 1
        async with (
            serve(Echo, "127.0.0.1", 0, process_request=self._record(0), **options) as one,
            serve(Echo, "127.0.0.1", 0, process_request=self._record(1), **options) as two,
        ):
            assert one.port is not None
            assert two.port is not None
            yield one.port, two.port

    def _record(self, number: int) -> Callable[[Request], None]:
        return lambda request: self.requests.append((number, request))


class PingDelivery(Socket[None]):
    """Delivers the server's pings."""

    def handle_ping(self, payload: bytes, state: None) -> tuple[object, None]:
        return Deliver("ping"), state


FORGED = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "forged.example",
    "Forwarded": "for=192.0.2.1;host=forged.example",
}


def echo_with_websockets(proxy: Proxy) -> None:
    """A client of another library, with an address of its own, that forges another one."""
    tcp = socket.create_connection(("127.0.0.1", proxy.port), SECONDS, ("127.0.0.2", 0))
    with connect_with_websockets(
        proxy.url,
        sock=tcp,
        ssl=proxy.trusting,
        additional_headers=FORGED,
        open_timeout=SECONDS,
    ) as client:
        for message in ("hello", b"\x00" * 100_000):
            client.send(message)
            assert client.recv(SECONDS) == message
        assert client.ping().wait(SECONDS)


@pytest.mark.parametrize("configure", [nginx, haproxy, caddy])
async def test_clients_reach_both_servers_through_a_proxy(
    configure: Configure, tmp_path: Path
) -> None:
    """Over TLS. The servers learn the real address of a client that forges another one."""
    upstream = Upstream()
    async with upstream.serving() as ports:
        with running(configure, tmp_path, ports, "75s") as proxy:
            await trio.to_thread.run_sync(echo_with_websockets, proxy)
            async with (
                connect(proxy.url, ssl_context=proxy.trusting) as one,
                connect(proxy.url, ssl_context=proxy.trusting) as two,
            ):
                for client in (one, two):
                    await client.send("hello")
                    assert await client.receive() == "hello"
                    await client.ping()
    assert {number for number, _ in upstream.requests} == {0, 1}
    addresses = [request.peer.partition(":")[0] for _, request in upstream.requests]
    assert addresses == ["127.0.0.2", "127.0.0.1", "127.0.0.1"]
    for _, request in upstream.requests:
        assert request.secure
        assert request.headers["Host"].partition(":")[0] == "127.0.0.1"


@pytest.mark.parametrize("configure", [nginx, haproxy])
async def test_pings_keep_a_silent_connection_open(configure: Configure, tmp_path: Path) -> None:
    """With a shorter timeout, after which the proxy closes a connection without pings."""
    for ping_interval, timeout in ((0.2, 5), (None, 1)):
        folder = tmp_path / str(ping_interval)
        folder.mkdir()
        async with Upstream().serving(ping_interval=ping_interval) as ports:
            with running(configure, folder, ports, f"{timeout}s") as proxy:
                async with connect(
                    proxy.url, PingDelivery(), ssl_context=proxy.trusting, ping_interval=None
                ) as client:
                    if ping_interval is None:
                        with pytest.raises(ConnectionClosedError):
                            await client.receive()
                        continue
                    opened = trio.current_time()
                    while trio.current_time() < opened + timeout + 1:
                        assert await client.receive() == "ping"
                    await client.send("hello")
                    while await client.receive() != "hello":
                        pass
