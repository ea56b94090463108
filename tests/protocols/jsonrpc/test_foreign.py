"""Other implementations of JSON-RPC, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.docs.test_examples import EXAMPLES, EXPECTED
from tests.forks import run_fork
from tests.scripts import assert_lines
from trioglock import connect, serve
from trioglock.protocols.jsonrpc import Peer, RPCError

FOREIGN = Path(__file__).parent / "foreign.py"

pytestmark = pytest.mark.slow


@asynccontextmanager
async def foreign_server() -> AsyncIterator[str]:
    """Run a server of aiohttp in another process; yield its URL."""
    command = [sys.executable, str(FOREIGN)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]  # noqa: S603
        port = int(await trio.to_thread.run_sync(process.stdout.readline))
        yield f"ws://127.0.0.1:{port}/"
        process.stdin.close()


async def test_a_foreign_server() -> None:
    peer = Peer()
    async with foreign_server() as url, connect(url, peer):
        assert await peer.request("subtract", [42, 23]) == 19
        assert await peer.request("subtract", {"subtrahend": 23, "minuend": 42}) == 19
        with pytest.raises(RPCError, match="no money") as caught:
            await peer.request("fail")
        assert (caught.value.code, caught.value.data) == (7, {"missing": 3})
        batch = peer.batch()
        result, absent = batch.request("subtract", [2, 1]), batch.request("absent")
        batch.notify("subtract", [2, 1])
        await batch.send()
        assert result.result() == 1
        with pytest.raises(RPCError, match="Method not found"):
            absent.result()


async def test_the_example_with_a_foreign_server() -> None:
    async with foreign_server() as url:
        done = await run_fork(EXAMPLES / "json_rpc.py", url)
    assert (done.code, done.stderr) == (0, "")
    assert_lines(done.stdout, EXPECTED["json_rpc"])


async def test_a_foreign_client() -> None:
    seen: list[str] = []
    methods = {
        "subtract": lambda minuend, subtrahend: minuend - subtrahend,
        "log": lambda text: seen.append(text),
    }
    async with serve(lambda: Peer(methods), "127.0.0.1", 0) as server:
        command = [sys.executable, str(FOREIGN), f"ws://127.0.0.1:{server.port}/"]
        done = await trio.run_process(command, capture_stdout=True)
    single, batch = done.stdout.decode().splitlines()
    assert single == str({"jsonrpc": "2.0", "result": 19, "id": 1})
    absent = {"code": -32601, "message": "Method not found"}
    assert batch == str(
        [
            {"jsonrpc": "2.0", "error": absent, "id": "a"},
            {"jsonrpc": "2.0", "result": 2, "id": "b"},
        ]
    )
    assert seen == ["seen"]
