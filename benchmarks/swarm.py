"""The swarm: ``python -m benchmarks.swarm``, many clients of one server, picows on uvloop.

It reads one line of JSON with its order, says when all are connected, and then, for ``fanout``,
each time that every client has got one more message; for ``serve``, when it is told to go, how
many seconds the echoes took. It ends with its standard input.
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

__all__ = ["Order", "main"]

# Connections that are being opened at the same time.
AT_ONCE = 50


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to do.

    Args:
        work: ``fanout``, ``serve`` or ``hold``.
        url: of the server.
        connections: how many.
        rounds: echoes of each connection.
        size: bytes of a message.
    """

    work: str
    url: str
    connections: int
    rounds: int
    size: int


class Tally:
    """What all clients of the swarm have got."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.received = 0
        self.left = order.connections
        self.over = asyncio.Event()


class Listening(WSListener):
    """Counts; the last one of a round says so."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        tally = self._tally
        tally.received += 1
        if not tally.received % tally.order.connections:
            _say({"round": tally.received // tally.order.connections})


class Echoing(WSListener):
    """Sends again what comes back."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._rounds = tally.order.rounds

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._rounds -= 1
        if self._rounds:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())
            return
        self._tally.left -= 1
        if not self._tally.left:
            self._tally.over.set()


async def main() -> None:
    """Do what the first line orders, until standard input ends."""
    raise_limit()
    lines = await _standard_input()
    order = Order(**json.loads(await lines.readline()))
    tally = Tally(order)
    kind = Echoing if order.work == "serve" else Listening
    transports: list[WSTransport] = []
    for start in range(0, order.connections, AT_ONCE):
        many = min(AT_ONCE, order.connections - start)
        opened = [ws_connect(lambda: kind(tally), order.url) for _ in range(many)]
        transports += [transport for transport, _ in await asyncio.gather(*opened)]
    _say({"ready": True})
    while await lines.readline():
        began = time.perf_counter()
        for transport in transports:
            transport.send(WSMsgType.TEXT, payload(order.size))
        await tally.over.wait()
        _say({"seconds": time.perf_counter() - began})


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
