"""The PROXY protocol, version 1 and 2, also from a real haproxy."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import case_of
from tests.pubsub.redis_server import find_port
from tests.server.helpers import Echo, RawClient, logged, request
from trioglock import Connection, InvalidOption, Request, Response, connect, serve
from trioglock.server.proxy_protocol import (
    MAX_BLOCK,
    SIGNATURE,
    InvalidProxyHeader,
    read_proxy_header,
)

LOOPBACK = "127.0.0.0/8"


def version_2(command: int, family: int, block: bytes, size: int | None = None) -> bytes:
    size = len(block) if size is None else size
    return SIGNATURE + struct.pack("!BBH", command, family, size) + block


TCP4 = socket.inet_aton("192.168.0.1") + socket.inet_aton("192.168.0.11") + b"\xdc\x04\x01\xbb"
TCP6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + b"\x00\x07\x01\xbb"

VALID = [
    # The example of section 2.1, and the longest and shortest lines.
    (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
    (b"PROXY TCP6 2001:db8::7 ::1 7 443\r\n", "[2001:db8::7]:7"),
    (b"PROXY TCP6 " + b" ".join([b"ffff" + 7 * b":ffff"] * 2) + b" 65535 65535\r\n", "[ffff:"),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN " + b" ".join([b"ffff" + 7 * b":ffff"] * 2) + b" 65535 65535\r\n", ""),
    (b"PROXY UNKNOWN anything \xff\n\r\n", ""),
    (version_2(0x21, 0x11, TCP4), "192.168.0.1:56324"),
    (version_2(0x21, 0x21, TCP6), "[2001:db8::7]:7"),
    # Additional fields are skipped.
    (version_2(0x21, 0x11, TCP4 + b"\x04\x00\x03abc"), "192.168.0.1:56324"),
    (version_2(0x21, 0x11, TCP4 + bytes(MAX_BLOCK - 12)), "192.168.0.1:56324"),
    # LOCAL, and families and protocols that are not TCP.
    (version_2(0x20, 0x00, b""), ""),
    (version_2(0x20, 0x11, TCP4), ""),
    (version_2(0x21, 0x00, b"ignored"), ""),
    (version_2(0x21, 0x12, TCP4), ""),
    (version_2(0x21, 0x31, bytes(216)), ""),
]

INVALID = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n" + bytes(100),
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 " + bytes(100),
    b"PROXY UNKNOWN " + 100 * b"x" + b"\r\n",
    b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 ::1 ::1 1 1\r\n",
    b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
    b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    version_2(0x11, 0x11, TCP4),
    version_2(0x22, 0x11, TCP4),
    version_2(0x21, 0x41, TCP4),
    version_2(0x21, 0x13, TCP4),
    version_2(0x21, 0x11, TCP4[:-1]),
    version_2(0x21, 0x21, TCP4),
    version_2(0x21, 0x11, TCP4, 2**16 - 1),
]


async def read(data: bytes) -> tuple[str, bytes]:
    """Return the address in a header, and the bytes after it."""
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(data)
    await near.send_eof()
    client = await read_proxy_header(far)
    return "" if client is None else client.name, bytes(await far.receive_some() or b"")


@pytest.mark.parametrize(("header", "peer"), VALID)
async def test_a_valid_header_names_the_client_and_only_it_is_read(
    header: bytes, peer: str
) -> None:
    name, rest = await read(header + b"GET /")
    assert name.startswith(peer)
    assert bool(name) == bool(peer)
    assert rest == b"GET /"


async def test_an_invalid_header_is_rejected() -> None:
    for header in INVALID:
        with case_of(header), pytest.raises(InvalidProxyHeader):
            await read(header)


@pytest.mark.parametrize(("header", "peer"), VALID)
async def test_a_header_that_ends_early_is_an_end_of_the_stream(header: bytes, peer: str) -> None:
    for size in {0, 5, 12, 15, len(header) - 1}:
        if size < len(header):
            with pytest.raises(EOFError):
                await read(header[:size])


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda data: b"PROXY TCP4 " + data),
        st.binary(max_size=200).map(lambda data: SIGNATURE + data),
        st.tuples(
            st.sampled_from([one for one, _ in VALID]), st.integers(0, 60), st.integers(0, 255)
        ).map(lambda one: one[0][: one[1]] + bytes([one[2]]) + one[0][one[1] + 1 :]),
    )
)
def test_garbage_is_rejected_or_names_an_address(data: bytes) -> None:
    async def main() -> None:
        try:
            name, rest = await read(data)
        except (InvalidProxyHeader, EOFError):
            return
        assert data.endswith(rest)
        assert not name or re.fullmatch(r"([0-9.]+|\[[0-9a-f:.]+\]):[0-9]+", name)

    trio.run(main)


# Servers.


@asynccontextmanager
async def serving(networks: Any = LOOPBACK, **options: Any) -> AsyncIterator[tuple[int, list[str]]]:
    """A server on 127.0.0.1; yields its port, and the addresses of its clients."""
    peers: list[str] = []

    def look(asked: Request) -> Response | None:
        peers.append(asked.peer)
        return None

    with trio.fail_after(300):
        async with serve(
            Echo, "127.0.0.1", 0, proxy_protocol=networks, process_request=look, **options
        ) as server:
            assert server.port is not None
            yield server.port, peers


async def raw(port: int, data: bytes) -> RawClient:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(data)
    return RawClient(stream)


async def test_the_header_comes_before_tls() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    for header, peer in (VALID[0], VALID[7]):
        async with serving(ssl_context=context) as (port, peers):

            async def open_stream(port: int = port, header: bytes = header) -> trio.abc.Stream:
                return (await raw(port, header)).stream

            async with connect(
                f"wss://localhost:{port}/", stream=open_stream, ssl_context=trusting
            ) as conn:
                await conn.send("hello")
                assert await conn.receive() == "hello"
        assert peers == [peer]


async def test_without_a_header_the_connection_is_dropped_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that comes too late, too."""
    caplog.set_level("INFO")
    for options, data in (
        ({}, request()),
        ({}, b"PROXY TCP9 \r\n"),
        ({"open_timeout": 0.1}, b"PROXY "),
    ):
        async with serving(**options) as (port, peers):
            client = await raw(port, data)
            with pytest.raises((trio.BrokenResourceError, AssertionError)):
                await client.head()
            await client.stream.aclose()
        assert peers == []
    reasons = [line.partition(": ")[2] for line in logged(caplog)]
    assert reasons == [
        "dropped: no PROXY protocol header",
        "dropped: invalid PROXY protocol header: the line is malformed",
        "the opening handshake timed out",
    ]


