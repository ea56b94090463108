"""Many clients of one server: ``python -m benchmarks.clients``, with picows on uvloop.

The process reads its job from standard input as one line of JSON, and writes a line when all
clients are connected. For ``fanout`` it writes a line whenever every client has received one more
message. For ``serve`` it waits for another line, then writes how many seconds the echoes took. It
ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from .descriptors import raise_limit
from .job import payload

__all__ = ["ClientsJob", "main"]

# The number of connections that are opened at the same time.
CONCURRENT_CONNECTS = 50


@dataclass(frozen=True, kw_only=True)
class ClientsJob:
    """What the clients do.

    Args:
        work: ``fanout``, ``serve`` or ``hold``.
        url: the URL of the server.
        connections: the number of clients.
        rounds: the number of echoes of each connection.
        size: the size of a message in bytes.
    """

    work: str
    url: str
    connections: int
    rounds: int
    size: int


class Tally:
    """The messages received by all clients."""

    def __init__(self, job: ClientsJob) -> None:
        self.job = job
        self.received = 0
        self.unfinished = job.connections
        self.finished = asyncio.Event()


class CountingListener(WSListener):
    """Counts the messages, and reports when all clients have received one more."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        tally = self._tally
        tally.received += 1
        if not tally.received % tally.job.connections:
            _write({"round": tally.received // tally.job.connections})


class EchoListener(WSListener):
    """Sends every message back until it has received ``rounds`` messages."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._rounds = tally.job.rounds

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._rounds -= 1
        if self._rounds:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())
            return
        self._tally.unfinished -= 1
        if not self._tally.unfinished:
            self._tally.finished.set()


async def main() -> None:
    """Read the job, connect the clients, and run the job until standard input ends."""
    raise_limit()
    lines = await _standard_input()
    job = ClientsJob(**json.loads(await lines.readline()))
    tally = Tally(job)
    kind = EchoListener if job.work == "serve" else CountingListener
    transports: list[WSTransport] = []
    for start in range(0, job.connections, CONCURRENT_CONNECTS):
        many = min(CONCURRENT_CONNECTS, job.connections - start)
        opened = [ws_connect(lambda: kind(tally), job.url) for _ in range(many)]
        transports += [transport for transport, _ in await asyncio.gather(*opened)]
    _write({"ready": True})
    while await lines.readline():
        began = time.perf_counter()
        for transport in transports:
            transport.send(WSMsgType.TEXT, payload(job.size))
        await tally.finished.wait()
        _write({"seconds": time.perf_counter() - began})


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _write(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
