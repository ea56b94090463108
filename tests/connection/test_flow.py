"""Flow control, fragments and limits, with scenarios that fail in other libraries."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    BINARY,
    CONT,
    PING,
    PONG,
    TEXT,
    MakeTransport,
    encode,
    every_transport,
    lockstep,
    plain_and_tls,
    raw_connection,
    shared_tls,
    texts,
)
from trioglock import ConnectionClosedError, ConnectionInfo, Reply, Socket, Status, connect
from trioglock.testing import MockServer, echo

BAD_CLIENTS = {
    "says nothing": b"",
    "half a request": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "no HTTP": b"\x16\x03\x01 nonsense\r\n\r\n" * 10,
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no key": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
    "old version": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "unmasked frame": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    b"\x81\x05Hello",
}


@plain_and_tls
@pytest.mark.parametrize("name", BAD_CLIENTS)
async def test_an_invalid_client_does_not_stop_the_mock_server(
    name: str, secure: bool, autojump_clock: MockClock
) -> None:
    """After garbage or an incomplete handshake, the next client is served."""
    context = shared_tls().server if secure else None
    with trio.fail_after(60):
        async with MockServer(echo, memory=True, ssl_context=context) as server:
            for leave_first in (True, False):
                bad = await server.open_stream()
                await bad.send_all(BAD_CLIENTS[name])
                if not leave_first:
                    with trio.move_on_after(1):
                        await bad.receive_some()
                await trio.aclose_forcefully(bad)
                await trio.testing.wait_all_tasks_blocked()
            url = "wss://raw.test/" if secure else server.url
            async with connect(
                url, stream=server.open_stream, ssl_context=shared_tls().client if secure else None
            ) as conn:
                await conn.send("still there?")
                assert await conn.receive() == "still there?"


class Greedy(Socket[None]):
    """Says more than the send queue holds as soon as it is connected."""

    messages = tuple(f"{number} {'x' * 1000}" for number in range(300))

    def handle_connect(self, info: ConnectionInfo, state: None) -> tuple[Any, None]:
        return Reply(*self.messages), state


async def test_handle_connect_replies_more_than_write_limit(autojump_clock: MockClock) -> None:
    """Connecting completes before the peer reads, and everything arrives in order."""
    async with raw_connection(Greedy(), streams=lockstep, write_limit=1000) as (conn, peer):
        await trio.sleep(5)
        assert conn.status is Status.OPEN
        got = [(await peer.next()).payload.decode() for _ in Greedy.messages]
        assert got == list(Greedy.messages)


@every_transport
async def test_a_large_slow_message_is_not_a_dead_peer(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """10 MB arrive over ten times ``ping_timeout``, during which no pong can arrive."""
    message = bytes(10 * 2**20)
    data = encode(BINARY, message)
    async with raw_connection(
        transport=transport(), ping_interval=4, ping_timeout=4, max_size=len(message)
    ) as (conn, peer):

        async def trickle() -> None:
            for start in range(0, len(data), 2**20 // 2):
                await trio.sleep(3)
                await peer.send(data[start : start + 2**20 // 2])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert await conn.receive() == message


async def test_a_large_slow_upload_is_not_a_dead_peer(autojump_clock: MockClock) -> None:
    """10 MB are sent slowly, and no ping can be sent meanwhile."""
    message = bytes(10 * 2**20)
    async with raw_connection(
        streams=lockstep, ping_interval=4, ping_timeout=4, write_limit=2**24
    ) as (conn, peer):
        await conn.send(message)
        received = 0
        while received < len(message):
            await trio.sleep(1)
            data = await peer.stream.receive_some(2**18)
            assert data, f"dropped after {received} bytes"
            received += len(data)
        assert conn.status is Status.OPEN


# 22: fragments.

BROKEN_OFF = encode(TEXT, b"one", fin=False) + texts("two") + encode(CONT, b"three")


@every_transport
async def test_control_frames_between_fragments(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Ping and pong are handled, and the message is complete."""
    async with raw_connection(transport=transport()) as (conn, peer):
        await peer.send(
            encode(TEXT, b"one ", fin=False)
            + encode(PING, b"middle")
            + encode(CONT, b"two ", fin=False)
            + encode(PONG, b"nobody asked")
            + encode(CONT, b"three")
        )
        frame = await peer.next()
        assert (frame.opcode, frame.payload) == (PONG, b"middle")
        assert await conn.receive() == "one two three"


