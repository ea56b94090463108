"""The servers: ``python -m benchmarks.server ROLE``, picows on uvloop, each in its own process.

What the client asks stands in the URL. A flood must cost the server next to nothing, or it is the
server that is measured: the frames of a chunk of 64 KiB are built once, and written as fast as the
socket takes them.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import zlib
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import picows
import trustme
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest

from .descriptors import raise_limit
from .job import BINARY_FROM, documents, payload

__all__ = ["main"]

CHUNK = 2**16
DATA = (WSMsgType.TEXT, WSMsgType.BINARY)


class Deck:
    """Ready-made frames in a row, to be written from anywhere up to anywhere."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._bytes = memoryview(b"".join(frames))
        self._offsets = [0, *accumulate(map(len, frames))]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def part(self, start: int, count: int) -> memoryview:
        """The bytes of ``count`` frames from ``start`` on."""
        return self._bytes[self._offsets[start] : self._offsets[start + count]]


@cache
def plain_deck(size: int) -> Deck:
    """About 64 KiB of messages of that size."""
    frame = _frame(0x82 if size >= BINARY_FROM else 0x81, payload(size))
    return Deck([frame] * max(1, CHUNK // len(frame)))


@cache
def deflated_deck() -> Deck:
    """Documents, compressed in a row with the context kept; it may be written again and again.

    A reference reaches back within the row only, so that what stands before it does not matter.
    """
    compressor = zlib.compressobj(wbits=-12)
    frames = []
    for document in documents():
        data = compressor.compress(document.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        frames.append(_frame(0xC1, data[:-4]))
    return Deck(frames)


def _frame(first: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        return bytes((first, size)) + data
    if size < 2**16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + data
    return bytes((first, 127)) + size.to_bytes(8, "big") + data


class Listener(WSListener):
    """One connection: answers Close, and leaves the data to its subclasses."""

    def __init__(self, query: dict[str, int]) -> None:
        self.query = query

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Called for each frame; picows has answered a ping already."""
        if frame.msg_type in DATA:
            self.data(transport, frame)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def data(self, transport: WSTransport, frame: WSFrame) -> None:
        """A message has come."""


class Echo(Listener):
    """Sends back what it gets."""

    def data(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Sink(Listener):
    """Counts, and confirms the last message."""

    received = 0

    def data(self, transport: WSTransport, frame: WSFrame) -> None:
        self.received += 1
        if self.received == self.query["count"]:
            transport.send(WSMsgType.TEXT, b"done")


class Flood(Listener):
    """Sends ``count`` messages for each that it gets."""

    def __init__(self, query: dict[str, int]) -> None:
        super().__init__(query)
        self._deck = deflated_deck() if query["deflate"] else plain_deck(query["size"])
        self._position = 0
        self._left = 0
        self._paused = False
        self._transport: WSTransport | None = None

    def data(self, transport: WSTransport, frame: WSFrame) -> None:
        self._transport = transport
        self._left += self.query["count"]
        self._pump()

    def pause_writing(self) -> None:
        """The socket takes no more."""
        self._paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._paused = False
        self._pump()

    def _pump(self) -> None:
        assert self._transport is not None
        write = self._transport.underlying_transport.write
        deck = self._deck
        while self._left and not self._paused:
            count = min(self._left, len(deck) - self._position)
            part = deck.part(self._position, count)
            # Before the write, which may pause and resume within itself.
            self._left -= count
            self._position = (self._position + count) % len(deck)
            write(part)
        if not self._left and self.query["end"]:
            self._transport.disconnect()


ROLES = {"echo": Echo, "flood": Flood, "sink": Sink}


def listen(
    role: type[Listener], request: WSUpgradeRequest
) -> Listener | picows.WSUpgradeResponseWithListener:
    """The listener for a new connection."""
    fields = parse_qs(urlsplit(request.path.decode()).query)
    query = {name: int(values[0]) for name, values in fields.items()}
    if not query["deflate"]:
        return role(query)
    response = picows.WSUpgradeResponse.create_101_response(
        extra_headers={"Sec-WebSocket-Extensions": "permessage-deflate"}
    )
    return picows.WSUpgradeResponseWithListener(response, role(query))


async def serve(role: type[Listener], cafile: Path) -> None:
    """Serve with and without TLS, print the ports, and end with standard input."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(cafile)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ports = []
    for tls in (None, context):
        server = await picows.ws_create_server(
            lambda request: listen(role, request), "127.0.0.1", 0, ssl=tls, backlog=1024
        )
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Run one server: its role, and where to write the certificate that clients must trust."""
    role, cafile = sys.argv[1:]
    raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(ROLES[role], Path(cafile)))


if __name__ == "__main__":
    main()
