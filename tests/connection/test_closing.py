"""Closing, with scenarios that fail in other libraries."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connection.raw_server import (
    CLOSE,
    PING,
    PONG,
    URL,
    MakeTransport,
    RawFrame,
    RawPeer,
    closing,
    encode,
    every_transport,
    lockstep,
    raw_connection,
    serving_peer,
    texts,
)
from trioglock import ConnectionClosedError, ConnectionClosedOK, Status, connect


@every_transport
async def test_a_close_frame_with_the_end_of_the_stream(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """All waiting tasks are woken."""
    async with raw_connection(transport=transport()) as (conn, peer):
        await peer.close(1000, "done")
        await peer.drop()
        with trio.fail_after(1), pytest.raises(ConnectionClosedOK) as caught:
            await conn.receive()
        assert (caught.value.code, caught.value.reason) == (1000, "done")


@every_transport
async def test_the_peer_drops_the_stream_while_we_close(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """``aclose`` returns immediately."""
    async with raw_connection(transport=transport()) as (conn, peer), trio.open_nursery() as tasks:

        async def vanish() -> None:
            await peer.next()
            await peer.close(1000)
            await peer.drop()

        tasks.start_soon(vanish)
        with trio.fail_after(1):
            await conn.aclose()
        assert conn.close_code == 1000


async def test_a_half_closed_peer_gets_our_close_frame(autojump_clock: MockClock) -> None:
    """The peer sends a Close frame and ends its sending side at once."""
    replies = []
    for _ in range(40):
        async with raw_connection() as (conn, peer):
            await peer.close(1000)
            assert isinstance(peer.stream, trio.StapledStream)
            await peer.stream.send_eof()
            await conn.wait_closed()
            replies.append([frame.opcode for frame in await peer.read_all()])
    assert replies == [[CLOSE]] * 40


@every_transport
async def test_closing_with_a_full_receive_queue(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """Our close completes although reading is paused."""

    async def serve(peer: RawPeer) -> None:
        await peer.accept()
        for number in range(50):
            await peer.text(str(number))
        await peer.answer()

    async with (
        serving_peer(serve, lockstep) as near,
        connect(
            URL, transport=transport(), stream=near, max_queue=4, close_timeout=math.inf
        ) as conn,
    ):
        await trio.sleep(1)
        with trio.fail_after(1):
            await conn.aclose()
        assert conn.close_code == 1000


@every_transport
async def test_leaving_with_a_full_receive_queue_and_a_remote_close(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The block ends although reading is paused before the Close frame of the peer."""
    async with raw_connection(transport=transport(), max_queue=2, close_timeout=math.inf) as (
        conn,
        peer,
    ):
        await peer.send(texts(*"abcdefgh"))
        await trio.sleep(1)
        await peer.send(closing(1000))
        await peer.drop()
        with trio.fail_after(1):
            await conn.aclose()
    assert conn.status is Status.CLOSED


async def test_messages_before_a_remote_close_can_be_received(autojump_clock: MockClock) -> None:
    """A slow receiver gets every message before the exception."""
    messages = [str(number) for number in range(60)]
    async with raw_connection(max_queue=4) as (conn, peer):
        for message in messages:
            await peer.text(message)
        await peer.close(4000, "enough")
        got: list[str | bytes] = []
        with pytest.raises(ConnectionClosedError) as caught:
            while True:
                got.append(await conn.receive())
                await trio.sleep(1)
        assert got == messages
        assert (caught.value.code, caught.value.reason) == (4000, "enough")


async def test_messages_of_a_lost_peer_can_be_received(autojump_clock: MockClock) -> None:
    """A heartbeat that cannot be written does not drop messages."""
    messages = [f"{number} {'x' * 2**14}" for number in range(60)]
    async with raw_connection(max_queue=4, ping_interval=5) as (conn, peer):
        for message in messages:
            await peer.text(message)
        await peer.close(1001)
        await peer.drop()
        got: list[str | bytes] = []
        async for received in conn:
            got.append(received)
            await trio.sleep(1)
        assert got == messages


