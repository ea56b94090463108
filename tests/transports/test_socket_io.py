"""A plain socket beneath a connection: full, slow, closed under our feet."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.transports.servers import read_request, upgrade
from trioglock import Connection, ConnectionClosed, Reply, Socket, connect
from trioglock.frames import Ping
from trioglock.transports.native import Decoder

PAYLOAD = "0123456789abcdef" * 64


@contextlib.asynccontextmanager
async def plain(
    user: Socket[Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Connection[Any], trio.SocketStream]]:
    """A connection over a socket pair with small buffers, and the far end of the pair."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    peer = trio.SocketStream(trio.socket.from_stdlib_socket(far))
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, peer)
            options = {"ping_interval": None, "compression": None, **options}
            async with connect("ws://pair.test/", user, stream=stream, **options) as conn:
                yield conn, peer
            await trio.aclose_forcefully(peer)


async def shake_hands(peer: trio.SocketStream) -> None:
    await peer.send_all(upgrade(await read_request(peer)))


async def messages(peer: trio.SocketStream, count: int) -> list[Any]:
    """The next data messages that arrive, whole."""
    decoder = Decoder(masked=True, max_size=None, deflate=None)
    found: list[Any] = []
    while len(found) < count:
        for event in decoder.feed(await peer.receive_some(1000)):
            found += event if isinstance(event, list) else [event]
    return found


@pytest.mark.parametrize("size", [1, 100, 400])
async def test_a_full_socket_delays_what_it_does_not_take(size: int) -> None:
    """The first message leaves in part; the rest of it comes first, and nothing twice."""
    async with plain(write_limit=2**30) as (conn, peer):
        sent = [f"{number} {PAYLOAD * size}" for number in range(5)]
        for message in sent:
            await conn.send(message)
        assert await messages(peer, 5) == sent
        await conn.flush()
        assert conn.statistics().messages_sent == 5
        conn.abort()


async def test_replies_meet_a_full_socket_too() -> None:
    """What a hook replies goes on where it stopped."""

    class Big(Socket[int]):
        def init_stream(self, info: Any) -> int:
            return 0

        def handle_receive(self, frame: Any, state: int) -> Any:
            return Reply(*(f"{state} {number} {PAYLOAD * 50}" for number in range(4))), state + 1

    async with plain(Big(), write_limit=2**30) as (conn, peer):
        await peer.send_all(b"\x81\x01x" * 2)
        got = await messages(peer, 8)
        assert [text[:4] for text in got] == [f"{n // 4} {n % 4} " for n in range(8)]
        conn.abort()


async def test_pings_do_not_cut_into_a_message_half_written() -> None:
    """They leave between two frames."""
    async with plain(write_limit=2**30) as (conn, peer):
        await conn.send("x" + PAYLOAD * 200)
        await conn.send_frame(Ping(b"!"))
        await conn.send("y")
        assert [str(item)[0] for item in await messages(peer, 3)] == ["x", "P", "y"]
        conn.abort()


async def test_a_cancelled_send_has_queued_its_message_or_not() -> None:
    """One that waits for room has not; what was half written is finished."""
    async with plain(write_limit=10) as (conn, peer):
        await conn.send("first" + PAYLOAD * 200)
        with trio.move_on_after(0.01) as scope:
            await conn.send("never queued")
        assert scope.cancelled_caught
        assert [item[:5] for item in await messages(peer, 1)] == ["first"]
        await conn.send("last")
        assert await messages(peer, 1) == ["last"]
        conn.abort()


async def test_a_peer_that_is_gone_is_found_by_the_write() -> None:
    """What could not be written is in doubt, and the connection is lost."""
    async with plain() as (conn, peer):
        await peer.aclose()
        with pytest.raises(ConnectionClosed) as caught:
            for _ in range(1000):
                await conn.send("x")
                await trio.sleep(0)
        await conn.wait_closed()
        assert caught.value.received is None


async def test_a_socket_closed_under_our_feet_is_a_loss() -> None:
    """Whoever owns the stream closes it: no write goes to a descriptor that is someone else's."""
    near, far = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    peer = trio.SocketStream(trio.socket.from_stdlib_socket(far))
    with trio.fail_after(300):
        async with peer, trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, peer)
            async with connect("ws://pair.test/", stream=stream, compression=None) as conn:
                stream.socket.close()
                other, receiver = socket.socketpair()
                with other, receiver:
                    receiver.setblocking(False)
                    with contextlib.suppress(ConnectionClosed):
                        await conn.send("stray")
                    await conn.wait_closed()
                    with pytest.raises(BlockingIOError):
                        receiver.recv(100)
                    with pytest.raises(ConnectionClosed):
                        await conn.receive()


async def test_a_flood_lets_other_tasks_run() -> None:
    """A peer that never stops does not starve the rest of the program."""
    async with plain(max_queue=None) as (conn, peer):
        turns = 0

        async def flood() -> None:
            while True:
                await peer.send_all(b"\x81\x05flood" * 10_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            while conn.statistics().messages_received < 300_000:
                turns += 1
                await trio.sleep(0)
            nursery.cancel_scope.cancel()
        assert turns > 10
        conn.abort()
