"""How connections ended badly in other libraries: scenarios 8 to 12."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

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
    texts,
    unbounded,
)
from trioglock import (
    ConnectionClosedError,
    ConnectionClosedOK,
    Status,
    connect,
)

Clock = trio.testing.MockClock


# 8: remote close, then the stream goes.


@every_transport
async def test_scenario_08_remote_close_and_drop_at_once(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """A Close frame and the end of the stream in one go: everyone learns it, nobody waits."""
    async with raw_connection(transport=transport()) as (conn, peer):
        await peer.close(1000, "done")
        await peer.drop()
        with trio.fail_after(1), pytest.raises(ConnectionClosedOK) as caught:
            await conn.receive()
        assert (caught.value.code, caught.value.reason) == (1000, "done")


@every_transport
async def test_scenario_08_the_drop_comes_while_we_close(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """We say Close, the peer says Close and vanishes: ``aclose`` returns at once."""
    async with raw_connection(transport=transport()) as (conn, peer), trio.open_nursery() as tasks:

        async def vanish() -> None:
            await peer.next()
            await peer.close(1000)
            await peer.drop()

        tasks.start_soon(vanish)
        with trio.fail_after(1):
            await conn.aclose()
        assert conn.close_code == 1000


async def test_scenario_08_a_half_closed_peer_still_gets_our_confirmation(
    autojump_clock: Clock,
) -> None:
    """Close frame and end of its sending side in one go: our Close frame leaves, every time."""
    replies = []
    for _ in range(40):
        async with raw_connection() as (conn, peer):
            await peer.close(1000)
            assert isinstance(peer.stream, trio.StapledStream)
            await peer.stream.send_eof()
            await conn.wait_closed()
            replies.append([frame.opcode for frame in await peer.read_all()])
    assert replies == [[CLOSE]] * 40


# 9, 10: unread messages.


@every_transport
async def test_scenario_09_close_with_unread_messages_queued(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """The receive queue is full and the reader held; our own close goes through all the same."""
    near, far = lockstep()
    peer = RawPeer(far)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.accept()
            for number in range(50):
                await peer.text(str(number))
            await peer.answer()

        nursery.start_soon(serve)
        async with connect(
            URL, transport=transport(), stream=near, max_queue=4, close_timeout=math.inf
        ) as conn:
            await trio.sleep(1)
            with trio.fail_after(1):
                await conn.aclose()
            assert conn.close_code == 1000


@every_transport
async def test_scenario_09_leaving_the_block_with_unread_messages_and_a_remote_close(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """Held back in front of the peer's Close frame, leaving the block still ends."""
    async with raw_connection(
        transport=transport(), max_queue=2, close_timeout=math.inf, ping_interval=None
    ) as (conn, peer):
        await peer.send(texts(*"abcdefgh"))
        await trio.sleep(1)
        await peer.send(closing(1000))
        await peer.drop()
        with trio.fail_after(1):
            await conn.aclose()
    assert conn.status is Status.CLOSED


@every_transport
async def test_scenario_10_messages_before_the_remote_close_stay_readable(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """A slow reader gets every message, then learns of the close."""
    messages = [str(number) for number in range(60)]
    async with raw_connection(transport=transport(), max_queue=4, ping_interval=None) as (
        conn,
        peer,
    ):
        for message in messages:
            await peer.text(message)
        await peer.close(4000, "enough")
        got = []
        with pytest.raises(ConnectionClosedError) as caught:
            while True:
                got.append(await conn.receive())
                await trio.sleep(1)
        assert got == messages
        assert (caught.value.code, caught.value.reason) == (4000, "enough")


async def test_scenario_10_messages_of_a_peer_that_has_gone_stay_readable(
    autojump_clock: Clock,
) -> None:
    """A heartbeat that can no longer be written takes nothing from a slow reader."""
    messages = [f"{number} {'x' * 2**14}" for number in range(60)]
    async with raw_connection(max_queue=4, ping_interval=5) as (conn, peer):
        for message in messages:
            await peer.text(message)
        await peer.close(1001)
        await peer.drop()
        got = []
        async for message in conn:
            got.append(message)
            await trio.sleep(1)
        assert got == messages


@every_transport
async def test_scenario_10_one_message_and_an_immediate_close(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """Both in one packet right behind the handshake: the message is delivered."""
    near, far = unbounded()
    peer = RawPeer(far)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await peer.accept(rest=texts("only") + closing(1000))
            await peer.drop()

        nursery.start_soon(serve)
        async with connect(URL, transport=transport(), stream=near) as conn:
            assert [message async for message in conn] == ["only"]


# 11: sending while it closes.


@every_transport
async def test_scenario_11_a_send_during_a_remote_close_knows_its_reason(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """The peer has said Close and keeps the stream: every way to send tells its code."""
    async with raw_connection(transport=transport()) as (conn, peer):
        await peer.close(4001, "why")
        await trio.sleep(1)
        assert conn.status is not Status.OPEN
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.send("late")
        assert (caught.value.code, caught.value.reason) == (4001, "why")
        with pytest.raises(ConnectionClosedError) as caught:
            conn.send_nowait("late")
        assert (caught.value.code, caught.value.reason) == (4001, "why")
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.ping()
        assert (caught.value.code, caught.value.reason) == (4001, "why")


@every_transport
async def test_scenario_11_a_send_during_our_own_close_knows_its_reason(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """While the peer has not answered our Close, the error carries the code we sent."""
    async with raw_connection(transport=transport()) as (conn, _), trio.open_nursery() as tasks:
        tasks.start_soon(conn.aclose, 4002, "mine")
        await trio.sleep(1)
        assert conn.status is Status.CLOSING
        with pytest.raises(ConnectionClosedError) as caught:
            await conn.send("late")
        assert (caught.value.code, caught.value.reason) == (4002, "mine")
        tasks.cancel_scope.cancel()


async def test_scenario_11_a_send_that_waits_for_room_learns_of_the_close(
    autojump_clock: Clock,
) -> None:
    """A blocked send is woken by the peer's Close, with its code."""
    async with raw_connection(streams=lockstep, write_limit=10, ping_interval=None) as (conn, peer):
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


# 12: what comes after our Close.


async def test_scenario_12_pings_and_data_after_our_close_are_read(
    autojump_clock: Clock,
) -> None:
    """The peer may finish what it was saying; we send no data any more, only pongs."""
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
async def test_scenario_12_data_after_our_close_does_not_spoil_it(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """Whether the transport reads or throws it away, the closing handshake is clean."""
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
async def test_scenario_12_no_heartbeat_ping_after_our_close(
    transport: MakeTransport, autojump_clock: Clock
) -> None:
    """The peer takes 30 s to answer our Close and talks meanwhile: it is not pinged."""
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
