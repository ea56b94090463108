"""Clients of other libraries, on both transports, and plain and with TLS on the native one.

:mod:`tests.server.clients.play` has what each of them does and expects.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.interop.peers import NODE
from tests.node_packages import find_node, install_packages
from tests.server.helpers import logged
from tests.transports.servers import authority, server_context
from trioglock import Connection, NativeTransport, TrioWebsocketTransport, serve

CLIENTS = Path(__file__).with_name("clients")
SECONDS = 300


class Behaviours:
    """The path selects the server's behaviour."""

    def __init__(self) -> None:
        self._note, self._notes = trio.open_memory_channel[str](1)

    async def __call__(self, conn: Connection[None]) -> None:
        path = conn.url.rpartition("/")[2].partition("?")[0]
        await getattr(self, path)(conn)

    async def about(self, conn: Connection[None]) -> None:
        await conn.send(json.dumps({"subprotocol": conn.subprotocol, "url": conn.url}))

    async def echo(self, conn: Connection[None]) -> None:
        async for message in conn:
            await conn.send(message)

    async def close(self, conn: Connection[None]) -> None:
        await conn.receive()
        await conn.aclose(4001, "as you wish")

    async def note(self, conn: Connection[None]) -> None:
        await conn.wait_closed()
        await self._note.send(f"{conn.close_code} {conn.close_reason}")

    async def noted(self, conn: Connection[None]) -> None:
        await conn.send(await self._notes.receive())

    def choose(self, asked: object, offered: Sequence[str]) -> str | None:
        return "v1" if "v1" in offered else None


def command(language: str) -> list[str | Path]:
    """The command of the clients; Node's is installed on its first use."""
    if language == "python":
        return [sys.executable, CLIENTS / "play.py"]
    node = find_node()
    install_packages(NODE)
    return [node, CLIENTS / "play.js"]


@pytest.mark.slow
@pytest.mark.parametrize("language", ["python", "node"])
async def test_clients_of_other_libraries(
    language: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Handshake, echo of every size, compression, fragments, pings, closing by either side."""
    caplog.set_level("INFO")
    certificate = tmp_path / "authority.pem"
    authority().cert_pem.write_to_path(str(certificate))
    behaviours = Behaviours()
    urls = []
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(SECONDS))
        for transport, ssl_context in (
            (NativeTransport, None),
            (NativeTransport, server_context()),
            (TrioWebsocketTransport, server_context()),
        ):
            server = await stack.enter_async_context(
                serve(
                    behaviours,
                    "127.0.0.1",
                    0,
                    ssl_context=ssl_context,
                    select_subprotocol=behaviours.choose,
                    max_size=2**21,
                    transport=transport(),
                )
            )
            urls.append(f"{'wss' if ssl_context else 'ws'}://127.0.0.1:{server.port}")
        done = await trio.run_process(
            [*command(language), certificate, *urls],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, "NODE_PATH": str(NODE / "node_modules")},
        )
        output = done.stdout.decode()
        assert (done.returncode, output) == (0, "played\n"), output
    assert logged(caplog) == []
