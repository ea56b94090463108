"""The package on macOS and Windows, which ``tests/other_system.py`` simulates."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.scripts import assert_lines, run_python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="simulates other systems on Linux"),
]

IMPORTS = """
import importlib, pkgutil
import trioglock
for module in pkgutil.walk_packages(trioglock.__path__, "trioglock."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""

CONNECTIONS = """
import tempfile, trio
from contextlib import AsyncExitStack
from pathlib import Path
from tests.transports.servers import client_context, server_context
from trioglock import ConnectionClosed, InvalidOption, Reply, Socket, connect, serve
from trioglock.pubsub import Hub
from trioglock.server.descriptors import descriptor_limit, raise_descriptor_limit
from trioglock.transports.native import poller

class Echo(Socket[None]):
    def handle_receive(self, frame, state):
        return Reply(frame), state

async def check(url, **options):
    # More clients than are needed for a poller.
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(connect(url, proxy=None, **options)) for _ in range(5)
        ]
        for size in (1, 100_000):
            for conn in opened:
                await conn.send("x" * size)
            for conn in opened:
                assert await conn.receive() == "x" * size
        opened[0].abort()
        await opened[1].aclose()
        for conn in opened[:2]:
            try:
                await conn.receive()
            except ConnectionClosed as error:
                assert error.code == (1006 if conn is opened[0] else 1000)
            else:
                raise AssertionError(conn)

async def describe(attempt):
    try:
        async with attempt:
            return "works"
    except InvalidOption as error:
        return str(error)

async def main():
    async with serve(Echo, "127.0.0.1", 0) as server:
        await check(f"ws://127.0.0.1:{server.port}/")
    async with serve(Echo, "127.0.0.1", 0, ssl_context=server_context()) as server:
        await check(f"wss://127.0.0.1:{server.port}/", ssl_context=client_context())
    async with Hub() as hub, serve(hub.socket, "127.0.0.1", 0) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/news", proxy=None) as conn:
            await hub.publish("hello", "news")
            assert await conn.receive() == "hello"
    print("reuse_port:", await describe(serve(Echo, "127.0.0.1", 0, reuse_port=True)))
    with tempfile.TemporaryDirectory() as folder:
        print("unix_path:", await describe(serve(Echo, unix_path=Path(folder, "s"))))

assert not poller.is_supported
raise_descriptor_limit()
trio.run(main)
print("descriptors:", descriptor_limit())
"""

COMMANDS = """
import threading, signal, time
from trioglock.cli import main

before = signal.getsignal(signal.SIGTERM)

def stop():
    while signal.getsignal(signal.SIGTERM) == before:
        time.sleep(0.01)
    signal.raise_signal(signal.SIGTERM)

assert main(["demo", "--messages", "20"]) == 0
threading.Thread(target=stop).start()
assert main(["serve", "echo", "--port", "0"]) == 0
"""

REFUSED = """
assert main(["serve", "echo", "--workers", "2"]) == 2
assert main(["serve", "module:name", "--reload"]) == 2
"""


async def run(system: str, script: str, folder: Path) -> tuple[str, str]:
    """Return the output and the errors of a script."""
    path = folder / "script.py"
    path.write_text(script)
    done = await run_python("-m", "tests.other_system", system, path, seconds=120)
    assert done.code == 0, done.stderr
    return done.stdout, done.stderr


async def test_macos(tmp_path: Path) -> None:
    """Without the poller, but with everything that POSIX has."""
    output, errors = await run("darwin", IMPORTS + CONNECTIONS + COMMANDS, tmp_path)
    assert_lines(output, ["reuse_port: works", "unix_path: works", r"descriptors: \d+"])
    assert errors == ""


async def test_windows(tmp_path: Path) -> None:
    """What the system does not support is refused with a message."""
    output, errors = await run("win32", IMPORTS + CONNECTIONS + COMMANDS + REFUSED, tmp_path)
    assert_lines(
        output,
        [
            "reuse_port: reuse_port is not supported by this system",
            "unix_path: Unix sockets are not supported by this system",
            "descriptors: None",
        ],
    )
    assert_lines(
        errors,
        [
            "Error: --workers requires a system with SO_REUSEPORT, such as Linux",
            "Error: --reload requires a POSIX system",
        ],
    )
