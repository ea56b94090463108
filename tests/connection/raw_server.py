"""A WebSocket peer that sends exactly the given bytes."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, Unpack

import pytest
import trio
import trio.testing
import trustme

from trioglock import (
    Connection,
    ConnectOptions,
    Disconnect,
    NativeTransport,
    Reply,
    Socket,
    Transport,
    TrioWebsocketTransport,
    connect,
)

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
HOST = "raw.test"
URL = f"ws://{HOST}/"

StreamPair: TypeAlias = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]
# The first has an unlimited buffer, the second has none.
unbounded: StreamPair = trio.testing.memory_stream_pair
lockstep: StreamPair = trio.testing.lockstep_stream_pair

every_transport = pytest.mark.parametrize(
    "transport",
    [
        pytest.param(NativeTransport, id="native"),
        pytest.param(TrioWebsocketTransport, id="trio-websocket"),
    ],
)
plain_and_tls = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
MakeTransport: TypeAlias = Callable[[], Transport]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One received frame, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = True

    @property
    def code(self) -> int:
        """The code of a Close frame; 1005 if it has none."""
        return int.from_bytes(self.payload[:2]) if self.payload else 1005


class HalfFrameError(AssertionError):
    """The stream ended in the middle of a frame."""


def encode(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Encode a frame of a server, valid or not."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    length = len(payload)
    if length < 126:
        return head + bytes([length]) + payload
    if length < 2**16:
        return head + bytes([126]) + length.to_bytes(2) + payload
    return head + bytes([127]) + length.to_bytes(8) + payload


def closing(code: int = 1000, reason: str = "") -> bytes:
    """Encode a Close frame."""
    return encode(CLOSE, code.to_bytes(2) + reason.encode())


def texts(*messages: str) -> bytes:
    """Encode text messages."""
    return b"".join(encode(TEXT, message.encode()) for message in messages)


class RawPeer:
    """The end of a stream on the server's side. Several tasks may send, one may read."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.request = b""
        self._buffer = bytearray()
        self._lock = trio.Lock()

    async def accept(self, headers: str = "", rest: bytes = b"") -> None:
        """Answer the opening handshake, with ``rest`` in the same write."""
        while b"\r\n\r\n" not in self._buffer:
            data = await self.stream.receive_some()
            assert data, "the client left in the middle of its request"
            self._buffer += data
        request, _, after = bytes(self._buffer).partition(b"\r\n\r\n")
        self.request, self._buffer = request, bytearray(after)
        key = next(
            line.partition(b":")[2].strip()
            for line in request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()  # noqa: S324
        answer = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
        )
        await self.send(answer.encode() + rest)

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        async with self._lock:
            await self.stream.send_all(data)

    async def text(self, *messages: str) -> None:
        """Send whole text messages in one write."""
        await self.send(texts(*messages))

    async def push(self, messages: Iterable[str], sent: list[str]) -> None:
        """Send each message in a write of its own, and append it to ``sent`` afterwards."""
        for message in messages:
            await self.text(message)
            sent.append(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close frame; the stream stays open."""
        await self.send(closing(code, reason))

    async def drop(self) -> None:
        """Close the stream in both directions, without a Close frame."""
        await trio.aclose_forcefully(self.stream)

    async def _fill(self, count: int) -> bool:
        while len(self._buffer) < count:
            try:
                data = await self.stream.receive_some(2**18)
            except _GONE:
                data = b""
            if not data:
                return False
            self._buffer += data
        return True

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def read(self) -> RawFrame | None:
        """Read the next frame of the client, or None at the end of the stream.

        Raises:
            HalfFrameError: the stream ended within a frame.
        """
        if not await self._fill(2):
            if self._buffer:
                raise HalfFrameError(bytes(self._buffer))
            return None
        head, second = self._buffer[:2]
        length, wide = second & 0x7F, 0
        if length > 125:
            wide = 2 if length == 126 else 8
            await self._need(2 + wide)
            length = int.from_bytes(self._buffer[2 : 2 + wide])
        masked = bool(second & 0x80)
        start = 2 + wide + 4 * masked
        await self._need(start + length)
        mask = self._take(start)[-4:] if masked else bytes(4)
        payload = _unmask(self._take(length), mask)
        return RawFrame(head & 0xF, payload, bool(head & 0x80), head >> 4 & 7, masked)

    async def _need(self, count: int) -> None:
        if not await self._fill(count):
            raise HalfFrameError(bytes(self._buffer[:20]))

    async def next(self) -> RawFrame:
        """Read the next frame of the client; there must be one."""
        frame = await self.read()
        assert frame is not None, "the client ended the stream"
        return frame

    async def read_all(self) -> list[RawFrame]:
        """Read all frames until the end of the stream."""
        frames = []
        while (frame := await self.read()) is not None:
            frames.append(frame)
        return frames

    async def answer(self, *, echo: bool = False, pongs: bool = True) -> list[RawFrame]:
        """Answer pings and the Close frame until the end; return all frames."""
        frames = []
        with_echo = (TEXT, BINARY) if echo else ()
        try:
            while (frame := await self.read()) is not None:
                frames.append(frame)
                if frame.opcode == PING and pongs:
                    await self.send(encode(PONG, frame.payload))
                elif frame.opcode == CLOSE:
                    await self.send(encode(CLOSE, frame.payload))
                    break
                elif frame.opcode in with_echo:
                    await self.send(encode(frame.opcode, frame.payload))
            await self.drop()
        except (*_GONE, trio.BusyResourceError):
            pass
        return frames

    async def answer_until_end(self) -> None:
        """Answer until the end, which may be at any byte."""
        with suppress(HalfFrameError):
            await self.answer()


@asynccontextmanager
async def serving_peer(
    script: Callable[[RawPeer], Awaitable[object]], streams: StreamPair = unbounded
) -> AsyncIterator[trio.abc.Stream]:
    """Run the peer's side of a connection, and yield the client's end of the stream."""
    near, far = streams()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, RawPeer(far))
        yield near


def _unmask(payload: bytes, mask: bytes) -> bytes:
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(length)


class Ends(Socket[None]):
    """Records the reasons of its disconnects and its end."""

    def __init__(self) -> None:
        self.disconnects: list[Disconnect] = []
        self.ends: list[Disconnect] = []

    def handle_disconnect(self, reason: Disconnect, state: None) -> tuple[None, None]:
        self.disconnects.append(reason)
        return None, state

    def terminate(self, reason: Disconnect, state: None) -> None:
        self.ends.append(reason)


class SlowReceive(Socket[None]):
    """Takes some seconds for each message, and delivers it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        await trio.sleep(self.seconds)
        return frame, state


class EchoHook(Socket[None]):
    """Replies each message a number of times."""

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def handle_receive(self, frame: Any, state: None) -> tuple[Any, None]:
        return Reply(*[frame] * self.times), state


def numbered(count: int) -> list[str]:
    """Create ``count`` different messages."""
    return [str(number) for number in range(count)]


class Tls:
    """TLS contexts of a server called :data:`HOST` and a client that trusts it."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST, "127.0.0.1").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)

    def serve(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """Wrap the server's side of a stream."""
        return trio.SSLStream(stream, self.server, server_side=True, https_compatible=True)


shared_tls = cache(Tls)


@asynccontextmanager
async def raw_connection(
    socket: Socket[Any] | None = None,
    *,
    streams: StreamPair = unbounded,
    headers: str = "",
    secure: bool = False,
    **options: Unpack[ConnectOptions],
) -> AsyncIterator[tuple[Connection[Any], RawPeer]]:
    """Open a connection in memory to a raw peer, which answers after the test.

    By default there is no heartbeat.
    """
    near, far = streams()
    options.setdefault("stream", near)
    options.setdefault("ping_interval", None)
    url = URL
    if secure:
        tls = shared_tls()
        url, far = f"wss://{HOST}/", tls.serve(far)
        options["ssl_context"] = tls.client
    peer = RawPeer(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept, headers)
        async with connect(url, socket, **options) as conn:
            try:
                yield conn, peer
            finally:
                nursery.start_soon(peer.answer_until_end)