@every_transport
async def test_a_character_split_by_fragments_and_a_ping(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Three bytes of one character arrive in three fragments with pings between them."""
    letter = "€".encode()
    async with raw_connection(transport=transport()) as (conn, peer):
        await peer.send(
            encode(TEXT, letter[:1], fin=False)
            + encode(PING)
            + encode(CONT, letter[1:2], fin=False)
            + encode(PING)
            + encode(CONT, letter[2:])
        )
        assert await conn.receive() == "€"


@every_transport
async def test_a_data_frame_between_fragments_ends_the_connection(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The program is informed immediately, even if the transport sends no Close frame."""
    async with raw_connection(transport=transport(), close_timeout=2) as (conn, peer):
        await peer.send(BROKEN_OFF)
        with trio.fail_after(2.5), pytest.raises(ConnectionClosedError):
            await conn.receive()


@every_transport
async def test_a_close_frame_between_fragments(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The incomplete message is not delivered."""
    async with raw_connection(transport=transport()) as (conn, peer):
        await peer.send(encode(TEXT, b"one", fin=False))
        await peer.close(1000)
        assert (await peer.next()).code == 1000
        await peer.drop()
        assert [message async for message in conn] == []


# 33: the size limit.

LIMIT = 1000
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


def deflated(payload: bytes) -> bytes:
    """A payload as permessage-deflate sends it (RFC 7692, section 7.2.1)."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def fragmented(payload: bytes, size: int) -> bytes:
    """One binary message in fragments of ``size`` bytes."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(
        encode(CONT if number else BINARY, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


@pytest.mark.parametrize("size", [1, LIMIT // 2, LIMIT + 1], ids=["bytes", "halves", "whole"])
@every_transport
async def test_max_size_is_exact(
    transport: MakeTransport, size: int, autojump_clock: MockClock
) -> None:
    """``max_size`` bytes pass, one more does not, in one frame or in fragments."""
    async with raw_connection(transport=transport(), max_size=LIMIT, close_timeout=2) as (
        conn,
        peer,
    ):
        for _ in range(2):
            await peer.send(fragmented(bytes(LIMIT), size))
            assert await conn.receive() == bytes(LIMIT)
        await peer.send(fragmented(bytes(LIMIT + 1), size))
        assert (await peer.next()).code == 1009
        await peer.drop()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.code == 1009


@pytest.mark.parametrize("size", [None, 1, 7], ids=["whole", "bytes", "sevens"])
async def test_max_size_applies_after_decompression(
    size: int | None, autojump_clock: MockClock
) -> None:
    """``max_size`` bytes still pass."""
    async with raw_connection(headers=DEFLATE, max_size=LIMIT, close_timeout=2) as (conn, peer):
        assert conn.handshake is not None
        assert conn.handshake.extensions == ("permessage-deflate",)
        for length in (LIMIT, LIMIT + 1):
            payload = deflated(bytes(length))
            assert len(payload) < 30
            data = bytearray(fragmented(payload, size or len(payload)))
            data[0] |= 0x40
            await peer.send(bytes(data))
            if length == LIMIT:
                assert await conn.receive() == bytes(LIMIT)
        assert (await peer.next()).code == 1009
        await peer.drop()
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.code == 1009


async def test_a_compression_bomb_takes_no_memory(autojump_clock: MockClock) -> None:
    """20 MB in 20 kB: 1009 before they are decompressed."""
    async with raw_connection(headers=DEFLATE, close_timeout=2) as (_, peer):
        await peer.send(encode(BINARY, deflated(bytes(20 * 2**20)), rsv=4))
        assert (await peer.next()).code == 1009
        await peer.drop()


@every_transport
async def test_without_max_size(transport: MakeTransport, autojump_clock: MockClock) -> None:
    """A message of more than the default limit is received."""
    message = bytes(2**20 + 1)
    async with (
        raw_connection(transport=transport(), max_size=None) as (conn, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.send, encode(BINARY, message))
        assert await conn.receive() == message
