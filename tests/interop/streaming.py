"""Large messages between a server of websockets and our client, each in its own process.

``python -m tests.interop.streaming serve`` prints its port, twice, and ends with its stdin.
``python -m tests.interop.streaming send|receive PORT MIB COMPRESSION`` transfers a message and
prints by how many KiB the peak of its memory has grown, and the seconds it took.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import trio
from websockets.asyncio.server import ServerConnection, serve

from trioglock import Connection, connect

MIB = 2**20
BLOCK = bytes(range(256)) * 256


async def blocks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // len(BLOCK)):
        yield BLOCK


async def handler(socket: ServerConnection) -> None:
    assert socket.request is not None
    command, _, size = socket.request.path.strip("/").partition("/")
    if command == "send":
        received = 0
        async for block in socket.recv_streaming():
            received += len(block)
        await socket.send(str(received))
    else:
        await socket.send(blocks(int(size)))
        await socket.recv()


async def run_server() -> None:
    async with serve(handler, "127.0.0.1", 0, max_size=(None, MIB)) as server:
        port = server.sockets[0].getsockname()[1]
        print(port, port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def send(conn: Connection[None], size: int) -> None:
    await conn.send(blocks(size))
    assert await conn.receive() == str(size)


async def receive(conn: Connection[None], size: int) -> None:
    received = 0
    async with conn.receive_fragments() as fragments:
        async for fragment in fragments:
            received += len(fragment)
    assert received == size
    await conn.send("done")


async def run_client(command: str, port: str, mib: str, kind: str) -> None:
    compression: Literal["deflate"] | None = "deflate" if kind == "deflate" else None
    transfer = send if command == "send" else receive
    for size in (4 * MIB, int(mib) * MIB):  # the first one imports and allocates
        began, before = time.perf_counter(), peak()
        url = f"ws://127.0.0.1:{port}/{command}/{size}"
        async with connect(url, compression=compression, fragments=True) as conn:
            await transfer(conn, size)
    print(peak() - before, f"{time.perf_counter() - began:.2f}")


def peak() -> int:
    """The largest memory of this process so far, in KiB."""
    # getrusage() would include the parent process, before exec.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            asyncio.run(run_server())
        case [command, port, mib, kind]:
            trio.run(run_client, command, port, mib, kind)
