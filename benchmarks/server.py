"""The servers: ``python -m benchmarks.server ROLE CAFILE`` runs one with picows on uvloop.

The query of the URL contains the parameters of a job. Sending a flood of messages must cost the
server very little, because the benchmark measures the client. The server therefore builds the
frames of a chunk of 64 KiB once, and writes them as fast as the socket accepts them.
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


class FrameSequence:
    """A sequence of encoded frames; any part of it can be written."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._bytes = memoryview(b"".join(frames))
        self._offsets = [0, *accumulate(map(len, frames))]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def part(self, start: int, count: int) -> memoryview:
        """Return the bytes of ``count`` frames that begin with frame ``start``."""
        return self._bytes[self._offsets[start] : self._offsets[start + count]]


@cache
def plain_frames(size: int) -> FrameSequence:
    """Return about 64 KiB of messages of this size."""
    frame = _frame(0x82 if size >= BINARY_FROM else 0x81, payload(size))
    return FrameSequence([frame] * max(1, CHUNK // len(frame)))


@cache
def deflated_frames() -> FrameSequence:
    """Return all documents, compressed with context takeover.

    The sequence can be written repeatedly: its back-references do not reach beyond its beginning,
    so the preceding data does not matter.
    """
    compressor = zlib.compressobj(wbits=-12)
    frames = []
    for document in documents():
        data = compressor.compress(document.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        frames.append(_frame(0xC1, data[:-4]))
    return FrameSequence(frames)


def _frame(first: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        return bytes((first, size)) + data
    if size < 2**16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + data
    return bytes((first, 127)) + size.to_bytes(8, "big") + data


class Listener(WSListener):
    """One connection. It answers Close frames; subclasses handle the messages."""

    def __init__(self, query: dict[str, int]) -> None:
        self.query = query

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle a frame. picows itself answers pings."""
        if frame.msg_type in DATA:
            self.handle_message(transport, frame)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def handle_message(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle a message."""


class Echo(Listener):
    """Sends every message back."""

    def handle_message(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Sink(Listener):
    """Counts the messages and confirms the last one."""

    received = 0

    def handle_message(self, transport: WSTransport, frame: WSFrame) -> None:
        self.received += 1
        if self.received == self.query["count"]:
            transport.send(WSMsgType.TEXT, b"done")


class Flood(Listener):
    """Sends ``count`` messages for each received message."""

    def __init__(self, query: dict[str, int]) -> None:
        super().__init__(query)
        self._frames = deflated_frames() if query["deflate"] else plain_frames(query["size"])
        self._position = 0
        self._remaining = 0
        self._paused = False
        self._transport: WSTransport | None = None

    def handle_message(self, transport: WSTransport, frame: WSFrame) -> None:
        self._transport = transport
        self._remaining += self.query["count"]
        self._write_remaining()

    def pause_writing(self) -> None:
        """Stop writing: the buffer of the transport is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Continue to write: the buffer of the transport has been drained."""
        self._paused = False
        self._write_remaining()

    def _write_remaining(self) -> None:
        assert self._transport is not None
        write = self._transport.underlying_transport.write
        frames = self._frames
        while self._remaining and not self._paused:
            count = min(self._remaining, len(frames) - self._position)
            part = frames.part(self._position, count)
            # Update the state first: write() may call pause_writing() and resume_writing().
            self._remaining -= count
            self._position = (self._position + count) % len(frames)
            write(part)
        if not self._remaining and self.query["end"]:
            self._transport.disconnect()


ROLES = {"echo": Echo, "flood": Flood, "sink": Sink}


def listen(
    role: type[Listener], request: WSUpgradeRequest
) -> Listener | picows.WSUpgradeResponseWithListener:
    """Return the listener for a new connection."""
    fields = parse_qs(urlsplit(request.path.decode()).query)
    query = {name: int(values[0]) for name, values in fields.items()}
    if not query["deflate"]:
        return role(query)
    response = picows.WSUpgradeResponse.create_101_response(
        extra_headers={"Sec-WebSocket-Extensions": "permessage-deflate"}
    )
    return picows.WSUpgradeResponseWithListener(response, role(query))


async def serve(role: type[Listener], cafile: Path) -> None:
    """Serve with and without TLS and print the ports; return when standard input ends."""
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
    """Run one server.

    The arguments are its role and the file to which it writes the CA certificate for clients.
    """
    role, cafile = sys.argv[1:]
    raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(ROLES[role], Path(cafile)))


if __name__ == "__main__":
    main()
