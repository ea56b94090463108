"""Where a server listens: TCP on every address of a name, Unix sockets, given listeners; TLS."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any, Unpack

import pytest
import trio

from tests.server.helpers import Echo, MakeTransport, RawClient, logged, on_both
from tests.transports.servers import client_context, server_context
from trioglock import ConnectOptions, MemoryListener, TLSFailed, connect, serve
from trioglock.connection import closing

has_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")


async def assert_echo(url: str, **options: Unpack[ConnectOptions]) -> None:
    async with connect(url, **options) as conn:
        await conn.send("hello")
        assert await conn.receive() == "hello"


async def test_a_free_port_is_told() -> None:
    """Port 0 chooses a free port."""
    with trio.fail_after(300):
        async with serve(Echo, "127.0.0.1", 0) as server:
            assert server.addresses == (f"127.0.0.1:{server.port}",)
            assert f"127.0.0.1:{server.port}" in repr(server)
            await assert_echo(f"ws://127.0.0.1:{server.port}")


async def test_fault_06_a_port_of_another_type(unused: int) -> None:
    """A subclass of int, such as the members of an enum."""

    class Port(int):
        pass

    async with serve(Echo, "127.0.0.1", Port(unused)) as server:
        assert server.port == unused


@pytest.fixture
def unused() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@has_ipv6
async def test_every_address_of_a_name_has_the_same_port() -> None:
    """Without a host, on IPv4 and IPv6, also with port 0."""
    with trio.fail_after(300):
        async with serve(Echo, port=0) as server:
            hosts = {address.rpartition(":")[0] for address in server.addresses}
            assert {address.rpartition(":")[2] for address in server.addresses} == {
                str(server.port)
            }
            assert "0.0.0.0" in hosts
            await assert_echo(f"ws://127.0.0.1:{server.port}")
            if "[::]" in hosts:
                await assert_echo(f"ws://[::1]:{server.port}")


class Resolver(trio.abc.HostnameResolver):
    """Resolves to these families, whether this machine supports them or not."""

    def __init__(self, *families: int) -> None:
        self._families = families

    async def getaddrinfo(self, *asked: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return [(family, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0)) for family in self._families]

    async def getnameinfo(self, *asked: Any) -> Any:
        raise NotImplementedError


UNKNOWN_FAMILY = 200


async def test_addresses_of_a_family_that_this_machine_lacks_are_left_out() -> None:
    """As on a machine without IPv6; an error only if no family is supported."""
    with trio.fail_after(300):
        trio.socket.set_custom_hostname_resolver(Resolver(UNKNOWN_FAMILY, socket.AF_INET))
        async with serve(Echo, "name.test", 0) as server:
            assert server.addresses == (f"127.0.0.1:{server.port}",)
        trio.socket.set_custom_hostname_resolver(Resolver(UNKNOWN_FAMILY))
        with pytest.raises(OSError, match="not supported"):
            async with serve(Echo, "name.test", 0):
                raise AssertionError


async def test_processes_may_share_a_port() -> None:
    """With reuse_port; without it the port is in use."""
    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("this system has no SO_REUSEPORT")
    with trio.fail_after(300):
        async with serve(Echo, "127.0.0.1", 0, reuse_port=True) as first:
            async with serve(Echo, "127.0.0.1", first.port, reuse_port=True) as second:
                assert second.port == first.port
                for _ in range(8):
                    await assert_echo(f"ws://127.0.0.1:{first.port}")
            with pytest.raises(OSError, match="in use"):
                async with serve(Echo, "127.0.0.1", first.port):
                    raise AssertionError


async def test_the_port_is_free_again_immediately() -> None:
    """A stopped server can restart while TCP still holds its connections."""
    with trio.fail_after(10):
        port = 0
        for _ in range(3):
            async with serve(Echo, "127.0.0.1", port) as server:
                assert server.port is not None
                port = server.port
                await assert_echo(f"ws://127.0.0.1:{port}")


unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


@unix
async def test_a_unix_socket_is_made_and_taken_away(tmp_path: Path) -> None:
    """Clients connect with ``stream=``; the file is removed at the end."""
    path = tmp_path / "here.sock"
    with trio.fail_after(300):
        async with serve(Echo, unix_path=path) as server:
            assert server.addresses == (os.fspath(path),)
            assert server.port is None
            assert stat.S_ISSOCK(path.stat().st_mode)
            await assert_echo("ws://here/", stream=lambda: trio.open_unix_socket(path))
    assert not path.exists()


@unix
async def test_a_unix_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    """The socket of a running server and other files are kept."""
    path = tmp_path / "here.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    with trio.fail_after(300):
        async with serve(Echo, unix_path=os.fspath(path)):
            with pytest.raises(OSError, match="in use"):
                async with serve(Echo, unix_path=path):
                    raise AssertionError
            await assert_echo("ws://here/", stream=lambda: trio.open_unix_socket(path))
            path.unlink()
            path.write_text("mine", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "mine"
        with pytest.raises(OSError, match="in use"):
            async with serve(Echo, unix_path=path):
                raise AssertionError


async def test_a_cancelled_server_cuts_off_who_waits_to_be_accepted(
    autojump_clock: object,
) -> None:
    """Streams that wait to be accepted are closed."""
    listener = MemoryListener()
    waiting = [await listener.open_stream() for _ in range(3)]
    with trio.CancelScope() as scope:
        scope.cancel()
        async with serve(Echo, listeners=[listener]):
            pass
    for stream in waiting:
        assert await stream.receive_some() == b""
    with pytest.raises(ConnectionRefusedError):
        await listener.open_stream()


async def test_given_listeners_are_used_and_closed() -> None:
    """Such as the listeners of a service manager."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(300):
        async with serve(Echo, listeners=listeners) as server:
            await assert_echo(f"ws://127.0.0.1:{server.port}")
        with pytest.raises(trio.ClosedResourceError):
            await listeners[0].accept()


