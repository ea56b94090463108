"""Defects that were measured in current releases of other libraries."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    MakeTransport,
    closing,
    encode,
    every_transport,
    lockstep,
    plain_and_tls,
    raw_connection,
    texts,
)
from trioglock import (
    Connection,
    ConnectionClosed,
    ConnectionClosedError,
    HeartbeatTimeout,
    Status,
    connect,
)
from trioglock.testing import MockPeer, MockServer

BIG = 4 * 2**20


async def send_many(conn: Connection[None], message: bytes, count: int) -> None:
    for _ in range(count):
        await conn.send(message)


@every_transport
@pytest.mark.slow
async def test_both_peers_send_large_messages(transport: MakeTransport) -> None:
    """Five messages of 4 MB each way over TCP do not deadlock."""
    message, count = bytes(BIG), 5

    async def trade(peer: MockPeer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, *[message] * count)
            for _ in range(count):
                assert len(await peer.receive()) == BIG
        await peer.expect_close(1000)

    with trio.fail_after(300):
        async with (
            MockServer(trade) as server,
            connect(server.url, transport=transport(), compression=None, max_size=2 * BIG) as conn,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(send_many, conn, message, count)
            for _ in range(count):
                assert len(await conn.receive()) == BIG


@every_transport
async def test_a_peer_that_writes_everything_before_it_reads(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Our reader continues, although there is no buffer between the ends."""
    message, count = bytes(BIG), 2
    async with raw_connection(streams=lockstep, transport=transport(), max_size=BIG) as (
        conn,
        peer,
    ):

        async def write_then_read() -> None:
            for _ in range(count):
                await peer.send(encode(BINARY, message))
            for _ in range(count):
                assert (await peer.next()).payload == message

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_then_read)
                nursery.start_soon(send_many, conn, message, count)
                for _ in range(count):
                    assert await conn.receive() == message


@every_transport
async def test_a_send_to_a_peer_that_never_reads(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """With a heartbeat of 1 s / 1 s it raises ConnectionClosed in time."""
    async with raw_connection(
        streams=lockstep, transport=transport(), ping_interval=1, ping_timeout=1
    ) as (conn, _):
        with trio.fail_after(3), pytest.raises(ConnectionClosed) as caught:
            while True:
                await conn.send("x" * 10_000)
        assert isinstance(caught.value.cause, HeartbeatTimeout)
        assert caught.value.unsent


async def test_a_ping_does_not_wait_behind_queued_messages(
    autojump_clock: MockClock,
) -> None:
    """Only the batch that is being written goes before it."""
    async with raw_connection(
        streams=lockstep, ping_interval=5, ping_timeout=5, write_limit=2**24
    ) as (conn, peer):
        for _ in range(100):
            await conn.send(bytes(2**16))
        await trio.sleep(6)
        frames = [(await peer.next()).opcode for _ in range(3)]
        assert PING in frames


@plain_and_tls
@every_transport
async def test_a_cancelled_large_send_leaves_no_partial_frame(
    transport: MakeTransport, secure: bool, autojump_clock: MockClock
) -> None:
    """The peer receives all or nothing of 4 MB, and then a separate frame."""
    big = bytes(BIG)
    async with raw_connection(streams=lockstep, transport=transport(), secure=secure) as (
        conn,
        peer,
    ):
        for _ in range(2):
            with trio.move_on_after(0.5):
                await conn.send(big)
                await conn.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conn.send, "hello")
            frames = [await peer.next()]
            while frames[-1].opcode != TEXT:
                frames.append(await peer.next())
        assert [frame.payload for frame in frames] == [big, b"hello"]


@every_transport
async def test_unread_messages_do_not_delay_a_pong(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Five unread messages are followed by a ping, which is answered immediately."""
    async with raw_connection(transport=transport()) as (conn, peer):
        await peer.send(texts(*"abcde") + encode(PING, b"there?"))
        with trio.fail_after(1):
            frame = await peer.next()
        assert (frame.opcode, frame.payload) == (PONG, b"there?")
        assert [await conn.receive() for _ in range(5)] == list("abcde")


@every_transport
@pytest.mark.slow
async def test_one_message_in_65536_fragments(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Only ``max_size`` limits the number of fragments."""
    count = 65_536
    fragments = (
        encode(BINARY, b"x", fin=False)
        + encode(CONT, b"x", fin=False) * (count - 2)
        + encode(CONT, b"x")
    )
    async with raw_connection(transport=transport()) as (conn, peer):
        await peer.send(fragments)
        assert await conn.receive() == b"x" * count
    assert conn.close_code == 1000


VIOLATIONS = {
    "reserved bit": (encode(TEXT, b"x", rsv=1), 1002),
    "reserved opcode": (encode(0x3), 1002),
    "reserved control opcode": (encode(0xB), 1002),
    "masked by a server": (b"\x81\x81\x00\x00\x00\x00x", 1002),
    "fragmented ping": (encode(PING, fin=False), 1002),
    "long ping": (encode(PING, bytes(126)), 1002),
    "continuation of nothing": (encode(CONT), 1002),
    "one-byte close": (encode(CLOSE, b"\x03"), 1002),
    "close code of nobody": (encode(CLOSE, (1006).to_bytes(2)), 1002),
    "bad text": (encode(TEXT, b"\xff"), 1007),
    "bad close reason": (encode(CLOSE, b"\x03\xe8\xff"), 1007),
    "too long": (encode(TEXT, bytes(2**20 + 1)), 1009),
    "too long by its header": (b"\x82\x7f" + (2**62).to_bytes(8), 1009),
    "data between fragments": (encode(TEXT, b"one", fin=False) + encode(TEXT, b"two"), 1002),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_is_answered_immediately(name: str, autojump_clock: MockClock) -> None:
    """The peer gets the code and does not have to end the stream."""
    data, code = VIOLATIONS[name]
    async with raw_connection(close_timeout=2) as (conn, peer):
        began = trio.current_time()
        await peer.send(texts("before") + data + texts("after"))
        frame = await peer.next()
        assert (frame.opcode, frame.code) == (CLOSE, code)
        assert trio.current_time() == began
        assert await conn.receive() == "before"
        with trio.fail_after(2.5), pytest.raises(ConnectionClosedError) as caught:
            await conn.receive()
        assert caught.value.code == code
        assert conn.status is Status.CLOSED


async def test_a_violation_ends_when_the_peer_ends_the_stream(
    autojump_clock: MockClock,
) -> None:
    """There is no wait for a deadline."""
    async with raw_connection(close_timeout=math.inf) as (conn, peer):
        await peer.send(encode(0x3))
        await peer.next()
        await peer.drop()
        with trio.fail_after(1):
            await conn.wait_closed()


def test_the_frames_of_the_raw_peer() -> None:
    """They match the examples of RFC 6455, sections 5.5.1 and 5.7."""
    assert encode(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert encode(CONT, b"lo") == bytes.fromhex("80026c6f")
    assert encode(TEXT) == b"\x81\x00"
    assert closing(1000, "x") == b"\x88\x03\x03\xe8x"
