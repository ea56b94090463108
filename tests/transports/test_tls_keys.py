"""Key updates and renegotiation, against the ``openssl`` program."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.transports.servers import (
    authority,
    server_context,
    text,
    upgrade,
)
from tests.transports.tls_peers import request_of, to
from trioglock import (
    Reply,
    Socket,
    serve,
)

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


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
    with trio.fail_after(300):
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
    ("option", "command", "response"),
    [
        ("-tls1_3", b"k\n", b""),
        ("-tls1_3", b"K\n", b""),  # answered by the next message
        ("-tls1_2", b"r\n", b"<<< TLS 1.2, Handshake"),
    ],
    ids=["key update", "key update of both", "renegotiation"],
)
@pytest.mark.slow
async def test_a_server_that_changes_the_keys(
    tmp_path: Path, option: str, command: bytes, response: bytes
) -> None:
    """Key updates (TLS 1.3) and renegotiation (TLS 1.2) do not disturb the connection."""
    pem = tmp_path / "server.pem"
    authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with openssl(
        "s_server", "-accept", str(port), "-cert", str(pem), "-msg", option
    ) as server:
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
                    if response:
                        await server.read_until(response)
                    await trio.sleep(0.1)
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
    async with (
        serve(Echo, "127.0.0.1", 0, ssl_context=server_context()) as server,
        openssl("s_client", "-tls1_3", "-connect", f"127.0.0.1:{server.port}") as client,
    ):
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