async def test_a_header_from_another_network_is_an_invalid_request() -> None:
    """Clients there are served without a header."""
    async with serving("10.0.0.0/8") as (port, peers):
        client = await raw(port, VALID[0][0] + request())
        assert (await client.head()).startswith(b"HTTP/1.1 400 ")
        await client.stream.aclose()
        client = await raw(port, request())
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        await client.stream.aclose()
    [peer] = peers
    assert peer.startswith("127.0.0.1:")


async def test_limits_apply_to_the_address_in_the_header() -> None:
    async with serving(max_connections_per_address=1, max_handshakes_per_address=1) as (port, _):
        clients = []
        for address, status in (("1.1.1.1", b"101"), ("1.1.1.1", b"429"), ("1.1.1.2", b"101")):
            header = f"PROXY TCP4 {address} 1.1.1.1 1 1\r\n".encode()
            clients.append(await raw(port, header + request()))
            assert (await clients[-1].head())[9:12] == status
        silent = [await raw(port, b"") for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked(0.01)
        for number, client in enumerate(silent):
            await client.send(f"PROXY TCP4 2.2.2.{number} 1.1.1.1 1 1\r\n".encode() + request())
            assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        for client in (*clients, *silent):
            await client.stream.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
async def test_a_proxy_may_use_a_unix_socket(tmp_path: Path) -> None:
    peers = []

    def look(asked: Request) -> Response:
        peers.append(asked.peer)
        return Response()

    path = os.fspath(tmp_path / "socket")
    with trio.fail_after(300):
        async with serve(Echo, unix_path=path, proxy_protocol=LOOPBACK, process_request=look):
            client = RawClient(await trio.open_unix_socket(path))
            await client.send(VALID[0][0] + request())
            await client.everything()
    assert peers == [VALID[0][1]]


@pytest.mark.parametrize("bad", [True, 1, "10.0.0.1/8", [], [None]])
def test_other_values_are_invalid(bad: Any) -> None:
    async def handler(conn: Connection) -> None: ...

    with pytest.raises(InvalidOption, match="proxy_protocol must be networks"):
        serve(handler, port=0, proxy_protocol=bad)


HAPROXY = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen one
    bind 127.0.0.1:{one}
    server trioglock 127.0.0.1:{port} send-proxy
listen two
    bind 127.0.0.1:{two}
    server trioglock 127.0.0.1:{port} send-proxy-v2 proxy-v2-options crc32c,unique-id check
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has many loopback addresses")
async def test_haproxy_names_its_clients_and_checks_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Version 1, and version 2 with additional fields and health checks."""
    haproxy = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    caplog.set_level("INFO")
    async with serving() as (port, peers):
        ports = {"one": find_port(), "two": find_port()}
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(port=port, **ports))
        process = await trio.lowlevel.open_process(
            [haproxy, "-db", "-f", str(configuration)], stderr=subprocess.DEVNULL
        )
        try:
            for number, listening in enumerate(ports.values()):

                async def open_stream(number: int = number, port: int = listening) -> Any:
                    while True:
                        try:
                            return await trio.open_tcp_stream(
                                "127.0.0.1", port, local_address=f"127.0.0.{7 + number}"
                            )
                        except OSError:  # it is still starting
                            await trio.sleep(0.05)

                async with connect(
                    f"ws://localhost:{listening}/", stream=open_stream, open_timeout=None
                ) as conn:
                    await conn.send("hello")
                    assert await conn.receive() == "hello"
        finally:
            process.kill()
            await process.wait()
    assert [peer.partition(":")[0] for peer in peers] == ["127.0.0.7", "127.0.0.8"]
    assert not [line for line in logged(caplog) if "dropped" in line]