async def test_a_client_whose_address_is_not_of_ip_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The address of AF_VSOCK is two numbers."""
    options: Any = {"max_connections_per_address": 1, "forwarded": "10.0.0.0/8"}
    with trio.socket.socket() as made, trio.fail_after(300):
        async with (
            serve(Echo, "127.0.0.1", 0, **options) as server,
            connect(f"ws://127.0.0.1:{server.port}"),
        ):
            monkeypatch.setattr(type(made), "getpeername", lambda _: (2, 1024))
            for _ in range(2):
                await assert_echo(f"ws://127.0.0.1:{server.port}")


@on_both
async def test_tls(transport: MakeTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """``wss://``, without waiting for each other at the end."""
    monkeypatch.setattr(closing, "LINGER", 60)
    with trio.fail_after(300):
        async with serve(
            Echo, "127.0.0.1", 0, ssl_context=server_context(), transport=transport()
        ) as server:
            url = f"wss://127.0.0.1:{server.port}"
            async with connect(url, ssl_context=client_context()) as conn:
                await conn.send("x" * 100_000)
                assert await conn.receive() == "x" * 100_000
                [mine] = server.connections
                assert mine.url.startswith("wss://")
            await mine.wait_closed()


@pytest.mark.slow
async def test_a_tls_handshake_that_fails_is_logged_once_and_the_others_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Plain text, an untrusting client, a silent one: bounded by open_timeout."""
    caplog.set_level("INFO")
    with trio.fail_after(300):
        context = server_context()
        async with serve(Echo, "127.0.0.1", 0, ssl_context=context, open_timeout=1) as server:
            assert server.port is not None
            silent = RawClient(await trio.open_tcp_stream("127.0.0.1", server.port))
            plain = RawClient(await trio.open_tcp_stream("127.0.0.1", server.port))
            await plain.send(b"GET / HTTP/1.1\r\n\r\n")
            await plain.everything()
            with pytest.raises(TLSFailed):
                async with connect(f"wss://127.0.0.1:{server.port}"):
                    raise AssertionError
            assert await silent.everything() == b""
            url = f"wss://127.0.0.1:{server.port}"
            await assert_echo(url, ssl_context=client_context())
    lines = logged(caplog)
    assert len(lines) == 3
    assert sum("timed out" in line for line in lines) == 1
    assert sum("connection lost" in line for line in lines) == 2