@every_transport
async def test_a_message_and_a_close_frame_with_the_handshake(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The message is delivered."""

    async def serve(peer: RawPeer) -> None:
        await peer.accept(rest=texts("only") + closing(1000))
        await peer.drop()

    async with (
        serving_peer(serve) as near,
        connect(URL, transport=transport(), stream=near) as conn,
    ):
        assert [message async for message in conn] == ["only"]


async def test_sends_after_a_remote_close_raise_its_code(autojump_clock: MockClock) -> None:
    """The peer sent a Close frame and keeps the stream open."""
    async with raw_connection() as (conn, peer):
        await peer.close(4001, "why")
        await trio.sleep(1)
        assert conn.status is not Status.OPEN
        with pytest.raises(ConnectionClosedError, match="4001 why"):
            await conn.send("late")
        with pytest.raises(ConnectionClosedError, match="4001 why"):
            conn.send_nowait("late")
        with pytest.raises(ConnectionClosedError, match="4001 why"):
            await conn.ping()


async def test_sends_during_our_close_raise_our_code(autojump_clock: MockClock) -> None:
    """The peer has not answered our Close frame."""
    async with raw_connection() as (conn, _), trio.open_nursery() as tasks:
        tasks.start_soon(conn.aclose, 4002, "mine")
        await trio.sleep(1)
        assert conn.status is Status.CLOSING
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.send("late")
        assert (caught.value.code, caught.value.reason) == (4002, "mine")
        tasks.cancel_scope.cancel()


async def test_a_waiting_send_is_woken_by_a_remote_close(autojump_clock: MockClock) -> None:
    """It raises with the code of the peer."""
    async with raw_connection(streams=lockstep, write_limit=10) as (conn, peer):
        await conn.send("x" * 10)
        async with trio.open_nursery() as tasks:

            async def blocked() -> None:
                with pytest.raises(ConnectionClosedError) as caught:
                    await conn.send("y")
                assert caught.value.code == 4003

            tasks.start_soon(blocked)
            await trio.sleep(1)
            await peer.close(4003)
            with trio.fail_after(1):
                await trio.testing.wait_all_tasks_blocked()


async def test_frames_after_our_close_frame_are_read(autojump_clock: MockClock) -> None:
    """Data is delivered and pings are answered, but we send no data."""
    async with raw_connection() as (conn, peer):
        frames: list[RawFrame] = []

        async def finish() -> None:
            frames.append(await peer.next())
            await peer.send(encode(PING, b"1") + texts("late", "later") + encode(PING, b"2"))
            await trio.sleep(1)
            await peer.close(1000)
            frames.extend(await peer.read_all())

        async with trio.open_nursery() as tasks:
            tasks.start_soon(finish)
            await conn.aclose()
        assert frames[0].opcode == CLOSE
        assert {frame.opcode for frame in frames[1:]} <= {PONG}
        assert conn.close_code == 1000
        assert [await conn.receive(), await conn.receive()] == ["late", "later"]


@every_transport
async def test_data_after_our_close_frame_does_not_prevent_a_clean_close(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """It does not matter whether the transport delivers or discards it."""
    async with raw_connection(transport=transport()) as (conn, peer):

        async def finish() -> None:
            await peer.next()
            await peer.send(texts("late", "later"))
            await trio.sleep(1)
            await peer.close(1000)
            await peer.read_all()

        async with trio.open_nursery() as tasks:
            tasks.start_soon(finish)
            await conn.aclose()
        assert conn.close_code == 1000


@every_transport
async def test_no_heartbeat_after_our_close_frame(
    transport: MakeTransport, autojump_clock: MockClock
) -> None:
    """The peer sends data for 30 s before it answers our Close frame."""
    async with raw_connection(
        transport=transport(), ping_interval=1, ping_timeout=5, close_timeout=100
    ) as (conn, peer):
        frames: list[RawFrame] = []

        async def linger() -> None:
            while not frames or frames[-1].opcode != CLOSE:
                frames.append(await peer.next())
            for _ in range(30):
                await trio.sleep(1)
                await peer.text("still here")
            await peer.close(1000)
            frames.extend(await peer.read_all())

        async with trio.open_nursery() as tasks:
            tasks.start_soon(linger)
            await trio.sleep(0.5)
            await conn.aclose()
        assert [frame.opcode for frame in frames] == [CLOSE]
        assert conn.close_code == 1000
