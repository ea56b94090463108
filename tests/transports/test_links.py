"""Links through their interface: streams that break, and unusual frames."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from tests.transports.servers import (
    URL,
    MakeTransport,
    Script,
    answering,
    failure,
    hold,
    memory_server,
    on_both,
    read_request,
    response,
    serving,
    text,
    upgrade,
    upgrading,
)
from trioglock import Close, NativeTransport, Ping, Pong, TrioWebsocketTransport, connect
from trioglock.frames import Violation
from trioglock.options import DialOptions
from trioglock.transports import Link, LinkBroken


@asynccontextmanager
async def linked(transport: MakeTransport, stream: trio.abc.Stream) -> AsyncIterator[Link]:
    """An open link over a stream, without a connection."""
    async with trio.open_nursery() as nursery:
        dial = DialOptions(url=URL, stream=stream)
        link = await transport().connect(dial, nursery)
        yield link
        await link.aclose()
        nursery.cancel_scope.cancel()


def after_101(*parts: bytes, extension: str | None = None) -> Script:
    """A script that upgrades, sends these bytes, and stays."""

    async def script(stream: trio.abc.Stream) -> None:
        headers = [] if extension is None else [f"Sec-WebSocket-Extensions: {extension}"]
        await stream.send_all(upgrade(await read_request(stream), *headers))
        for part in parts:
            await stream.send_all(part)
        await hold(stream)

    return script


class Fragile(trio.abc.Stream):
    """A stream that is not trio's own: it starts to raise an OSError."""

    def __init__(self, stream: trio.abc.Stream, *, reads: float = 1e9, writes: float = 1e9) -> None:
        self._stream = stream
        self._reads = reads
        self._writes = writes

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._reads -= 1
        if self._reads < 0:
            raise OSError("the cable is cut")
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._writes -= 1
        if self._writes < 0:
            raise OSError("the cable is cut")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_stream_that_breaks_while_reading(autojump_clock: MockClock) -> None:
    """LinkBroken, with the stream's exception as its cause."""
    async with (
        memory_server(after_101()) as stream,
        linked(NativeTransport, Fragile(stream, reads=1)) as link,
    ):
        with pytest.raises(LinkBroken, match="cable") as caught:
            await link.receive()
        assert isinstance(caught.value.__cause__, OSError)


async def test_trio_websocket_takes_it_for_the_end(autojump_clock: MockClock) -> None:
    """With trio-websocket, a stream that breaks while reading has ended."""
    async with (
        memory_server(after_101()) as stream,
        linked(TrioWebsocketTransport, Fragile(stream, reads=1)) as link,
    ):
        assert await link.receive() == []


@on_both
@pytest.mark.parametrize("message", ["short", "x" * 100_000])
async def test_a_stream_that_breaks_while_writing(
    transport: MakeTransport, message: str, autojump_clock: MockClock
) -> None:
    """LinkBroken, with the stream's exception as its cause."""
    async with (
        memory_server(after_101()) as stream,
        linked(transport, Fragile(stream, writes=1)) as link,
    ):
        with pytest.raises(LinkBroken, match="cable") as caught:
            await link.write([message])
        assert isinstance(caught.value.__cause__, OSError)


@on_both
@pytest.mark.parametrize("where", [{"writes": 0}, {"reads": 0}])
async def test_a_stream_that_breaks_in_the_handshake(
    transport: MakeTransport, where: dict[str, float], autojump_clock: MockClock
) -> None:
    """ConnectFailed, with the stream's exception as its cause."""
    async with memory_server(after_101()) as stream:
        error = await failure(URL, transport=transport(), stream=Fragile(stream, **where))
    assert isinstance(error, OSError)
    assert "cable" in str(error)
    assert str(error.__cause__) == "the cable is cut"


@on_both
async def test_a_stream_that_breaks_in_a_refusal(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The error has the status and the received part of the body."""
    data = response("503 Busy", "Content-Length: 1000", body=b"no entry")
    async with memory_server(answering(data)) as stream:
        error = await failure(URL, transport=transport(), stream=Fragile(stream, reads=1))
    assert "503" in str(error)


@on_both
async def test_a_peer_that_is_gone_has_no_name(transport: MakeTransport) -> None:
    """A socket that no longer has a peer address is accepted."""

    def gone() -> object:
        raise OSError("not connected")

    async def dial() -> trio.abc.Stream:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        stream.socket.getpeername = gone  # type: ignore[method-assign]
        return stream

    async with (
        serving(upgrading([])) as port,
        connect(URL, transport=transport(), stream=dial) as conn,
    ):
        assert conn.handshake is not None
        assert conn.handshake.peer == ""


async def test_what_inflates_much_comes_in_portions(autojump_clock: MockClock) -> None:
    """Two large messages of one small chunk do not fill the memory together."""
    compressed = b""
    deflate = PerMessageDeflate(True, True, 15, 15)
    for letter in b"ab":
        frame = Frame(Opcode.BINARY, bytes([letter]) * 2**20)
        compressed += frame.serialize(mask=False, extensions=[deflate])
    more = compressed * 2
    extension = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    async with (
        memory_server(after_101(more, extension=extension)) as stream,
        linked(NativeTransport, stream) as link,
    ):
        portions: list[list[object]] = []
        while sum(map(len, portions)) < 4:
            [messages] = await link.receive()
            assert isinstance(messages, list)
            portions.append([message[:1] for message in messages])
    assert len(portions) > 1
    assert [first for portion in portions for first in portion] == [b"a", b"b"] * 2


@on_both
async def test_unasked_pongs_and_twin_pings_can_be_sent(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Control frames are written in order; a duplicate ping is harmless."""
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(after_101(text("hello")), far)
        async with linked(transport, near) as link:
            await link.write([Pong(b"pong"), Ping(b"ping"), Ping(b"ping"), "text"])
            assert await link.receive() == [["hello"]]
            assert link.bytes_sent > 0


@pytest.mark.parametrize(
    ("frame", "kind", "code"),
    [
        (b"\x88\x02\x03\xe8", Close, 1000),
        (b"\x88\x05\x0f\xa0bye", Close, 4000),
        (b"\x88\x02\x0b\xb7", Close, 1002),
        (b"\x82\x7f" + (2**30).to_bytes(8) + b"x" * 2**21, Violation, 1009),
    ],
)
async def test_how_trio_websocket_ends(
    frame: bytes, kind: type[Close | Violation], code: int, autojump_clock: MockClock
) -> None:
    """A Close frame is returned as sent; one with a bad code is the library's own 1002."""
    async with (
        memory_server(after_101(frame)) as stream,
        linked(TrioWebsocketTransport, stream) as link,
    ):
        [event] = await link.receive()
        assert isinstance(event, kind)
        assert event.code == code
        assert await link.receive() == []
