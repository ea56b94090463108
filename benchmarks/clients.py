"""Many clients of one server: ``python -m benchmarks.clients``, with picows on uvloop.

The process exchanges lines of JSON. It writes its process id when it is ready, reads its job, and
writes the number of connections when all clients are connected. For ``fanout`` it writes a number
whenever every client has received one more batch of messages. For ``serve`` it reads how many
messages each client is to echo, and writes how many seconds that took. It ends when its standard
input is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from .certificates import trusting_context
from .descriptors import raise_limit
from .job import payload

__all__ = [
    "CONCURRENT_CONNECTS",
    "HANDSHAKE_SECONDS",
    "OFFER",
    "ClientsJob",
    "main",
    "standard_input",
    "write_line",
]

# The number of connections that are opened at the same time.
CONCURRENT_CONNECTS = 50

HANDSHAKE_SECONDS = 60
"""A machine that is busy with other work is slow."""

# What browsers offer.
OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}


@dataclass(frozen=True, kw_only=True)
class ClientsJob:
    """What the clients do.

    Args:
        work: ``fanout``, ``serve`` or ``hold``.
        url: the URL of the server.
        connections: the number of clients.
        batch: the number of messages that each client receives at a time in a fan-out.
        size: the size of a message in bytes.
        deflate: offer compression.
    """

    work: str
    url: str
    connections: int
    batch: int
    size: int
    deflate: bool


class Tally:
    """The messages received by all clients."""

    def __init__(self, job: ClientsJob) -> None:
        self.expected = job.connections * job.batch
        self.received = 0
        self.rounds = 0
        """How many messages each client echoes."""
        self.unfinished = 0
        """How many clients have messages left to echo."""
        self.finished = asyncio.Event()


class CountingListener(WSListener):
    """Counts the messages, and reports when all clients have received one more batch."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        tally = self._tally
        tally.received += 1
        if not tally.received % tally.expected:
            write_line(tally.received // tally.expected)


class EchoListener(WSListener):
    """Sends every message back until it has received ``rounds`` messages."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._received = 0

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._received += 1
        if self._received < self._tally.rounds:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())
            return
        self._received = 0
        self._tally.unfinished -= 1
        if not self._tally.unfinished:
            self._tally.finished.set()


async def main() -> None:
    """Read the job, connect the clients, and run the job until standard input ends."""
    raise_limit()
    lines = await standard_input()
    write_line(os.getpid())
    job = ClientsJob(**json.loads(await lines.readline()))
    tally = Tally(job)
    transports = await _connect_all(job, tally)
    write_line(len(transports))
    while line := await lines.readline():
        tally.rounds, tally.unfinished = json.loads(line), len(transports)
        tally.finished.clear()
        began = time.perf_counter()
        for transport in transports:
            transport.send(WSMsgType.TEXT, payload(job.size))
        await tally.finished.wait()
        write_line(time.perf_counter() - began)


async def _connect_all(job: ClientsJob, tally: Tally) -> list[WSTransport]:
    kind = EchoListener if job.work == "serve" else CountingListener
    context = trusting_context() if job.url.startswith("wss:") else None
    headers = OFFER if job.deflate else None
    transports: list[WSTransport] = []
    for start in range(0, job.connections, CONCURRENT_CONNECTS):
        many = min(CONCURRENT_CONNECTS, job.connections - start)
        opening = (
            ws_connect(
                lambda: kind(tally),
                job.url,
                ssl_context=context,
                extra_headers=headers,
                websocket_handshake_timeout=HANDSHAKE_SECONDS,
            )
            for _ in range(many)
        )
        for transport, _ in await asyncio.gather(*opening):
            agreed = transport.response.headers.get("Sec-WebSocket-Extensions")
            assert bool(agreed) is job.deflate, agreed
            transports.append(transport)
    return transports


async def standard_input() -> asyncio.StreamReader:
    """Return the reader of standard input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def write_line(value: object) -> None:
    """Write a value as a line of JSON."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
